"""A region's Redis as an edge process uses it: reads the replica nearest to it, writes to the primary."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from edge_service import region_store as keys
from edge_service.region_payloads import EVENTS_KEPT, ReleaseMeta, decode_meta
from edge_service.region_scripts import APPLY
from edge_service.region_store import batches, reached
from tandem.regions import Region

BATCH_BUCKETS = 32
"""Buckets read in one round trip: small, so that loading a release leaves room for requests in between."""
BATCH_ENTRIES = 1_000
"""Stream entries read in one round trip."""
WAIT_SECONDS = 1.0
"""How long a read of the stream waits for something new."""
TIMEOUT_SECONDS = 3.0


class Change(NamedTuple):
    """One entry of the delta stream."""

    id: bytes
    ages: tuple[int, int]
    """Newest time (ms since 1970) that the feed is good for: stock, prices."""
    products: list[tuple[bytes, bytes]]
    """(sku, its nine words)."""


class RegionReader:
    """Raises Unavailable where Redis can't be reached. It never retries: who follows the stream must notice a break."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self._near = _client(region.read_url)
        self._primary = self._near if region.read_url == region.redis_url else _client(region.redis_url)

    async def close(self) -> None:
        await self._near.aclose()
        await self._primary.aclose()

    # Releases

    async def current(self) -> str | None:
        return await self._text(keys.CURRENT)

    async def backup(self) -> str | None:
        return await self._text(keys.BACKUP)

    async def _text(self, key: str) -> str | None:
        async with self._reached():
            found: Any = await self._near.get(key)
        return None if found is None else found.decode()

    async def meta(self, release_id: str) -> ReleaseMeta | None:
        async with self._reached():
            found = await self._near.get(keys.META.format(release=release_id))
        return None if found is None else decode_meta(found)

    def lists(self, meta: ReleaseMeta) -> AsyncIterator[dict[bytes, bytes]]:
        """Chunks of `list_field` → ranked list."""
        return self._buckets(keys.LISTS, meta.release_id, meta.buckets.lists)

    def bodies(self, meta: ReleaseMeta) -> AsyncIterator[dict[bytes, bytes]]:
        """Chunks of `body_field` → bundle."""
        return self._buckets(keys.BODIES, meta.release_id, meta.buckets.bodies)

    async def _buckets(self, template: str, release_id: str, count: int) -> AsyncIterator[dict[bytes, bytes]]:
        for numbers in batches(range(count), BATCH_BUCKETS):
            async with self._reached(), self._near.pipeline(transaction=False) as pipe:
                for number in numbers:
                    pipe.hgetall(template.format(release=release_id, bucket=number))
                found = await pipe.execute()
            for entries in found:
                yield entries

    # Live state

    async def newest_change(self) -> bytes:
        """Id of the newest entry of the delta stream; `0-0` where there is none."""
        async with self._reached():
            found: Any = await self._near.xrevrange(keys.DELTAS, count=1)
        return found[0][0] if found else b"0-0"

    async def ages(self) -> tuple[int, int]:
        async with self._reached():
            stock, prices = await self._near.hmget(keys.LIVE_AGES, "stock", "prices")
        return int(stock or 0), int(prices or 0)

    async def products(self) -> AsyncIterator[dict[bytes, bytes]]:
        """Chunks of sku → nine words: all that is there throughout, some perhaps twice."""
        cursor = 0
        while True:
            async with self._reached():
                page: Any = await self._near.hscan(keys.LIVE, cursor, count=2_000)
            cursor, found = page
            yield found
            if cursor == 0:
                return

    async def wait_for_changes(self, after: bytes) -> list[Change]:
        """What came after the entry `after`; waits up to WAIT_SECONDS. Who gets a full batch should `catch_up`."""
        async with self._reached():
            found: Any = await self._near.xread(
                {keys.DELTAS: after}, count=BATCH_ENTRIES, block=int(WAIT_SECONDS * 1000)
            )
        return [_change(*entry) for entry in found[0][1]] if found else []

    async def catch_up(self, after: bytes) -> tuple[bool, list[Change]]:
        """(nothing was trimmed since `after`, the next changes): both seen at one moment."""
        async with self._reached(), self._near.pipeline(transaction=True) as pipe:
            pipe.xrange(keys.DELTAS, count=1)
            pipe.xread({keys.DELTAS: after}, count=BATCH_ENTRIES)
            oldest, found = await pipe.execute()
        whole = not oldest or _order(oldest[0][0]) <= _order(after)
        return whole, [_change(*entry) for entry in found[0][1]] if found else []

    # Writing

    async def apply(self, arguments: Sequence[str | int]) -> int:
        """Run APPLY; gives how many products changed."""
        names = [keys.LIVE, keys.LIVE_AGES, keys.DELTAS]
        async with self._reached_primary():
            return int(await self._primary.eval(APPLY, len(names), *names, *arguments))

    async def append_events(self, events: Iterable[bytes]) -> None:
        async with self._reached_primary(), self._primary.pipeline(transaction=True) as pipe:
            for event in events:
                pipe.xadd(keys.EVENTS, {"event": event}, maxlen=EVENTS_KEPT, approximate=True)
            await pipe.execute()

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[None]:
        with reached(self.region, self.region.read_url):
            yield

    @asynccontextmanager
    async def _reached_primary(self) -> AsyncIterator[None]:
        with reached(self.region, self.region.redis_url):
            yield


def _client(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def _change(entry: bytes, pairs: dict[bytes, bytes]) -> Change:
    stock, prices = pairs.pop(b"").split()
    return Change(entry, (int(stock), int(prices)), list(pairs.items()))


def _order(entry: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry.partition(b"-")
    return int(milliseconds), int(sequence)
