"""Publishing: Redis entries a second and their memory against other ways, CDN shards against one object an anchor.

`make bench-publish`, or `python -m benchmarks.publish --anchors 30000 --growth 30000 300000 --json FILE`.

A list has four places, about 140 bytes as JSON. All ways send what was made ready before into the same Redis, emptied
in between, and count only where everything reads back: keys and a checksum over what lies there. *whole job* is
Tandem's own path, from lists to values, sent, answered, read back and compared. For CDN files the client's CPU counts.
An edge is asked while a release is pushed at the default rate; ten regions are switched; one is rolled back.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import redis

from benchmarks import _push_latency, _switching, _told, _uploads
from benchmarks._told import Row
from cdn import keys, shards
from cdn.store import ObjectStore
from deploy import services
from edge_service.region_payloads import Buckets, encode_list, list_field
from edge_service.region_push import Pace
from edge_service.region_store import LISTS, RegionStore, Staged, fenced_push
from tandem import regions
from tandem.bundle import AnchorList, Listed
from tandem.regions import Region
from tandem.settings import Settings

CEILINGS = {"memory/one_string_per_key": 0.5}
FLOORS = {"tandem/redis_py_pipeline": 8.0, "tandem/redis_cli_pipe": 1.0, "put_each/shards": 300.0}
GROWTH = 11.0
"""Most that ten times the anchors may cost."""
RELEASE = "20171231-0123456789ab"
KEY = "tandem:release:{release}:list:{segment}:{anchor}"
PIPELINE = 1_000
SHARD_ANCHORS = 2_500
PLACES = 4
REWRITTEN_AT = "auto-aof-rewrite-percentage"
SETTLING_SECONDS = 1.5
"""Redis looks at what it holds for clients about once a second."""


class Wrong(Exception):
    """What was written does not read back."""


def anchor_lists(count: int) -> Iterator[AnchorList]:
    """Lists of four places, the same each time, one at a time."""
    return map(anchor_list, range(count))


def anchor_list(number: int) -> AnchorList:
    names = hashlib.blake2b(b"%d" % number, digest_size=32).hexdigest()
    places = tuple(
        Listed(names[16 * n : 16 * n + 16], (number * 7 + n * 311) % 9_000 / 10_000, "region") for n in range(PLACES)
    )
    return AnchorList("*", f"{1_000_000 + number}", places)


def as_strings(count: int) -> list[tuple[bytes, bytes]]:
    """One JSON string a key."""
    return [
        (
            KEY.format(release=RELEASE, segment=each.segment, anchor=each.anchor).encode(),
            msgspec.json.encode([[place.bundle_id, place.confidence] for place in each.bundles]),
        )
        for each in anchor_lists(count)
    ]


def as_hashes(count: int) -> dict[bytes, list[bytes]]:
    """The fields of each hash, each followed by its value."""
    buckets = Buckets.of(max(1, count // SHARD_ANCHORS), count, count)
    held: dict[bytes, list[bytes]] = {}
    for each in anchor_lists(count):
        key = LISTS.format(release=RELEASE, bucket=buckets.of_list(each.anchor)).encode()
        held.setdefault(key, []).extend((list_field(each.segment, each.anchor), encode_list(each.bundles)))
    return held


def checked_strings(client: redis.Redis, wanted: list[tuple[bytes, bytes]]) -> None:
    if client.dbsize() != len(wanted):
        raise Wrong(f"{client.dbsize()} keys, not {len(wanted)}")
    for start in range(0, len(wanted), 10_000):
        some = wanted[start : start + 10_000]
        if client.mget([key for key, _ in some]) != [value for _, value in some]:
            raise Wrong("a value is another than was written")


def checked_hashes(client: redis.Redis, wanted: dict[bytes, list[bytes]]) -> None:
    pipe = client.pipeline(transaction=False)
    for key in wanted:
        pipe.hgetall(key)
    if client.dbsize() != len(wanted) or pipe.execute() != [
        dict(zip(words[::2], words[1::2], strict=True)) for words in wanted.values()
    ]:
        raise Wrong("a hash is another than was written")


def by_pipeline(client: redis.Redis, wanted: list[tuple[bytes, bytes]]) -> None:
    for start in range(0, len(wanted), PIPELINE):
        with client.pipeline(transaction=False) as pipe:
            for key, value in wanted[start : start + PIPELINE]:
                pipe.set(key, value)
            pipe.execute()


def by_cli(port: int, file: Path) -> None:
    with file.open("rb") as commands:
        command = [services.binary("redis-cli"), "-p", str(port), "--pipe"]
        subprocess.run(command, stdin=commands, check=True, stdout=subprocess.DEVNULL)


def by_push(client: redis.Redis, wanted: dict[bytes, list[bytes]]) -> None:
    with fenced_push(client, "", Pace(0)) as push:
        for key, words in wanted.items():
            push.hash(key, words)


@contextmanager
def _log_as_it_grows(url: str) -> Iterator[redis.Redis]:
    """A client, while Redis does not rewrite its log: whoever wrote just then would be charged for it."""
    with redis.Redis.from_url(url) as client:
        usual = client.config_get(REWRITTEN_AT)[REWRITTEN_AT]
        client.config_set(REWRITTEN_AT, 0)
        yield client
        client.config_set(REWRITTEN_AT, usual)


def _held(client: redis.Redis) -> int:
    """Bytes that Redis holds, without what it holds for its clients and has not written to its log yet."""
    time.sleep(SETTLING_SECONDS)
    told = client.info("memory")
    return int(told["used_memory"]) - int(told["mem_clients_normal"]) - int(told["mem_aof_buffer"])


def redis_ways(region: Region, anchors: int, rounds: int, folder: Path) -> tuple[list[Row], dict[str, float]]:
    """Rates and memory of the ways into Redis, in turn."""
    strings, hashes = as_strings(anchors), as_hashes(anchors)
    file = folder / "commands"
    file.write_bytes(b"".join(b"*3\r\n$3\r\nSET\r\n%b%b" % (_bulk(key), _bulk(value)) for key, value in strings))
    port = int(region.redis_url.rpartition(":")[2].split("/")[0])
    seconds: dict[str, list[float]] = {"redis-py pipeline": [], "redis-cli --pipe": [], "tandem push": []}
    memory: dict[str, list[float]] = {"one JSON string a key": [], "tandem": []}
    with _log_as_it_grows(region.redis_url) as client:
        ways: list[tuple[str, str, Callable[[], None], Callable[[], None]]] = [
            (
                "redis-py pipeline",
                "one JSON string a key",
                lambda: by_pipeline(client, strings),
                lambda: checked_strings(client, strings),
            ),
            (
                "redis-cli --pipe",
                "one JSON string a key",
                lambda: by_cli(port, file),
                lambda: checked_strings(client, strings),
            ),
            (
                "tandem push",
                "tandem",
                lambda: by_push(client, hashes),
                lambda: checked_hashes(client, hashes),
            ),
        ]
        for _ in range(rounds):
            for name, shape, write, check in ways:
                client.flushall()
                empty = _held(client)
                start = time.perf_counter()
                write()
                seconds[name].append(time.perf_counter() - start)
                check()
                memory[shape].append((_held(client) - empty) / anchors)
        client.flushall()
    rows = [Row(f"{name}, {anchors:,} lists", values) for name, values in seconds.items()]
    rows += [Row(f"memory of {name}", values, "bytes a list") for name, values in memory.items()]
    least = {name: min(values) for name, values in seconds.items()}
    return rows, {
        "tandem/redis_py_pipeline": least["redis-py pipeline"] / least["tandem push"],
        "tandem/redis_cli_pipe": least["redis-cli --pipe"] / least["tandem push"],
        "memory/one_string_per_key": min(memory["tandem"]) / min(memory["one JSON string a key"]),
    }


def _order(folder: Path, anchors: int) -> tuple[Path, list[int]]:
    """A file of the numbers of all anchors, shard after shard, and how many each shard has."""
    count = max(1, anchors // SHARD_ANCHORS)
    shard = np.fromiter((keys.shard_of(f"{1_000_000 + number}", count) for number in range(anchors)), np.int32, anchors)
    file = folder / f"order-{anchors}"
    np.argsort(shard, kind="stable").astype(np.int32).tofile(file)
    return file, np.bincount(shard, minlength=count).tolist()


def _of_shards(file: Path, sizes: list[int]) -> Iterator[Iterator[AnchorList]]:
    """The lists of each shard, as a task makes them: one shard in memory."""
    with file.open("rb") as order:
        for size in sizes:
            yield map(anchor_list, np.fromfile(order, np.int32, size).tolist())


def _grown(region: Region, anchors: int, file: Path, sizes: list[int], told: Any) -> None:
    with RegionStore(region) as store:
        before = _told.most_megabytes("self")
        start = time.perf_counter()
        release = f"grown-{uuid.uuid4().hex[:8]}"
        store.begin(release, Buckets.of(len(sizes), anchors, 0))
        staged = [store.stage(release, [], lists) for lists in _of_shards(file, sizes)]
        digest = sum(each.digest for each in staged) % 2**64
        if store.verify(release) != Staged(anchors, 0, digest):
            raise Wrong(f"{anchors} lists do not read back")
        seconds = time.perf_counter() - start
        store.delete(release)
    told.send((seconds, before, _told.most_megabytes("self")))


def growth(region: Region, sizes: list[int], folder: Path) -> tuple[list[Row], dict[str, float]]:
    """The whole job for each size, in a process of its own that tells its most memory."""
    rows, ratios, before = [], {}, None
    spawning = multiprocessing.get_context("spawn")
    for anchors in sizes:
        ordered, taken = _order(folder, anchors), []
        for _ in range(max(1, min(5, 1_000_000 // anchors))):
            ear, mouth = spawning.Pipe(duplex=False)
            process = spawning.Process(target=_grown, args=(region, anchors, *ordered, mouth))
            process.start()
            mouth.close()
            once, started, megabytes = ear.recv()
            process.join()
            taken.append(once)
        seconds = min(taken)
        rows.append(Row(f"whole job, {anchors:,} lists", taken))
        rows.append(Row(f"publisher's memory, {anchors:,} lists", [megabytes], f"MB, {started:.0f} of them before"))
        if before is not None:
            ratios[f"growth/{before[0]}_to_{anchors}"] = seconds / before[1]
            ratios[f"memory_growth/{before[0]}_to_{anchors}"] = megabytes / before[2]
        before = (anchors, seconds, megabytes)
    return rows, ratios


def cdn(settings: Settings, where: regions.ObjectStore, anchors: int) -> tuple[list[Row], dict[str, float]]:
    """See `_uploads.measured`; in as many shards as a publish makes."""
    from spark_jobs.stage import LISTING_BYTES  # processes whose memory is measured do without Spark

    store = ObjectStore(where, settings.s3_access_key, settings.s3_secret, settings.s3_region)
    count = shards.shard_count(LISTING_BYTES * PLACES * anchors)
    return _uploads.measured(store, list(anchor_lists(anchors)), count)


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


@contextmanager
def servers() -> Iterator[tuple[Settings, Region, Path]]:
    with tempfile.TemporaryDirectory() as made:
        settings = Settings(home=Path(made))
        port, objects = services.free_ports(2)
        where = regions.ObjectStore(
            endpoint=f"http://127.0.0.1:{objects}", bucket="tandem", public_url=f"http://127.0.0.1:{objects}/tandem"
        )
        region = Region(
            name="bench",
            currency="USD",
            time_zone="UTC",
            redis_url=f"redis://127.0.0.1:{port}/0",
            object_store=where,
            push_per_second=0,
        )
        running = [
            services.redis_server(settings, "bench", region.redis_url),
            services.object_store(settings, objects, ["tandem"]),
        ]
        try:
            for server in running:
                server.start()
            yield settings, region, Path(made)
        finally:
            for server in running:
                server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=300_000)
    parser.add_argument("--growth", type=int, nargs="*", default=[30_000, 300_000, 3_000_000], metavar="ANCHORS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with servers() as (settings, region, folder):
        rows, ratios = redis_ways(region, options.anchors, options.rounds, folder)
        more, further = cdn(settings, region.object_store, min(options.anchors, 50_000))
        rows, ratios = rows + more, ratios | further
        rows += _push_latency.measured(region.redis_url, folder, options.rounds)
        rows += _switching.measured(
            settings, region.object_store, anchor_lists, min(options.anchors, 30_000), options.rounds
        )
        with _log_as_it_grows(region.redis_url):
            grown, growths = growth(region, options.growth, folder)
    rows, ratios = rows + grown, ratios | growths
    ceilings = CEILINGS | {name: GROWTH for name in ratios if name.startswith("growth/")}
    print(_told.table(rows, ratios, FLOORS, ceilings))
    if options.json:
        _told.write_json(options.json, rows, ratios)


if __name__ == "__main__":
    main()
