from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from importlib import metadata

import pyarrow as pa
import pytest

from tandem.release import WrongTransition
from tandem.settings import Settings
from warehouse import lake, ledger
from warehouse.tables import RELEASES

DAY = date(2024, 1, 1)


def go(settings: Settings, region: str, release_id: str, *states: str) -> None:
    for state in states:
        ledger.record(settings, region, release_id, state, as_of=DAY, by="test", reason="because")


def test_nothing_was_released_at_first(settings: Settings) -> None:
    assert ledger.latest(settings) == []
    assert ledger.state(settings, "a", "r1") == ""
    assert ledger.current(settings, "a") is None
    assert "no release yet" in ledger.as_text([])


def test_a_release_goes_its_way_in_each_region_alone(settings: Settings) -> None:
    go(settings, "a", "r1", "staged", "sealed", "canary", "current")
    go(settings, "b", "r1", "staged")
    assert ledger.current(settings, "a") == "r1"
    assert ledger.current(settings, "b") is None
    assert ledger.state(settings, "b", "r1") == "staged"


def test_a_rollback_makes_the_backup_current_and_the_other_never_again(settings: Settings) -> None:
    go(settings, "a", "r1", "staged", "sealed", "canary", "current", "backup")
    go(settings, "a", "r2", "staged", "sealed", "canary", "current")
    assert (ledger.current(settings, "a"), ledger.backup(settings, "a")) == ("r2", "r1")
    go(settings, "a", "r2", "quarantined")
    go(settings, "a", "r1", "current")
    assert (ledger.current(settings, "a"), ledger.backup(settings, "a")) == ("r1", None)
    with pytest.raises(WrongTransition, match="r2 is quarantined and cannot become staged"):
        go(settings, "a", "r2", "staged")


def test_a_step_that_does_not_lead_there_is_refused(settings: Settings) -> None:
    with pytest.raises(
        WrongTransition, match="r1 is new and cannot become current; allowed: approved, degraded, staged"
    ):
        go(settings, "a", "r1", "current")


def test_counts_and_inputs_are_kept(settings: Settings) -> None:
    ledger.record(
        settings,
        "a",
        "r1",
        "staged",
        as_of=DAY,
        anchors=3,
        bundles=4,
        checksum="00ff",
        shards=2,
        inputs={"b": 2, "a": 1},
    )
    (row,) = ledger.latest(settings)
    assert (row["anchors"], row["bundles"], row["checksum"], row["shards"]) == (3, 4, "00ff", 2)
    assert row["inputs"] == '{"a": 1, "b": 2}'
    assert "00ff" in ledger.as_text([row])


def test_what_a_release_came_from_is_told_once(settings: Settings) -> None:
    ledger.record(settings, "a", "r1", "staged", as_of=DAY, inputs={"sales_lines": 2}, outputs={"bundles": 7})
    go(settings, "a", "r1", "sealed")
    code = metadata.version("tandem-bundles")
    assert ledger.origins(ledger.history(settings, "r1")) == f"facts: sales_lines 2; tables: bundles 7; code: {code}"


def test_a_later_step_keeps_what_it_does_not_say_anew(settings: Settings) -> None:
    ledger.record(settings, "a", "r1", "staged", as_of=DAY, inputs={"a": 1})
    ledger.record(settings, "a", "r1", "sealed", as_of=DAY, anchors=3, checksum="00ff")
    go(settings, "a", "r1", "canary", "current")
    (row,) = ledger.latest(settings)
    assert (row["state"], row["anchors"], row["checksum"], row["inputs"]) == ("current", 3, "00ff", '{"a": 1}')


def test_writers_at_the_same_time_are_all_recorded_in_one_order(settings: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: go(settings, "a", f"r{number}", "staged"), range(8)))
    rows = ledger.latest(settings)
    assert {row["release_id"] for row in rows} == {f"r{number}" for number in range(8)}
    assert len({row["at"] for row in rows}) == 8


def test_many_rows_come_to_lie_in_few_files_and_stay_as_they_are(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FILES", 5)
    path = ("staged", "sealed", "current", "backup", "current", "backup", "retired")
    go(settings, "a", "r1", *path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: go(settings, "a", f"s{number}", "staged"), range(8)))
    assert [row["state"] for row in ledger.history(settings, "r1")] == list(path)
    assert len(ledger.latest(settings)) == 9
    assert len(lake.open_table(settings, "releases").file_uris()) <= 6


def test_of_two_that_take_the_same_step_one_is_refused(settings: Settings) -> None:
    go(settings, "a", "r1", "staged")

    def seal(_: int) -> str:
        try:
            go(settings, "a", "r1", "sealed")
        except WrongTransition:
            return "refused"
        return "done"

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(seal, range(3))) == ["done", "refused", "refused"]


def test_a_ledger_that_an_earlier_version_made_is_widened_and_its_rows_stay(settings: Settings) -> None:
    narrow = replace(RELEASES, columns=tuple(c for c in RELEASES.columns if c.name not in ("fence", "outputs")))
    lake.create(settings, [narrow])
    row = {"region": "a", "release_id": "r1", "state": "staged", "at": datetime(2024, 1, 1, tzinfo=UTC), "by": "x"}
    row |= {"reason": "old", "as_of": DAY, "code_version": "0"}
    lake.append(settings, narrow, pa.Table.from_pylist([row], schema=lake.arrow_schema(narrow)))
    assert [(each["release_id"], each["fence"]) for each in ledger.latest(settings)] == [("r1", None)]
    ledger.record(settings, "a", "r1", "sealed", as_of=DAY, fence=7, outputs={"bundles": 3})
    assert [(each["state"], each["fence"]) for each in ledger.history(settings, "r1")] == [
        ("staged", None),
        ("sealed", 7),
    ]


def test_a_publisher_that_a_newer_one_took_over_from_records_nothing(settings: Settings) -> None:
    ledger.record(settings, "a", "r1", "staged", as_of=DAY, fence=5)
    ledger.record(settings, "a", "r2", "staged", as_of=DAY, fence=6)
    with pytest.raises(ledger.Superseded, match="region a: a newer publisher has taken over"):
        ledger.record(settings, "a", "r1", "sealed", as_of=DAY, fence=5)
    ledger.record(settings, "b", "r1", "staged", as_of=DAY, fence=1)
    assert ledger.state(settings, "a", "r1") == "staged"


def test_a_region_missed_the_newest_release_that_no_region_quarantined_since(settings: Settings) -> None:
    for name in ("r1", "r2", "r3"):
        ledger.record(settings, "a", name, "degraded", as_of=DAY)
    for state in ("staged", "quarantined"):
        go(settings, "b", "r3", state)
    assert {region: row["release_id"] for region, row in ledger.degraded(settings).items()} == {"a": "r2"}


def test_what_waits_in_another_region_is_not_kept_there_until_it_is_current(settings: Settings) -> None:
    ledger.record(settings, "a", "r1", "degraded", as_of=DAY)
    assert ledger.kept_elsewhere(settings, "r1", ["a", "b"])
    for state in ("staged", "sealed"):
        go(settings, "b", "r1", state)
        assert not ledger.kept_elsewhere(settings, "r1", ["a", "b"])
    go(settings, "b", "r1", "current")
    assert ledger.kept_elsewhere(settings, "r1", ["a", "b"])
