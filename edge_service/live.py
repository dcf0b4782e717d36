"""Live stock and prices of one region, held in this process's arrays and fed from the region's stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from edge_service.live_table import LiveTable
from edge_service.region_reader import BATCH_ENTRIES, Change, RegionReader
from tandem.errors import Unavailable

Clock = Callable[[], float]
"""Seconds since 1970."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


class LiveState:
    """What is known about every product, up to when, and whether the feed is heard."""

    def __init__(self) -> None:
        self.products = LiveTable()
        """Replaced as a whole after a break of the feed."""
        self.ages = (0, 0)
        """Newest time (ms since 1970) that the feed is good for: stock, prices."""
        self.connected = False
        self.changes = 0
        """Stream entries taken in since the start."""
        self.lag_seconds = 0.0
        """From Redis's clock, when the newest of them came, to this process's, when it was taken in."""

    @property
    def ready(self) -> bool:
        return bool(self.products)

    def take(self, products: LiveTable, changes: Iterable[Change]) -> None:
        """Bring `changes` into `products`, in order, and move the ages."""
        for change in changes:
            self.changes += 1
            products.version += 1
            self.age(change.ages)
            products.keep_all(change.products)

    def age(self, ages: tuple[int, int]) -> None:
        """Times only move on: a Redis that came back empty does not make older what is known here."""
        if ages[0] > self.ages[0] or ages[1] > self.ages[1]:
            self.ages = max(self.ages[0], ages[0]), max(self.ages[1], ages[1])


class Feed:
    """Follows one region's stream into a LiveState, for as long as its task runs."""

    def __init__(self, reader: RegionReader, state: LiveState) -> None:
        self._reader, self._state = reader, state
        self._at = b"0-0"

    async def follow(self) -> None:
        """Snapshot, then changes as they come; after a break, with growing pauses, the same again."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self.snapshot()
                self._state.connected = True
                pause = FIRST_PAUSE_SECONDS
                await self._changes()
            except Unavailable:
                self._state.connected = False
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def catch_up(self) -> bool:
        """Bring in all that the stream has, from where this feed stands; False where a part of it was trimmed."""
        return await self._caught_up(self._state.products)

    async def snapshot(self) -> None:
        """Take everything anew, beside what is served, and put it in place when it has caught up with the stream.

        The place in the stream is noted first: what changes while the snapshot is read comes again and ends right.
        """
        while True:
            self._at = await self._reader.newest_change()
            products = self._state.products.copy()
            ages = await self._reader.ages()
            async for chunk in self._reader.products():
                products.keep_all(chunk)
            if await self._caught_up(products):
                self._state.products = products
                self._state.age(ages)
                return

    async def _changes(self) -> None:
        while True:
            changes = await self._reader.wait_for_changes(self._at)
            if len(changes) < BATCH_ENTRIES:
                self._take(self._state.products, changes)
            elif not await self.catch_up():
                await self.snapshot()

    async def _caught_up(self, products: LiveTable) -> bool:
        """Bring in all that the stream has; False where a part of it was trimmed before it was read."""
        while True:
            whole, changes = await self._reader.catch_up(self._at)
            if not whole:
                return False
            self._take(products, changes)
            if len(changes) < BATCH_ENTRIES:
                return True

    def _take(self, products: LiveTable, changes: list[Change]) -> None:
        self._state.take(products, changes)
        if changes:
            self._at = changes[-1].id
            self._state.lag_seconds = time.time() - int(self._at.partition(b"-")[0]) / 1000
