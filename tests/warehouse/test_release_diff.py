"""What differs between two releases, by the table versions that the ledger names."""

from __future__ import annotations

from typing import Any

import pytest

from tandem.errors import TandemError
from tandem.settings import Settings
from tests.warehouse.test_gate import DAY, bundle, listed
from warehouse import lake, ledger, release_diff
from warehouse.tables import BUNDLE_SETS, BUNDLES


def staged(settings: Settings, release_id: str, bundles: list[dict[str, Any]], lists: list[dict[str, Any]]) -> None:
    """The day's rows are replaced by those of this release, as a rebuild of a day does."""
    import pyarrow as pa

    for table, rows in ((BUNDLES, bundles), (BUNDLE_SETS, lists)):
        named = [row | {"release_id": release_id} for row in rows]
        lake.replace(settings, table, pa.Table.from_pylist(named, schema=lake.arrow_schema(table)))
    outputs = lake.versions(settings, ("bundles", "bundle_sets"))
    ledger.record(settings, "shop", release_id, "staged", as_of=DAY, outputs=outputs)


def test_added_dropped_changed_and_churn_are_counted_though_the_day_was_built_again(settings: Settings) -> None:
    lake.create(settings)
    tea, jam, cup = bundle("b1", "tea", "milk"), bundle("b2", "tea", "jam"), bundle("b3", "tea", "cup")
    staged(settings, "r1", [tea, jam], [listed("tea", "b1", "b2"), listed("milk", "b1")])
    staged(settings, "r2", [tea | {"discount_bps": 500}, cup], [listed("tea", "b3", "b1"), listed("milk", "b1")])
    (found,) = release_diff.diff(settings, "r1", "r2")
    assert found[:8] == ("shop", 1, 1, 1, 0, 2, 2, 0.5)
    assert found.examples == ["added b3 (tea + cup)", "changed b1 (tea + milk)", "dropped b2 (tea + jam)"]
    assert "another best bundle for 50.0% of the anchors" in str(found)
    (same,) = release_diff.diff(settings, "r1", "r1")
    assert same[1:4] == (0, 0, 0)
    assert (same.kept, same.churn) == (2, 0.0)


def test_a_release_that_is_nowhere_is_named(settings: Settings) -> None:
    lake.create(settings)
    with pytest.raises(TandemError, match="there is no release r9"):
        release_diff.diff(settings, "r9", "r1")
