"""Promote, roll back, quarantine: pointer, manifest and ledger agree, however often and from wherever it is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import redis

from cdn.manifest import Manifest
from edge_service.lease import publishing
from edge_service.region_store import RegionStore
from spark_jobs import release_switch
from tandem import regions
from tandem.bundle import AnchorList
from tandem.errors import TandemError
from tandem.release import WrongTransition
from tandem.settings import Settings
from tests.commands import tandem
from tests.conftest import RunningStore
from tests.edge_service.conftest import LISTS
from tests.edge_service.conftest import publish as publish_to_redis
from tests.spark_jobs.small_shop import make
from warehouse import ledger

pytestmark = pytest.mark.servers
DAY = date(2026, 1, 5)
Sealed = Callable[..., None]


@pytest.fixture
def shop(tmp_path: Path, redis_url: str, object_store: RunningStore) -> Settings:
    made = make(tmp_path, redis_url, object_store.store.endpoint)
    return Settings(
        home=made.home, config=made.config, s3_access_key=object_store.access_key, s3_secret_key=object_store.secret_key
    )


@pytest.fixture
def sealed(shop: Settings) -> Sealed:
    """Seal releases in a region: Redis, the kept manifest, the ledger."""

    def seal(*names: str, region: str = "north", lists: list[AnchorList] = LISTS) -> None:
        where = regions.load(shop.config_folder).get(region)
        for name in names:
            with publishing(where, print) as store:
                publish_to_redis(store, name, lists=lists, point=False)
            manifest = Manifest(
                region=region,
                release=name,
                as_of=f"{DAY}",
                computed_at="2026-01-05T00:00:00Z",
                currency=where.currency,
                segments=["everyone"],
                shard_count=1,
                shards=["0" * 64],
                search="0" * 64,
            )
            release_switch.object_store(shop, where).keep_manifest(manifest)
            for state in ("staged", "sealed"):
                ledger.record(shop, region, name, state, as_of=DAY, anchors=4)  # type: ignore[arg-type]

    return seal


def promote(shop: Settings, *names: str) -> None:
    for name in names:
        release_switch.promote_named(shop, "north", name, "test", print)


def seen(shop: Settings) -> tuple[str | None, str | None, str | None, dict[str, str]]:
    """(pointer, backup, what the CDN shows, state of each release in the ledger)."""
    region = regions.load(shop.config_folder).get("north")
    with RegionStore(region) as store:
        manifest = release_switch.object_store(shop, region).manifest("north")
        states = {row["release_id"]: row["state"] for row in ledger.latest(shop) if row["region"] == "north"}
        return store.current(), store.backup(), manifest and manifest.release, states


def test_promoting_twice_changes_nothing_and_older_backups_retire(shop: Settings, sealed: Sealed) -> None:
    sealed("r1", "r2", "r3")
    promote(shop, "r1", "r2")
    once = seen(shop)
    rows = len(ledger.history(shop, "r2"))
    promote(shop, "r2")
    assert seen(shop) == once == ("r2", "r1", "r2", {"r1": "backup", "r2": "current", "r3": "sealed"})
    assert len(ledger.history(shop, "r2")) == rows
    promote(shop, "r3")
    assert seen(shop) == ("r3", "r2", "r3", {"r1": "retired", "r2": "backup", "r3": "current"})


def test_a_rollback_twice_ends_the_same_and_never_on_what_was_quarantined(shop: Settings, sealed: Sealed) -> None:
    sealed("r1", "r2")
    promote(shop, "r1", "r2")
    release_switch.rollback(shop, "north", "prices", print, to="r1")
    once = seen(shop)
    release_switch.rollback(shop, "north", "prices", print, to="r1")
    assert seen(shop) == once == ("r1", None, "r1", {"r1": "current", "r2": "quarantined"})
    with pytest.raises(release_switch.NoBackup):
        release_switch.rollback(shop, "north", "again", print)
    with pytest.raises(TandemError, match="release r2 is quarantined; a rollback goes to a backup: none"):
        release_switch.rollback(shop, "north", "again", print, to="r2")
    with pytest.raises(WrongTransition):
        promote(shop, "r2")
    assert seen(shop) == once


def test_a_rollback_to_a_backup_whose_keys_are_gone_is_refused(shop: Settings, sealed: Sealed) -> None:
    sealed("r1", "r2")
    promote(shop, "r1", "r2")
    before = seen(shop)
    with redis.Redis.from_url(regions.load(shop.config_folder).get("north").redis_url) as client:
        client.delete("tandem:release:r1:meta")
    with pytest.raises(release_switch.NoBackup):
        release_switch.rollback(shop, "north", "prices", print)
    with pytest.raises(TandemError, match="lies there no more; tandem rebuild --region north"):
        release_switch.rollback(shop, "north", "prices", print, to="r1")
    assert seen(shop) == before


@pytest.mark.parametrize("step", ["switch", "manifest", "first row"])
def test_a_rollback_that_was_killed_halfway_is_finished_by_running_it_again(
    shop: Settings, sealed: Sealed, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    sealed("r1", "r2")
    promote(shop, "r1", "r2")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "switch":
            patch.setattr(RegionStore, "switch", killed)
        elif step == "manifest":
            patch.setattr("cdn.store.ObjectStore.put_manifest", killed)
        else:
            real = ledger.record
            patch.setattr(ledger, "record", lambda *a, **k: real(*a, **k) if a[3] == "quarantined" else killed())
        with pytest.raises(KeyboardInterrupt):
            release_switch.rollback(shop, "north", "prices", print)
    release_switch.rollback(shop, "north", "prices", print)
    assert seen(shop) == ("r1", None, "r1", {"r1": "current", "r2": "quarantined"})


def test_what_shoppers_see_is_rolled_back_when_it_is_quarantined(shop: Settings, sealed: Sealed) -> None:
    sealed("r1", "r2")
    promote(shop, "r1", "r2")
    for _ in range(2):
        release_switch.quarantine(shop, "north", "r2", "broken titles", print)
        assert seen(shop) == ("r1", None, "r1", {"r1": "current", "r2": "quarantined"})
    reasons = [row["reason"] for row in ledger.history(shop, "r2") if row["state"] == "quarantined"]
    assert reasons == ["broken titles"]


def test_a_publisher_that_was_taken_over_from_writes_neither_pointer_nor_ledger(shop: Settings, sealed: Sealed) -> None:
    sealed("r1", "r2")
    promote(shop, "r1")
    region = regions.load(shop.config_folder).get("north")
    with publishing(region, print) as sleeper:
        promote_now = lambda: release_switch.promote(shop, sleeper, "r2", DAY, print)  # noqa: E731
        with publishing(region, print, take_over=True) as successor:
            ledger.record(shop, "north", "r1", "backup", as_of=DAY, fence=successor.fence)
            ledger.record(shop, "north", "r1", "current", as_of=DAY, fence=successor.fence)
        before = seen(shop)
        with pytest.raises(TandemError, match="refused: a newer publisher took over"):
            promote_now()
        with pytest.raises(ledger.Superseded, match="a newer publisher has taken over"):
            ledger.record(shop, "north", "r2", "current", as_of=DAY, fence=sleeper.fence)
    assert seen(shop) == before


def test_the_commands_say_what_they_did_and_one_region_out_of_reach_stops_no_other(
    shop: Settings, sealed: Sealed
) -> None:
    sealed("r1")
    text = (shop.config_folder / "regions.toml").read_text(encoding="utf-8")
    head, _, tail = text.rpartition("redis://")
    (shop.config_folder / "regions.toml").write_text(f"{head}redis://127.0.0.1:1{tail[tail.index('/') :]}", "utf-8")
    for state in ("staged", "sealed"):
        ledger.record(shop, "south", "r1", state, as_of=DAY)  # type: ignore[arg-type]
    with pytest.raises(TandemError, match="not done in south"):
        release_switch.promote_each(shop, [], "r1", "test", print)

    def run(*arguments: str) -> str:
        return tandem(shop, *arguments).output

    assert "r1 is current" in run("release", "promote", "r1", "--region", "north")
    told = json.loads(run("release", "show", "r1", "--json"))
    assert [row["state"] for row in told if row["region"] == "north"] == ["staged", "sealed", "current"]
    assert "promoted by hand" not in run("release", "show", "r1")
    assert run("release", "show", "r9").startswith("Error: there is no release r9")
    assert run("rollback", "--region", "north").startswith("Error: region north has no backup release")


def test_a_switch_that_was_cut_off_is_rolled_back_to_what_the_ledger_calls_current(
    shop: Settings, sealed: Sealed
) -> None:
    sealed("r1", "r2", "r3")
    promote(shop, "r1", "r2")
    with publishing(regions.load(shop.config_folder).get("north"), print) as store:
        store.switch("r3", "r2")
    release_switch.quarantine(shop, "north", "r3", "errors", print)
    assert seen(shop) == ("r2", "r1", "r2", {"r1": "backup", "r2": "current", "r3": "quarantined"})
