"""Space is freed of what no release needs, and of nothing else; on real Delta tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from cdn.store import ObjectStore
from tandem.errors import TandemError
from tandem.settings import Settings
from tests.commands import tandem
from tests.conftest import RunningStore
from tests.warehouse.test_gate import DAY, bundle, listed
from tests.warehouse.test_release_diff import staged
from warehouse import lake, ledger, release_diff, vacuum
from warehouse.tables import BUNDLE_SETS, BUNDLES, FREED


@pytest.fixture
def three(settings: Settings) -> Settings:
    """r1 is retired, r2 the backup and r3 current; each replaced the rows of the one before."""
    lake.create(settings)
    for release_id, bundle_id in (("r1", "b1"), ("r2", "b2"), ("r3", "b3")):
        staged(settings, release_id, [bundle(bundle_id, "tea", "milk")], [listed("tea", bundle_id)])
        for state in ("sealed", "current", "backup", "retired")[: 5 - int(release_id[1])]:
            ledger.record(settings, "shop", release_id, state, as_of=DAY)  # type: ignore[arg-type]
    return settings


def ids(settings: Settings, version: int) -> list[str]:
    rows: list[str] = lake.open_table(settings, "bundles", version).to_pyarrow_table()["bundle_id"].to_pylist()
    return rows


def files(settings: Settings) -> set[Path]:
    return set(Path(lake.uri(settings, "bundles")).rglob("*.parquet"))


def test_only_said_at_first_then_what_no_release_needs_goes_and_the_others_can_be_read(three: Settings) -> None:
    said: list[str] = []
    left = next(iter(files(three))).with_name("left-by-a-killed-build.parquet")
    left.write_bytes(b"")
    before = files(three)
    assert vacuum.run(three, [], said.append, hours=0) == 3
    assert files(three) == before
    (told,) = (line for line in said if line.startswith("bundles: 2 files ("))
    assert told.endswith(" could be removed; kept for releases: version 3 (r2), 4 (r3)")
    assert vacuum.run(three, [], said.append, hours=0, delete=True) == 3
    assert len(before - files(three)) == 2
    assert not left.exists()
    assert (ids(three, 3), ids(three, 4)) == (["b2"], ["b3"])
    assert release_diff.diff(three, "r2", "r3")[0].added == 1
    with pytest.raises((DeltaError, OSError)):
        ids(three, 2)
    assert vacuum.run(three, ["bundles"], said.append, hours=0, delete=True) == 0
    assert lake.versions(three, ["bundles"]) == {"bundles": 4}, "unchanged facts still make the same release"


@pytest.mark.parametrize("state", ["staged", "sealed", "canary", "held", "degraded"])
def test_a_release_on_its_way_keeps_its_files_too(settings: Settings, state: str) -> None:
    before = {"degraded": ["degraded"], "staged": ["staged"], "sealed": ["staged", "sealed"]}
    for each in before.get(state, ["staged", "sealed", state]):
        ledger.record(settings, "shop", "r1", each, as_of=DAY, inputs={"prices": 4}, outputs={"bundles": 7})  # type: ignore[arg-type]
    assert vacuum.needed(settings) == {"prices": {4: {"r1"}}, "bundles": {7: {"r1"}}}
    ledger.record(settings, "shop", "r1", "quarantined", as_of=DAY)
    assert vacuum.needed(settings) == {}


def test_a_vacuum_that_knows_of_no_release_removes_nothing_and_a_shorter_one_is_refused(three: Settings) -> None:
    table = lake.open_table(three, "bundles")
    assert table.vacuum(dry_run=True) == []
    with pytest.raises(DeltaError, match="minimum retention"):
        table.vacuum(retention_hours=0, dry_run=True)


def test_a_table_of_an_earlier_tandem_is_kept_like_the_others(settings: Settings) -> None:
    from deltalake import Schema

    old = DeltaTable.create(f"{settings.home}/old/bundles", schema=Schema.from_json(BUNDLES.schema_json()))
    assert old.metadata().configuration == {}
    found = Settings(home=settings.home, lake=f"{settings.home}/old")
    for _ in range(2):
        lake.create(found, [BUNDLES])
    table = lake.open_table(found, "bundles")
    assert table.metadata().configuration.items() >= lake.KEPT.items()
    assert table.version() <= 3


def test_the_command_says_what_it_could_do_and_names_the_tables_there_are(three: Settings) -> None:
    def run(*arguments: str) -> Any:
        return tandem(three, "vacuum", *arguments)

    done = run()
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) == len(FREED)
    assert "bundles: 0 files (0.0 MB) could be removed; kept" in done.output, "what was in use in the last week stays"
    assert "there is no table teas" in run("--table", "teas").output
    assert run("--days", "0").exit_code == 2
    with pytest.raises(TandemError, match="bundle_sets"):
        vacuum.run(three, ["releases"], print, hours=0)
    assert json.loads(ledger.latest(three)[0]["outputs"])["bundles"] == 4


@pytest.mark.servers
def test_space_is_freed_in_a_bucket_as_in_a_folder(tmp_path: Path, object_store: RunningStore) -> None:
    on_s3 = Settings(
        home=tmp_path,
        lake=f"s3a://{object_store.store.bucket}/{tmp_path.name}",
        s3_endpoint=object_store.store.endpoint,
        s3_access_key=object_store.access_key,
        s3_secret_key=object_store.secret_key,
    )
    ObjectStore(object_store.store, on_s3.s3_access_key, on_s3.s3_secret_key, on_s3.s3_region).ensure_bucket()
    lake.create(on_s3, [BUNDLES, BUNDLE_SETS])
    for release_id in ("r1", "r2", "r3"):
        staged(on_s3, release_id, [bundle(f"b{release_id}", "tea", "milk")], [listed("tea", f"b{release_id}")])
    ledger.record(on_s3, "shop", "r1", "retired", as_of=DAY)
    assert vacuum.run(on_s3, ["bundles"], print, hours=0, delete=True) == 1
    assert vacuum.run(on_s3, ["bundles"], print, hours=0) == 0
    assert release_diff.diff(on_s3, "r2", "r3")[0].added == 1
