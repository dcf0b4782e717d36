"""Why a bundle is as it is comes back as it was told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tandem import why
from tandem.why import ACTIONS, DECIDED, Shaped, Why

shaped = st.builds(Shaped, st.integers(0, 100_000), st.sampled_from(ACTIONS))


@given(st.builds(Why, st.sampled_from(DECIDED), st.lists(shaped, max_size=5).map(tuple)))
def test_what_travels_comes_back(told: Why) -> None:
    assert why.decode(why.encode(told)) == told


def test_nothing_told_is_unknown() -> None:
    assert why.decode(()) == Why("unknown", ())
