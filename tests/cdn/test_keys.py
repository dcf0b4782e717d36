from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from cdn import keys


def test_keys_are_what_the_design_says() -> None:
    assert keys.manifest_key("east") == "east/current.json"
    assert keys.shard_key("east", "20170601-0123456789ab", 7) == "east/20170601-0123456789ab/7.json"
    assert keys.search_key("east", "20170601-0123456789ab") == "east/20170601-0123456789ab/search.json"


def test_the_shard_of_a_sku_is_its_crc32_as_the_page_computes_it() -> None:
    assert zlib.crc32(b"123456789") == 0xCBF43926, "the check value of CRC-32 in the standard"
    assert keys.shard_of("123456789", 1000) == 0xCBF43926 % 1000


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 5000))
def test_any_text_is_a_sku_and_lands_in_one_of_the_shards(sku: str, count: int) -> None:
    assert 0 <= keys.shard_of(sku, count) < count


def test_surrogate_keys_name_region_and_release() -> None:
    assert keys.surrogate_keys("east", "r1").split() == ["tandem", "east", "east/r1"]
    assert keys.surrogate_keys("east").split() == ["tandem", "east"]
