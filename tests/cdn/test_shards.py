from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn import files, keys, manifest, shards
from tandem.bundle import AnchorList, Listed
from tests.cdn.small_release import BUNDLES, LISTS, PRODUCTS, RELEASE, release_files


def contents(count: int = 3) -> list[dict[str, dict[str, object]]]:
    made, _ = release_files("east", RELEASE, count)
    return [json.loads(made[keys.shard_key("east", RELEASE, number)].content) for number in range(count)]


def test_every_anchor_is_in_its_own_shard_and_nowhere_else() -> None:
    for number, shard in enumerate(contents()):
        assert all(keys.shard_of(sku, 3) == number for sku in shard["anchors"])
    assert sorted(sku for shard in contents() for sku in shard["anchors"]) == ["beer", "tea", "wine"]


def test_a_shard_says_all_that_the_page_shows() -> None:
    (shard,) = contents(1)
    beer = next(made for made in BUNDLES.values() if made.components[0].sku == "beer")
    assert shard["anchors"]["beer"] == {
        "*": [{"id": beer.id, "confidence": 0.21, "matched": "region"}],
        "families": [{"id": beer.id, "confidence": 0.21, "matched": "segment"}],
    }
    assert shard["bundles"][beer.id] == {
        "components": [{"sku": "beer", "quantity": 1}, {"sku": "crisps", "quantity": 1}],
        "evidence": {"orders_together": 312, "lift": 8.4},
    }
    assert shard["products"]["crisps-substitute"] == {
        "title": "Crisps-Substitute",
        "brand": "Brand",
        "category": "GROCERY > SNACKS",
        "image": "symbols/grocery.svg",
    }


def test_a_product_that_the_catalogue_lacks_is_left_out_of_products_only() -> None:
    (shard,) = contents(1)
    assert "søt/kake?#-substitute" not in shard["products"]
    assert "søt/kake?#" in shard["products"]


def test_no_floor_and_no_discount_reaches_the_bytes() -> None:
    made, _ = release_files("east", RELEASE)
    for file in made.values():
        text = file.content.decode()
        for secret in ("123456789", "987654321", "731", "floor", "cost", "margin", "discount", "substitutes"):
            assert secret not in text.replace(RELEASE, "")


def test_the_same_content_gives_the_same_bytes_in_any_order() -> None:
    lists, skus, ids = list(LISTS), list(PRODUCTS), list(BUNDLES)

    def bodies(*rows: Any) -> list[bytes]:
        made = shards.shard_file("east", RELEASE, 0, 1, *rows)
        return [made.body(encoding) for encoding in files.RELEASE]

    once = bodies(PRODUCTS, BUNDLES, lists)
    for seed in range(5):
        for order in (lists, skus, ids):
            random.Random(seed).shuffle(order)
        products, bundles = {sku: PRODUCTS[sku] for sku in skus}, {each: BUNDLES[each] for each in ids}
        assert bodies(products, bundles, iter(lists)) == once


def test_another_process_makes_the_same_bytes() -> None:
    program = (
        "import sys; from tests.cdn.small_release import *;"
        "from cdn.files import GZIP;"
        "sys.stdout.buffer.write(release_files('east', RELEASE, 1)[0][f'east/{RELEASE}/0.json'].body(GZIP))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, env={"PYTHONHASHSEED": "7"}
    )
    assert other.stdout == release_files("east", RELEASE, 1)[0][f"east/{RELEASE}/0.json"].body(files.GZIP)


def test_the_gzip_frame_holds_no_time_and_no_name() -> None:
    body = shards.search_file("east", RELEASE, PRODUCTS.values()).body(files.GZIP)
    assert body[:4] == b"\x1f\x8b\x08\x00"
    assert body[4:8] == bytes(4)


def test_a_list_in_the_wrong_shard_is_refused() -> None:
    wrong = (keys.shard_of("beer", 3) + 1) % 3
    with pytest.raises(ValueError, match="'beer' belongs to shard"):
        shards.shard_file("east", RELEASE, wrong, 3, PRODUCTS, BUNDLES, LISTS[:1])


def test_a_list_of_an_unknown_bundle_is_refused() -> None:
    unknown = AnchorList("*", "beer", (Listed("0" * 16, 0.5, "region"),))
    with pytest.raises(KeyError):
        shards.shard_file("east", RELEASE, 0, 1, PRODUCTS, BUNDLES, [unknown])


def test_search_is_sorted_by_title_then_sku() -> None:
    twins = [shards.Product(sku, "Tea") for sku in ("2", "1")]
    found = json.loads(shards.search_file("east", RELEASE, [PRODUCTS["wine"], *twins]).content)
    assert found["products"] == [["1", "Tea", None], ["2", "Tea", None], ["wine", "Wine", "symbols/grocery.svg"]]


@given(st.integers(0, 10**12))
def test_shards_have_at_most_the_target_and_never_far_below(total: int) -> None:
    count = shards.shard_count(total)
    assert total / count <= shards.TARGET_BYTES
    assert count == 1 or total / count > shards.TARGET_BYTES / 2


def test_a_manifest_comes_back_as_it_went() -> None:
    _, made = release_files("east", RELEASE)
    assert manifest.decode(manifest.encode(made)) == made


def test_a_manifest_whose_counts_disagree_is_refused() -> None:
    _, made = release_files("east", RELEASE)
    with pytest.raises(ValueError, match="shard_count 2 and 3"):
        manifest.Manifest(**{**{name: getattr(made, name) for name in made.__struct_fields__}, "shard_count": 2})
