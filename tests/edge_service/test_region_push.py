"""Hashes as bytes on a socket, into a real Redis."""

from __future__ import annotations

import threading
import time
from itertools import chain

import pytest
import redis
from redis.exceptions import RedisError

from edge_service.region_push import AHEAD, TRANSACTION_BYTES, Pace, Push
from tests.edge_service.conftest import RedisProcess

pytestmark = pytest.mark.servers


def hashes(count: int, size: int = 100) -> dict[bytes, list[tuple[bytes, bytes]]]:
    return {b"h%d" % n: [(b"f%d" % m, b"%d-%d " % (n, m) * (size // 8)) for m in range(20)] for n in range(count)}


def pushed(client: redis.Redis, held: dict[bytes, list[tuple[bytes, bytes]]], per_second: int = 0) -> None:
    with Push(client, [b"HSET"], Pace(per_second)) as push:
        for key, entries in held.items():
            push.hash(key, list(chain.from_iterable(entries)))


def test_all_that_is_sent_lies_there_and_nobody_stays_behind(clean_redis: RedisProcess) -> None:
    held = hashes(3_000, 800)
    assert sum(len(value) for entries in held.values() for _, value in entries) > TRANSACTION_BYTES * AHEAD
    with redis.Redis.from_url(clean_redis.url) as client:
        pushed(client, held)
        assert {key: client.hgetall(key) for key in held} == {key: dict(entries) for key, entries in held.items()}
    assert not [thread for thread in threading.enumerate() if thread.name == "answers of Redis"]


def test_a_push_keeps_to_its_rate(clean_redis: RedisProcess) -> None:
    with redis.Redis.from_url(clean_redis.url) as client:
        start = time.monotonic()
        pushed(client, hashes(100), per_second=4_000)
        assert time.monotonic() - start >= 0.45, "2,000 entries at 4,000 a second"


def test_a_command_that_redis_refuses_ends_the_push(clean_redis: RedisProcess) -> None:
    with redis.Redis.from_url(clean_redis.url) as client:
        client.set("h7", "no hash")
        with pytest.raises(RedisError, match="WRONGTYPE"):
            pushed(client, hashes(20))
        assert client.ping(), "the pool has no connection with answers left in it"


def test_a_redis_that_dies_ends_the_push(own_redis: RedisProcess) -> None:
    with redis.Redis.from_url(own_redis.url, socket_timeout=2) as client:
        killer = threading.Timer(0.3, own_redis.stop)
        killer.start()
        with pytest.raises(RedisError):
            pushed(client, hashes(50_000), per_second=20_000)
        killer.join()
