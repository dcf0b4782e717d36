"""A bundle's id depends on its components, and on nothing else."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tandem.bundle import AnchorList, Bundle, Component, Listed, Story, Substitute, bundle_id

parts = st.lists(st.tuples(st.text(min_size=1, max_size=8), st.integers(1, 9)), min_size=1, max_size=4)


@given(parts, st.randoms())
def test_the_order_of_components_does_not_matter(components: list[tuple[str, int]], rng: object) -> None:
    shuffled = list(components)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert bundle_id(shuffled) == bundle_id(components)


@given(parts, parts)
def test_other_components_have_another_id(one: list[tuple[str, int]], other: list[tuple[str, int]]) -> None:
    if not any("\t" in sku or "\n" in sku for sku, _ in one + other):
        assert (bundle_id(one) == bundle_id(other)) == (sorted(one) == sorted(other))


def test_an_id_is_the_same_on_every_machine() -> None:
    assert bundle_id([("tea", 1), ("cup", 2)]) == "e919ea600b563045"


def test_what_is_stored_has_the_same_bytes_every_time_and_reads_back() -> None:
    component = Component("a", 2, 90, (Substitute("c", 5), Substitute("d")))
    bundle = Bundle("id", (component, Component("b")), 500, 12, 2.5, (1, 49))
    listed = AnchorList("*", "a", (Listed("id", 0.25, "region"),))
    text = msgspec.json.encode(bundle)
    assert text == b'["id",[["a",2,90,[["c",5],["d",null]]],["b",1,null,[]]],500,12,2.5,[1,49]]'
    assert msgspec.json.decode(text, type=Bundle) == bundle
    assert msgspec.json.encode(listed) == b'["*","a",[["id",0.25,"region",null]]]'


def test_a_place_tells_the_bundle_as_its_own_segment_knows_it() -> None:
    bundle = Bundle("id", (Component("a"), Component("b")), 500, 312, 8.4)
    assert Listed("id", 0.25, "region").tell(bundle) is bundle
    told = Listed("id", 0.5, "segment", Story(40, 9.1, 250)).tell(bundle)
    assert told == Bundle("id", bundle.components, 250, 40, 9.1)
