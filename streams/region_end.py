"""The region's end of the projector: batches on their way into Redis, several at once, each with its places."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from edge_service import region_store as keys
from edge_service.region_payloads import DELTAS_KEPT, Changes
from edge_service.region_scripts import APPLY, advancing
from edge_service.region_store import reached
from edge_service.wire import pack
from streams.places import Part
from tandem.errors import TandemError
from tandem.regions import Region

TIMEOUT_SECONDS = 5.0
PRODUCTS_KEPT = 500_000
"""Changed products kept in the delta stream, about (35 MB): entries of many hold it to fewer entries."""
KEYS = (*keys.APPLIED, keys.PLACES)

_pack = msgspec.msgpack.Encoder().encode


class Moved(TandemError):
    """Another reader took over a partition, or Redis lost its state: what is there now has to be read anew."""


class Batch:
    """Changes, and how far each partition is with them."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.again = False
        """These were told before; they go over a snapshot that came later."""
        self.ends: dict[Part, int] = {}
        """Up to which offset each partition is in this batch."""
        self.moves: list[tuple[str, str, str]] = []
        """Of each partition its name in PLACES, what stands there before this batch, and what shall."""
        self.elsewhere = 0
        """Records of other regions."""
        self.newest_ms = 0
        """Time of the newest record, by the broker's clock."""

    def arguments(self) -> list[str | bytes | int]:
        """Arguments of APPLY, and the moves."""
        kept = min(DELTAS_KEPT, PRODUCTS_KEPT // max(1, len(self.changes)))
        return [*self.changes.arguments(kept), "again" if self.again else "", _pack(self.moves)]


class Snapshot(NamedTuple):
    """Stock and prices that a batch brought."""

    mark: int = 0
    """Another one each time that a snapshot was brought; 0: none ever was."""
    times: Mapping[str, int] = MappingProxyType({})
    """Ms since 1970 that it is true for: `stock`, `prices`, or both."""


class Done(NamedTuple):
    """A batch that is in Redis."""

    batch: Batch
    applied: int
    """Changes that were newer than what was there."""
    seconds: float
    """From sending it to its answer."""


class RegionEnd:
    """One connection to the region's primary Redis. Raises Unavailable, and Moved, after which all is read anew."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._redis: redis.Redis = redis.Redis.from_url(
            region.redis_url,
            protocol=2,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._wire: Any = None
        self._script = ""
        self._waiting: deque[tuple[Batch, float]] = deque()

    def close(self) -> None:
        self.forget()
        self._redis.close()

    def forget(self) -> None:
        """Let go of the connection and of what is on its way: whether it arrived, the places say."""
        self._waiting.clear()
        if self._wire is not None:
            self._wire.disconnect()
            self._redis.connection_pool.release(self._wire)
            self._wire = None

    def places(self) -> dict[str, str]:
        """What is stored, by `name_of`."""
        return self._hash(keys.PLACES)

    def snapshot(self) -> Snapshot:
        """The newest one that is in as a whole."""
        times = {kind: int(at) for kind, at in self._hash(keys.LIVE_SNAPSHOT).items()}
        return Snapshot(times.pop("mark", 0), times)

    def _hash(self, key: str) -> dict[str, str]:
        with self._reached():
            found: Any = self._redis.hgetall(key)
        return {name.decode(): value.decode() for name, value in found.items()}

    def send(self, batch: Batch) -> None:
        """Send a batch without waiting for its answer."""
        with self._reached():
            wire = self._connected()
            words = ("EVALSHA", self._script, len(KEYS), *KEYS, *batch.arguments())
            wire.send_packed_command([pack(words)])
        self._waiting.append((batch, time.monotonic()))

    def settle(self, at_most: int = 0) -> Iterator[Done]:
        """What has been answered; waits until at most so many batches are on their way."""
        while self._waiting and (len(self._waiting) > at_most or self._answered()):
            with self._reached():
                applied = self._wire.read_response()
            batch, sent = self._waiting.popleft()
            yield Done(batch, int(applied), time.monotonic() - sent)

    def _answered(self) -> bool:
        with self._reached():
            return bool(self._wire.can_read(0))

    def _connected(self) -> Any:
        if self._wire is None:
            self._script = str(self._redis.script_load(advancing(APPLY)))
            self._wire = self._redis.connection_pool.get_connection()
        return self._wire

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            with reached(self._region, self._region.redis_url):
                yield
        except TandemError as error:
            self.forget()
            if "OTHERPLACE " in str(error) or "No matching script" in str(error):
                raise Moved(f"region {self._region.name}: places have moved on: {error}") from error
            raise


def name_of(part: Part) -> str:
    """A partition's name in PLACES."""
    return f"{part[0]}:{part[1]}"
