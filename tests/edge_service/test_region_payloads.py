"""What lies in Redis comes back as it went, whatever it is, and takes little room."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_service.region_payloads import (
    Buckets,
    body_field,
    decode_body,
    decode_list,
    encode_body,
    encode_list,
)
from tandem.bundle import Bundle, Component, Listed, Story, Substitute

ids = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")
whole = st.integers(0, 10**9)
hundredths = st.integers(0, 10**7).map(lambda number: number / 100)
whys = st.lists(whole, max_size=3).map(tuple)
stories = st.builds(Story, whole, hundredths, st.integers(0, 9_999), whys)
places = st.builds(
    Listed,
    ids,
    st.integers(0, 10_000).map(lambda number: number / 10_000),
    st.sampled_from(["segment", "region", "global", "category", "a level of tomorrow"]),
    st.none() | stories,
)
text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)
floors = st.none() | whole
parts = st.builds(Component, text, st.integers(1, 99), floors, st.lists(st.builds(Substitute, text, floors)).map(tuple))


@given(st.lists(places, max_size=12).map(tuple))
def test_a_list_comes_back_as_it_went(listed: tuple[Listed, ...]) -> None:
    assert decode_list(encode_list(listed)) == listed


@given(ids, st.lists(parts, min_size=1, max_size=4).map(tuple), stories)
def test_a_bundle_comes_back_as_it_went(name: str, components: tuple[Component, ...], told: Story) -> None:
    bundle = Bundle(name, components, told.discount_bps, told.orders_together, told.lift, told.why)
    assert decode_body(name, encode_body(bundle)) == bundle


@given(ids)
def test_an_id_is_stored_as_its_bytes(name: str) -> None:
    assert body_field(name).hex() == name


def test_a_list_of_four_is_a_third_of_its_json_and_fits_what_redis_keeps_compact() -> None:
    listed = tuple(Listed(f"{7**20 + n:016x}", 0.2714 - n / 100, "region") for n in range(4))
    assert len(encode_list(listed)) <= 64 < len(msgspec.json.encode(listed)) / 2


@pytest.mark.parametrize("wrong", ["", "b1", "eight by", "0123456789ABCDEF", "0123456789abcdeg", "0123456789abcdef0"])
def test_what_is_no_bundles_id_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        body_field(wrong)
    with pytest.raises(ValueError, match="hexadecimal"):
        encode_list([Listed(wrong, 0.5, "region")])


@given(st.integers(1, 500), st.integers(0, 10**6), st.integers(0, 10**6), text)
def test_what_belongs_to_one_shard_is_in_hashes_of_its_own(shards: int, lists: int, bodies: int, sku: str) -> None:
    buckets = Buckets.of(shards, lists, bodies)
    bundle = Bundle("0" * 16, (Component(sku),), 0, 1, 1.0)
    same = Buckets.of(shards, 0, 0)
    assert buckets.of_list(sku) % shards == buckets.of_body(bundle) % shards == same.of_list(sku)
    assert buckets.of_list(sku) < buckets.lists
    assert buckets.of_body(bundle) < buckets.bodies
    assert lists / buckets.lists <= 80
