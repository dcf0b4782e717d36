"""A region's Redis as an edge process uses it: reads the replica nearest to it (where that is away, the primary), and
writes to the primary.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

from edge_service import region_store as keys
from edge_service.region_payloads import EVENTS_KEPT, ReleaseMeta, decode_meta
from edge_service.region_scripts import APPLY
from edge_service.region_store import batches, reached
from edge_service.wire import Command, Wire
from tandem.regions import Region

BATCH_BUCKETS = 32
"""Buckets read in one round trip: small, so that loading a release leaves room for requests in between."""
AHEAD = 2
"""Round trips for a release that are under way at once."""
BATCH_ENTRIES = 1_000
"""Stream entries read in one round trip."""
WAIT_SECONDS = 1.0
"""How long a read of the stream waits for something new."""
TIMEOUT_SECONDS = 3.0


SCANNED = 2_000
"""Products read in one round trip, about."""
Pairs = Sequence[bytes]
"""Field, value, field, value … as RESP2 has them."""


class Change(NamedTuple):
    """One entry of the delta stream."""

    id: bytes
    ages: tuple[int, int]
    """Newest time (ms since 1970) that the feed is good for: stock, prices."""
    products: Sequence[bytes]
    """sku, its nine words, sku, its nine words …"""


class RegionReader:
    """Raises Unavailable where Redis can't be reached. It never retries: who follows the stream must notice a break.

    Three connections, each shared by all who ask: one for the release, one that waits for changes, one that writes.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        near = (region.read_url, region.redis_url)
        self._near, self._stream = Wire(near, TIMEOUT_SECONDS), Wire(near, TIMEOUT_SECONDS)
        self._primary = Wire([region.redis_url], TIMEOUT_SECONDS)

    def close(self) -> None:
        for wire in (self._near, self._stream, self._primary):
            wire.close()

    # Releases

    async def current(self) -> str | None:
        return await self._text(keys.CURRENT)

    async def backup(self) -> str | None:
        return await self._text(keys.BACKUP)

    async def _text(self, key: str) -> str | None:
        (found,) = await self._read(self._near, ("GET", key))
        return None if found is None else found.decode()

    async def meta(self, release_id: str) -> ReleaseMeta | None:
        (found,) = await self._read(self._near, ("GET", keys.META.format(release=release_id)))
        return None if found is None else decode_meta(found)

    def lists(self, meta: ReleaseMeta) -> AsyncIterator[Pairs]:
        """Chunks of `list_field`, ranked list, and so on."""
        return self._buckets(keys.LISTS, meta.release_id, meta.buckets.lists)

    def bodies(self, meta: ReleaseMeta) -> AsyncIterator[Pairs]:
        """Chunks of `body_field`, bundle, and so on."""
        return self._buckets(keys.BODIES, meta.release_id, meta.buckets.bodies)

    async def _buckets(self, template: str, release_id: str, count: int) -> AsyncIterator[Pairs]:
        """While one batch is worked on, Redis is at the next."""
        wanted = deque(batches(range(count), BATCH_BUCKETS))
        ahead: deque[asyncio.Task[list[Any]]] = deque()
        try:
            while wanted or ahead:
                while wanted and len(ahead) < AHEAD:
                    commands = [
                        ("HGETALL", template.format(release=release_id, bucket=number)) for number in wanted.popleft()
                    ]
                    ahead.append(asyncio.create_task(self._read(self._near, *commands)))
                    await asyncio.sleep(0)  # it goes out
                for pairs in await ahead.popleft():
                    yield pairs
        finally:
            for task in ahead:
                task.cancel()

    async def candidates(self) -> bytes | None:
        """What the last minutes add to the release, as it is stored; None: nothing."""
        (found,) = await self._read(self._near, ("GET", keys.CANDIDATES))
        return None if found is None else bytes(found)

    # Live state

    async def newest_change(self) -> bytes:
        """Id of the newest entry of the delta stream; `0-0` where there is none."""
        (found,) = await self._read(self._stream, ("XREVRANGE", keys.DELTAS, "+", "-", "COUNT", 1))
        return bytes(found[0][0]) if found else b"0-0"

    async def ages(self) -> tuple[int, int]:
        ((stock, prices),) = await self._read(self._near, ("HMGET", keys.LIVE_AGES, "stock", "prices"))
        return int(stock or 0), int(prices or 0)

    async def products(self) -> AsyncIterator[Pairs]:
        """Chunks of sku, nine words, and so on: all that is there throughout, some perhaps twice."""
        cursor = b"0"
        while True:
            ((cursor, found),) = await self._read(self._near, ("HSCAN", keys.LIVE, cursor, "COUNT", SCANNED))
            yield found
            if cursor == b"0":
                return

    async def wait_for_changes(self, after: bytes) -> list[Change]:
        """What came after the entry `after`; waits up to WAIT_SECONDS. Who gets a full batch should `catch_up`."""
        wait = int(WAIT_SECONDS * 1000)
        command = ("XREAD", "COUNT", BATCH_ENTRIES, "BLOCK", wait, "STREAMS", keys.DELTAS, after)
        (found,) = await self._read(self._stream, command)
        return _changes(found)

    async def catch_up(self, after: bytes) -> tuple[bool, list[Change]]:
        """(nothing was trimmed since `after`, the next changes): both seen at one moment."""
        *_, (oldest, found) = await self._read(
            self._stream,
            ("MULTI",),
            ("XRANGE", keys.DELTAS, "-", "+", "COUNT", 1),
            ("XREAD", "COUNT", BATCH_ENTRIES, "STREAMS", keys.DELTAS, after),
            ("EXEC",),
        )
        whole = not oldest or _order(oldest[0][0]) <= _order(after)
        return whole, _changes(found)

    # Writing

    async def apply(self, arguments: Sequence[str | bytes | int]) -> int:
        """Run APPLY; gives how many products changed."""
        names = [keys.LIVE, keys.LIVE_AGES, keys.DELTAS]
        return int((await self._write(("EVAL", APPLY, len(names), *names, *arguments)))[0])

    async def use_quote(self, nonce: str, seconds: int) -> bool:
        """Use up a one-time quote that expires in so many seconds; False where it was used before, at any edge."""
        command = ("SET", keys.QUOTE_USED.format(nonce=nonce), 1, "NX", "EX", max(seconds, 1))
        return (await self._write(command))[0] is not None

    async def append_events(self, events: Iterable[bytes]) -> None:
        adds = [("XADD", keys.EVENTS, "MAXLEN", "~", EVENTS_KEPT, "*", "event", event) for event in events]
        await self._write(("MULTI",), *adds, ("EXEC",))

    async def _read(self, wire: Wire, *commands: Command) -> list[Any]:
        with reached(self.region, self.region.read_url):
            return await wire.ask_all(commands)

    async def _write(self, *commands: Command) -> list[Any]:
        with reached(self.region, self.region.redis_url):
            return await self._primary.ask_all(commands)


def _changes(streams: Any) -> list[Change]:
    """What XREAD says of the one stream that it was asked for."""
    if not streams:
        return []
    return [_change(entry, pairs) for entry, pairs in streams[0][1]]


def _change(entry: bytes, pairs: list[bytes]) -> Change:
    name, ages = pairs[:2]
    stock, prices = ages.split()
    if name:
        raise ValueError(f"entry {entry.decode()} of {keys.DELTAS} does not begin with its ages")
    return Change(entry, (int(stock), int(prices)), pairs[2:])


def _order(entry: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry.partition(b"-")
    return int(milliseconds), int(sequence)
