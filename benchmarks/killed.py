"""A publisher killed (SIGKILL) before every one of its writes and at random moments, while readers read all the time.

`make bench-killed`, or `python -m benchmarks.killed --kills 100 --answers 1000000 --spark-kills 4 --json FILE`.

Readers ask an edge over HTTP and fetch manifests and shards from the object store, and look at every answer: all that
it tells has to be of the one release that it names. After the last kill the publisher is run to its end; then Redis is
emptied, the region is rebuilt from Delta, and every key and value has to be what it was. The same for `tandem publish`
with Spark, a larger region and fewer kills, each in the middle of the push: in turn of all its processes, and of the
driver alone, whose JVM and tasks end when they notice; what they still write, the next fence refuses.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from benchmarks import _releases, _told
from benchmarks._publisher import Publisher
from benchmarks._reader import Counts, Reader
from benchmarks._serving import ROOT, Serving, environment
from benchmarks._told import Row
from benchmarks.publish import Wrong, servers
from edge_service.region_store import BUCKETS, FENCE, LEASE, LIVE_SNAPSHOT
from tandem.settings import Settings

ANCHORS = 60
READERS = 2
SPARK_ANCHORS = 20_000
SPARK_PAUSE_SECONDS = 0.1
TOLD = {
    "answers": "answers of the edge",
    "mixed": "answers made of two releases",
    "refused": "answers other than 200",
    "manifests": "manifests read",
    "shards": "shards read",
    "damaged": "shards missing, damaged or made of two releases",
}
NEVER = {TOLD[name] for name in ("mixed", "refused", "damaged")}


def held(url: str) -> dict[bytes, Any]:
    """Every key but who may publish, how often and the streams, with its value."""
    with redis.Redis.from_url(url) as client:
        read = {b"string": client.get, b"hash": client.hgetall}
        kinds = {key: client.type(key) for key in client.scan_iter("tandem:*")}
        others = (LEASE.encode(), FENCE.encode(), LIVE_SNAPSHOT.encode())
        return {key: read[kind](key) for key, kind in kinds.items() if kind in read and key not in others}


def killed_at_random(publisher: Publisher, day: int, kills: int, seconds: float) -> list[float]:
    """Publish day after day, each attempt killed within so many seconds unless it is done before.

    Gives how long the attempts took that came to their end, the last of them after the last kill.
    """
    chance, killed, whole = random.Random(7), 0, []
    while True:
        ended = publisher.publish(day, after_seconds=chance.uniform(0, seconds) if killed < kills else 60)
        if ended.said:
            raise Wrong(ended.said)
        if ended.code != 0:
            killed += 1
            continue
        whole.append(ended.seconds)
        if killed == kills:
            return whole
        day += 1


def compared(publisher: Publisher, url: str) -> int:
    """Empty Redis and rebuild it; gives how many keys were compared."""
    before = held(url)
    with redis.Redis.from_url(url) as client:
        client.flushall()
    rebuilt = publisher.rebuild()
    if rebuilt.said or held(url) != before:
        raise Wrong(f"the rebuilt region is another one: {rebuilt.said}")
    return len(before)


def run(kills: int, answers: int) -> list[Row]:
    with servers() as (made, region, _):
        settings = _releases.made(made, region.redis_url, region.object_store, range(1, kills + 5), ANCHORS)
        with Publisher(settings) as publisher:
            publisher.publish(1)
            seconds = publisher.publish(2).seconds
            start = time.perf_counter()
            with Serving(settings) as edge:
                asked = edge.port, ANCHORS, region.object_store.public_url, answers // READERS
                with Reader(*asked) as one, Reader(*asked) as other:
                    writes = publisher.killed_at_every_write(3)
                    whole = killed_at_random(publisher, 4, kills, seconds)
                read_seconds = time.perf_counter() - start
            keys = compared(publisher, region.redis_url)
    return [
        Row("killed before a write", [writes], "times"),
        Row("killed at a random moment", [kills], "times"),
        *_seen([one.counts, other.counts]),
        Row("readers read for", [read_seconds]),
        Row("a publish after kills, to its end", whole),
        Row("keys equal to those of a rebuilt region", [keys], "keys"),
    ]


def run_spark(kills: int) -> list[Row]:
    if not kills:
        return []
    with servers() as (made, region, _):
        settings = _releases.made(made, region.redis_url, region.object_store, (1, 2), SPARK_ANCHORS)
        with Publisher(settings) as publisher:
            publisher.publish(1)
            with Serving(settings) as edge:
                asked = edge.port, SPARK_ANCHORS, region.object_store.public_url, 0, SPARK_PAUSE_SECONDS
                with Reader(*asked) as reader:
                    for number in range(kills):
                        _killed_in_spark(settings, region.redis_url, alone=number % 2 == 1, wait=number / kills)
                    start = time.perf_counter()
                    subprocess.run(_command(), cwd=ROOT, env=environment(settings), check=True)
                    seconds = time.perf_counter() - start
            keys = compared(publisher, region.redis_url)
    return [
        Row("with Spark: killed in the middle of a push", [kills], "times"),
        *(replace(row, name=f"with Spark: {row.name}") for row in _seen([reader.counts])),
        Row("with Spark: a publish after kills, with its start", [seconds]),
        Row("with Spark: keys equal to those of a rebuilt region", [keys], "keys"),
    ]


def _command() -> list[str]:
    day = str(_releases.day(2))
    return [sys.executable, "-m", "tandem.cli", "publish", "--as-of", day, "--region", _releases.REGION]


def _killed_in_spark(settings: Settings, url: str, *, alone: bool, wait: float) -> None:
    """Kill a publish `wait` seconds after it has begun to push, its driver `alone` or all that belongs to it."""
    process = subprocess.Popen(
        _command(), cwd=ROOT, env=environment(settings), start_new_session=True, stdout=subprocess.DEVNULL
    )
    with redis.Redis.from_url(url) as client:
        before = client.get(FENCE)
        while client.get(FENCE) == before or not client.exists(BUCKETS.format(release=_releases.release_id(2))):
            if process.poll() is not None:
                raise Wrong(f"a publish ended with {process.returncode} before it was killed")
            time.sleep(0.01)
    time.sleep(wait)
    (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    process.wait()


def _seen(counts: list[Counts]) -> list[Row]:
    return [Row(told, [sum(getattr(each, name) for each in counts)], "") for name, told in TOLD.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--spark-kills", type=int, default=4)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = run(options.kills, options.answers) + run_spark(options.spark_kills)
    print(_told.table(rows, {}, {}))
    if options.json:
        _told.write_json(options.json, rows, {})
    if wrong := [row.name for row in rows if row.name.removeprefix("with Spark: ") in NEVER and row.value]:
        raise Wrong(", ".join(wrong))


if __name__ == "__main__":
    main()
