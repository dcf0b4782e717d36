"""One region as this process serves it: its release, its live state, and the tasks that keep both up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from edge_service.ages import Ages, Freshness, Limits, Told
from edge_service.candidates import Candidates, LiveCandidates, blended
from edge_service.live import Clock, Feed, LiveState
from edge_service.problems import unavailable
from edge_service.region_reader import RegionReader
from edge_service.releases import CurrentRelease, Ranking, Release
from tandem.bundle import Bundle
from tandem.regions import Region
from tandem.segments import ALL
from tandem.settings import Settings

RESTART_SECONDS = 1.0
LASTS_SECONDS = 1.0
"""How long a moment is taken for now."""


class Moment:
    """All that one answer is made from, taken at once: it never sees two releases.

    The same moment serves all answers until something comes in, or a second is over.
    """

    __slots__ = ("_state", "basis", "candidates", "now", "number", "products", "release", "told", "until")

    def __init__(
        self,
        before: Moment | None,
        release: Release,
        candidates: Candidates,
        live: LiveState,
        told: Told,
        now: float,
    ) -> None:
        self.number: int = 0 if before is None else before.number + 1
        """Grows from moment to moment."""
        self.release, self.products, self.told, self.now = release, live.products, told, now
        self.candidates = candidates
        basis = live.products.generation, told.freshness.discounts, told.freshness.prices
        self.basis: tuple[int, bool, bool] = before.basis if before is not None and before.basis == basis else basis
        """Where it is another object, everything has to be priced anew."""
        self.until = min(told.until, now + LASTS_SECONDS, candidates.until)
        self._state = live.products.version, live.ages, live.connected

    @property
    def freshness(self) -> Freshness:
        return self.told.freshness

    def ranked(self, segment: str, anchor: str) -> Ranking:
        """The anchor's list in the release, and in it what the last minutes add."""
        own, live = self.release.ranked(segment, anchor), self.candidates.places.get(anchor)
        return own if live is None else Ranking.of(anchor, blended(own.places, live))

    def bundle(self, bundle_id: str) -> Bundle | None:
        """The release's bundle of that id, or else one that the last minutes add."""
        found = self.release.bundle(bundle_id)
        return self.candidates.bundles.get(bundle_id) if found is None else found

    def lasts(self, release: Release, live: LiveState, now: float) -> bool:
        version, ages, connected = self._state
        return (
            live.products is self.products
            and live.products.version == version
            and live.ages is ages
            and live.connected is connected
            and release is self.release
            and self.now <= now < self.until
        )


class ServedRegion:
    def __init__(self, region: Region, settings: Settings, clock: Clock, log: Any) -> None:
        self.region, self.name = region, region.name
        self.reader = RegionReader(region)
        self.live = LiveState()
        self._ages = Ages(self.live, Limits.of(settings))
        self._moment: Moment | None = None
        self.current = CurrentRelease(self.reader, log)
        self._feed = Feed(self.reader, self.live)
        self.candidates = LiveCandidates(self.reader, log)
        self._clock, self._log = clock, log
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for follow in (self._feed.follow, self.current.follow, self.candidates.follow):
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
    def live_candidates(self) -> int:
        """Bundles that the last minutes add now."""
        return len(self.candidates.at(self._clock()))

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
        now, held = self._clock(), self._moment
        if held is None or not held.lasts(release, self.live, now):
            told, candidates = self._ages.at(now, release), self.candidates.at(now)
            self._moment = held = Moment(held, release, candidates, self.live, told, now)
        return held

    def segment(self, asked: str, consents: Collection[str]) -> str:
        """The segment to answer for: without the consents that the region asks for, the whole region."""
        wanted = self.region.consent_purposes
        return asked if not wanted or set(wanted) <= set(consents) else ALL

    def freshness(self) -> Freshness:
        """How old the live state is now."""
        return self._ages.at(self._clock(), self.current.release).freshness
