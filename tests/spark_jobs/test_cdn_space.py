"""Retired releases leave the bucket; nothing that shoppers may be sent to does. On a real object store and Redis."""

from __future__ import annotations

import uuid

import pytest

from cdn.store import ObjectStore
from edge_service.lease import publishing
from spark_jobs import cdn_space, release_switch
from tandem import regions
from tandem.errors import Unavailable
from tandem.settings import Settings
from tests.cdn.small_release import release_files
from tests.commands import tandem
from tests.spark_jobs.test_release_switch import DAY, Sealed, promote, sealed, seen, shop
from warehouse import ledger

__all__ = ["sealed", "shop"]
pytestmark = pytest.mark.servers


@pytest.fixture
def store(shop: Settings, sealed: Sealed) -> ObjectStore:
    """r1 to r6, of which r3 is quarantined, r1, r2 and r4 are retired, r5 is the backup and r6 current; r7 waits."""
    found = release_switch.object_store(shop, regions.load(shop.config_folder).get("north"))
    found.ensure_bucket()
    for release in sorted(found.sizes("north")):
        found._client.delete_object(Bucket="tandem", Key="north/current.json")
        found.delete_release("north", release)
    for number in range(1, 8):
        found.put_release("north", f"r{number}", release_files("north", f"r{number}")[0])
        sealed(f"r{number}")
        if number < 7:
            promote(shop, f"r{number}")
        if number == 3:
            release_switch.rollback(shop, "north", "wrong", print)
    return found


def run(shop: Settings, *, keep: int, delete: bool = False) -> tuple[int, str]:
    said: list[str] = []
    return cdn_space.run(shop, ["north"], lambda line: said.append(line), keep=keep, delete=delete), "\n".join(said)


def test_it_is_only_said_at_first_and_never_of_what_may_be_shown(shop: Settings, store: ObjectStore) -> None:
    everything = sorted(store.sizes("north"))
    found, said = run(shop, keep=2)
    assert found == 2
    assert sorted(store.sizes("north")) == everything == [f"r{number}" for number in range(1, 8)]
    assert "north: r6 (current), 9 files, " in said
    assert said.count("not needed") == 2
    assert run(shop, keep=2, delete=True)[0] == 2
    assert sorted(store.sizes("north")) == ["r2", "r4", "r5", "r6", "r7"], "what went last stays"
    assert run(shop, keep=2, delete=True)[0] == 0
    run(shop, keep=0, delete=True)
    assert sorted(store.sizes("north")) == ["r5", "r6", "r7"]
    release_switch.rollback(shop, "north", "back", print)
    assert seen(shop)[2] == "r5"


def test_what_the_manifest_still_shows_stays_whatever_the_ledger_says(shop: Settings, store: ObjectStore) -> None:
    """As after a switch that was cut off between pointer and manifest."""
    store.put_manifest("north", release_files("north", "r2")[1])
    run(shop, keep=0, delete=True)
    assert sorted(store.sizes("north")) == ["r2", "r5", "r6", "r7"]


def test_what_the_ledger_does_not_know_is_left_and_told(shop: Settings, store: ObjectStore) -> None:
    strange = f"x{uuid.uuid4().hex[:8]}"
    store.put_release("north", strange, release_files("north", strange)[0])
    assert f"north: {strange} (unknown to the ledger), 8 files" in run(shop, keep=0, delete=True)[1]
    assert strange in sorted(store.sizes("north"))


def test_a_release_that_is_staged_anew_meanwhile_stays(
    shop: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def staged_first(*given: object) -> object:
        ledger.record(shop, "north", "r1", "staged", as_of=DAY)
        return publishing(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(cdn_space, "publishing", staged_first)
    run(shop, keep=0, delete=True)
    assert sorted(store.sizes("north")) == ["r1", "r5", "r6", "r7"]


def test_the_command_goes_on_where_a_region_is_away(shop: Settings, store: ObjectStore) -> None:
    path = shop.config_folder / "regions.toml"
    head, _, tail = path.read_text(encoding="utf-8").rpartition('endpoint = "')
    path.write_text(f'{head}endpoint = "http://127.0.0.1:9"{tail[tail.index(chr(10)) :]}', encoding="utf-8")
    with pytest.raises(Unavailable, match="not looked at: south"):
        cdn_space.run(shop, [], print, keep=2)
    done = tandem(shop, "cdn", "--region", "north")
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) == 7
    assert len(sorted(store.sizes("north"))) == 7
