"""What is kept stays within its bound, also with what is dropped and not freed yet."""

from __future__ import annotations

from weakref import WeakSet

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_service.kept import FREED, Kept

LIMIT = 400
step = st.tuples(st.sampled_from(["put", "put", "put", "get", "clear"]), st.integers(0, 999))
steps = st.lists(step, min_size=150, max_size=300)


class Thing:
    size = 10


@settings(deadline=None)
@given(steps)
def test_no_more_is_in_memory_than_the_bound_and_what_was_dropped_is_never_given(steps: list[tuple[str, int]]) -> None:
    kept: Kept[int, Thing] = Kept(LIMIT)
    alive: WeakSet[Thing] = WeakSet()
    last: dict[int, Thing] = {}
    for step, key in steps:
        if step == "put" and kept.get(key) is None:
            kept.put(key, made := Thing())
            alive.add(made)
            last[key] = made
            del made
        elif step == "clear":
            kept.clear()
            last = {}
        else:
            assert kept.get(key) in (None, last.get(key))
        assert kept.size == Thing.size * len(kept) <= LIMIT
        last = {number: thing for number, thing in last.items() if kept.get(number) is thing}
        assert len(alive) * Thing.size <= LIMIT + Thing.size


def test_what_is_dropped_goes_a_few_at_a_time() -> None:
    kept: Kept[int, Thing] = Kept(LIMIT)
    alive: WeakSet[Thing] = WeakSet()
    for key in range(20):
        kept.put(key, thing := Thing())
        alive.add(thing)
    del thing
    kept.clear()
    assert (len(alive), len(kept), kept.get(3)) == (20, 0, None)
    kept.put(0, Thing())
    assert len(alive) == 20 - FREED
    assert kept.free(10)
    assert not kept.free(10)
    assert len(alive) == 0
