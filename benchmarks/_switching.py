"""How soon all regions show another release, and how soon an edge answers from the one before after a rollback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime

import msgspec
import redis

from benchmarks import _releases
from benchmarks._serving import ROOT, Serving, environment
from benchmarks._told import Row
from cdn.manifest import Manifest
from deploy import services
from edge_service.lease import publishing
from edge_service.region_payloads import Buckets
from edge_service.region_store import CURRENT, LiveRow, RegionStore, ReleaseMeta
from spark_jobs import release_switch
from tandem import regions, release
from tandem.bundle import AnchorList
from tandem.regions import ObjectStore, Region
from tandem.settings import Settings
from warehouse import ledger

DAY = date(2026, 1, 5)
REGIONS = 10
POLL_SECONDS = 0.002
Lists = Callable[[int], Iterator[AnchorList]]


@contextmanager
def world(settings: Settings, store: ObjectStore) -> Iterator[Settings]:
    """Settings with REGIONS regions, each with a Redis of its own."""
    names, config = [f"r{number}" for number in range(REGIONS)], settings.home / "regions"
    config.mkdir()
    urls = [f"redis://127.0.0.1:{port}/0" for port in services.free_ports(REGIONS)]
    with ExitStack() as running:
        for name, url in zip(names, urls, strict=True):
            server = services.redis_server(settings, name, url)
            running.callback(server.stop)
            server.start()
        text = [
            _releases.REGIONS.format(name=name, redis=url, endpoint=store.endpoint)
            for name, url in zip(names, urls, strict=True)
        ]
        (config / "regions.toml").write_text("".join(text), encoding="utf-8")
        yield msgspec.structs.replace(settings, config=config)


def seal(settings: Settings, region: Region, name: str, lists: Iterator[AnchorList], count: int) -> None:
    """A release lies in a region whole; nobody sees it."""
    with publishing(region, str) as store:
        store.begin(name, Buckets.of(max(1, count // 2_500), count, 0))
        staged = store.stage(name, [], lists)
        store.seal(name, _meta(region, name, staged.anchors, release.checksum([staged.digest])))
        store.seed_live([LiveRow(sku="1000000", stock=5, list_price=500)], datetime.now(UTC))
    told = Manifest(
        region=region.name,
        release=name,
        as_of=f"{DAY}",
        computed_at="2026-01-05T00:00:00Z",
        currency="EUR",
        segments=["everyone"],
        shard_count=1,
        shards=["0" * 64],
        search="0" * 64,
    )
    release_switch.object_store(settings, region).keep_manifest(told)
    ledger.record(settings, region.name, name, "staged", as_of=DAY)
    ledger.record(settings, region.name, name, "sealed", as_of=DAY)


def _meta(region: Region, name: str, anchors: int, checksum: str) -> ReleaseMeta:
    return ReleaseMeta(
        region=region.name,
        release_id=name,
        as_of=f"{DAY}",
        computed_at="2026-01-05T00:00:00Z",
        anchors=anchors,
        bundles=0,
        checksum=checksum,
        currency="EUR",
    )


def measured(settings: Settings, store: ObjectStore, lists: Lists, anchors: int, rounds: int) -> list[Row]:
    """Both, `rounds` times; the first region has `anchors` lists, the others a hundred."""
    with world(settings, store) as made:
        found = regions.load(made.config_folder).region
        switches: list[float] = []
        for number in range(rounds + 1):
            _seal_all(made, found, f"release-{number}", lists, anchors)
            switches.append(_switched(made, found, f"release-{number}"))
        with Serving(made) as edge:
            returns = []
            for number in range(rounds):
                returns.append(_rolled_back(made, found[0], edge))
                seal(made, found[0], f"later-{number}", lists(anchors), anchors)
                release_switch.promote_named(made, found[0].name, f"later-{number}", "benchmark", str)
                _until_shown(edge, found[0].name, f"later-{number}")
    return [
        Row(f"all of {REGIONS} pointers moved after the decision", switches[1:]),
        Row(f"rollback of {anchors:,} lists, command to first answer", returns),
    ]


def _seal_all(settings: Settings, found: Sequence[Region], name: str, lists: Lists, anchors: int) -> None:
    for region in found:
        count = anchors if region is found[0] else 100
        seal(settings, region, name, lists(count), count)


def _switched(settings: Settings, found: Sequence[Region], name: str) -> float:
    """Seconds from the decision until every Redis has the pointer."""
    command = [sys.executable, "-m", "benchmarks._switching", name]
    with subprocess.Popen(command, cwd=ROOT, env=environment(settings), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        start = float(process.stdout.readline())
        with ExitStack() as stack:
            clients = [stack.enter_context(redis.Redis.from_url(region.redis_url)) for region in found]
            while any(client.get(CURRENT) != name.encode() for client in clients):
                time.sleep(POLL_SECONDS)
        seconds = time.time() - start
    if process.returncode:
        raise RuntimeError(f"the switch ended with {process.returncode}")
    return seconds


def _rolled_back(settings: Settings, region: Region, edge: Serving) -> float:
    with RegionStore(region) as store:
        backup = str(store.backup())
    command = [sys.executable, "-m", "tandem.cli", "rollback", "--region", region.name, "--to", backup]
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env=environment(settings), stdout=subprocess.DEVNULL) as process:
        _until_shown(edge, region.name, backup)
        seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"the rollback ended with {process.returncode}")
    return seconds


def _until_shown(edge: Serving, region: str, name: str) -> None:
    while True:
        with urllib.request.urlopen(f"{edge.address}/v1/{region}/bundles/1000000", timeout=10) as answer:
            if json.load(answer)["release"] == name:
                return
        time.sleep(POLL_SECONDS)


def main(name: str) -> None:
    """Decide, say when, and switch: what a command does after it has started."""
    from tandem import settings as settings_file

    settings = settings_file.from_environment()
    print(time.time(), flush=True)
    release_switch.promote_each(settings, [], name, "benchmark", str)


if __name__ == "__main__":
    main(sys.argv[1])
