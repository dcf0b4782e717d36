"""From facts to keys: what a release came from and what became of it, as a person and as a program read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_service.region_store import RegionStore
from spark_jobs import lineage
from tandem import regions
from tandem.errors import TandemError
from tandem.settings import Settings
from tests.commands import tandem
from tests.spark_jobs.test_release_switch import DAY, Sealed, sealed, shop
from warehouse import lake, ledger
from warehouse.lineage import JOBS
from warehouse.tables import BUILT, INPUTS, NAMED

__all__ = ["sealed", "shop"]
pytestmark = pytest.mark.servers


@pytest.fixture
def released(shop: Settings, sealed: Sealed) -> Settings:
    """r1 lies sealed in north, with the versions of its tables in the ledger."""
    sealed("r1")
    told = {"inputs": lake.versions(shop), "outputs": lake.versions(shop, BUILT), "shards": 3}
    ledger.record(shop, "north", "r1", "current", as_of=DAY, **told)
    return shop


def run(shop: Settings, *arguments: str) -> str:
    done = tandem(shop, "lineage", *arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_every_table_has_its_version_and_rows_and_every_key_lies_there(released: Settings) -> None:
    found: dict[str, Any] = json.loads(run(released, "r1", "--json"))
    assert [fact["table"] for fact in found["facts"]] == list(INPUTS)
    sales = lake.open_table(released, "sales_lines")
    assert found["facts"][0] == {"table": "sales_lines", "version": sales.version(), "rows": sales.count()}
    written = {held["table"]: held["version"] for job in found["jobs"] for held in job["writes"]}
    assert written == lake.versions(released, BUILT)
    (north,) = found["regions"]
    assert (north["region"], north["state"], north["lists"]) == ("north", "current", 4)
    assert [each["count"] for each in north["cdn"]] == [3, 1, 1]
    assert north["cdn"][0]["key"] == "north/r1/{shard}.json"
    with RegionStore(regions.load(released.config_folder).get("north")) as store:
        there = {key.decode() for key in store._redis.scan_iter("tandem:release:r1:*")}
    named = {each["key"].replace("{bucket}", str(n)) for each in north["redis"] for n in range(each["count"])}
    assert there <= named
    assert "tandem:release:r1:meta" in there


def test_a_person_reads_it_from_the_facts_to_the_keys(released: Settings) -> None:
    lines = run(released, "r1").splitlines()
    assert lines[0].startswith(f"r1, of {DAY}, by version ")
    for name in NAMED:
        assert any(name in line.split() for line in lines)
    assert "north: current since" in next(line for line in lines if line.startswith("north"))
    assert "  CDN    north/r1/{shard}.json  × 3" in lines
    assert "  Redis  tandem:release:r1:meta" in lines


def test_a_region_out_of_reach_and_a_release_that_is_nowhere(released: Settings) -> None:
    text = (released.config_folder / "regions.toml").read_text(encoding="utf-8")
    address = regions.load(released.config_folder).get("north").redis_url
    (released.config_folder / "regions.toml").write_text(text.replace(address, "redis://127.0.0.1:1/0"), "utf-8")
    assert lineage.of(released, "r1").regions[0].redis == []
    with pytest.raises(TandemError, match="there is no release r9; look with tandem releases"):
        lineage.of(released, "r9")


def test_a_job_reads_what_facts_or_jobs_before_it_made() -> None:
    made = {*INPUTS, "exposures", "outcomes"}
    for flow in JOBS.values():
        assert set(flow.reads) <= made
        made |= set(flow.writes)
