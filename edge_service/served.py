"""One region as this process serves it: its release, its live state, and the tasks that keep both up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple

from edge_service.ages import Ages, Told
from edge_service.live import Clock, Feed, Freshness, LiveState
from edge_service.live_table import LiveTable
from edge_service.problems import unavailable
from edge_service.region_reader import RegionReader
from edge_service.releases import CurrentRelease, Release
from tandem.regions import Region
from tandem.segments import ALL
from tandem.settings import Settings

RESTART_SECONDS = 1.0


class Moment(NamedTuple):
    """All that one answer is made from, taken at once: it never sees two releases."""

    release: Release
    products: LiveTable
    told: Told
    now: float

    @property
    def freshness(self) -> Freshness:
        return self.told.freshness


class ServedRegion:
    def __init__(self, region: Region, settings: Settings, clock: Clock, log: Any) -> None:
        self.region = region
        self.reader = RegionReader(region)
        self.live = LiveState(
            stock_limit_seconds=settings.stock_limit_seconds,
            price_limit_seconds=settings.price_limit_seconds,
        )
        self.ages = Ages(self.live)
        self.current = CurrentRelease(self.reader, log)
        self._feed = Feed(self.reader, self.live)
        self._clock, self._log = clock, log
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for follow in (self._feed.follow, self.current.follow):
            self._tasks.append(asyncio.create_task(self._keep_on(follow)))

    async def stop(self) -> None:
        """End what follows, and close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reader.close()

    async def _keep_on(self, follow: Callable[[], Awaitable[None]]) -> None:
        """A fault nobody thought of ends neither the answers nor the following: it is reported, and tried again."""
        while True:
            try:
                await follow()
            except Exception as error:  # noqa: BLE001 - reported with all it says
                self.live.connected = False
                self._log.error("following_failed", region=self.region.name, reason=repr(error))
            await asyncio.sleep(RESTART_SECONDS)

    @property
    def missing(self) -> list[str]:
        """What this region lacks before it can be served: `release`, `live`."""
        lacks = {"release": self.current.release is None, "live": not self.live.ready}
        return [name for name, lacking in lacks.items() if lacking]

    def moment(self) -> Moment:
        """What is known now. Raises a 503 problem before the first release is here."""
        release = self.current.release
        if release is None:
            raise unavailable(f"region {self.region.name} has no release yet")
        now = self._clock()
        return Moment(release, self.live.products, self.ages.at(now), now)

    def segment(self, asked: str, consents: Collection[str]) -> str:
        """The segment to answer for: without the consents that the region asks for, the whole region."""
        wanted = self.region.consent_purposes
        return asked if not wanted or set(wanted) <= set(consents) else ALL

    def freshness(self) -> Freshness:
        """How old the live state is now."""
        return self.ages.at(self._clock()).freshness
