"""The release that shoppers of one region see, held whole in this process and swapped in one assignment."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from sys import intern
from typing import Any, NamedTuple

import msgspec

from edge_service.answers import Evidence
from edge_service.kept import Kept
from edge_service.region_payloads import (
    FORMAT,
    ReleaseMeta,
    body_field,
    decode_body,
    decode_list,
    digest_of_all,
    list_field,
)
from edge_service.region_reader import Pairs, RegionReader
from tandem.bundle import Bundle, Listed
from tandem.errors import TandemError, Unavailable
from tandem.release import checksum
from tandem.segments import ALL

POLL_SECONDS = 0.25
"""How often the pointer is read: every process follows it within this time."""
RETRY_SECONDS = 5.0
"""Pause before a release that could not be loaded whole is tried again."""


_encode = msgspec.json.Encoder().encode

DECODED_BYTES = 128 * 1024 * 1024
"""What decoded lists may take, about."""
FREED_AT_ONCE = 50
"""Decoded lists of a release that is let go, in one turn of the event loop: a few tenths of a millisecond."""
LIST_BYTES, PLACE_BYTES = 1_600, 660
"""What a decoded list takes, about, and each of its places."""


class NotWhole(TandemError):
    """A release that the pointer names lacks entries, or has others than were sealed."""


class Standing(NamedTuple):
    """A place in the list of one anchor."""

    order: str
    """As `order_of` says."""
    rank: int
    bundle_id: str
    listed: Listed
    others: tuple[str, ...]
    """The products of the bundle beside the anchor."""
    evidence: bytes
    """As an answer tells it: JSON of the shape answers.Evidence."""


def order_of(listed: Listed, rank: int, anchor: str) -> str:
    """Text that sorts places of several anchors: the more likely first, then by rank, and no two alike. One string is
    compared several times as fast as a tuple.
    """
    return f"{9 - listed.confidence:.9f} {rank:05d} {listed.bundle_id} {anchor}"


class Ranking(NamedTuple):
    """The list of one anchor."""

    places: tuple[Standing, ...]
    likely: tuple[Standing, ...]
    """The same by `order`."""
    others: frozenset[str]
    """Whoever has none of these holds no bundle of the list whole."""

    @classmethod
    def of(cls, anchor: str, places: tuple[Standing, ...]) -> Ranking:
        likely = tuple(sorted(places))
        others = frozenset([sku for place in places for sku in place.others or (anchor,)])
        return cls(places, places if likely == places else likely, others)

    @property
    def size(self) -> int:
        return LIST_BYTES + PLACE_BYTES * len(self.places)


class Release:
    """One release of one region: lists and bodies as they are stored. Lists asked for lately are kept decoded."""

    def __init__(self, meta: ReleaseMeta, lists: dict[bytes, bytes], bodies: dict[bytes, bytes]) -> None:
        self.meta, self._lists, self._bodies = meta, lists, bodies
        self._kept: Kept[tuple[str, str], Ranking] = Kept(DECODED_BYTES)

    def ranked(self, segment: str, anchor: str) -> Ranking:
        """The anchor's list for the segment, or where it has none for the whole region; empty where neither has."""
        key = (segment, anchor)
        kept = self._kept.get(key)
        if kept is None:
            found = self._lists.get(list_field(segment, anchor)) or self._lists.get(list_field(ALL, anchor))
            places = () if found is None else decode_list(found)
            kept = Ranking.of(anchor, tuple([self._standing(anchor, n, each) for n, each in enumerate(places)]))
            self._kept.put(key, kept)
        return kept

    def _standing(self, anchor: str, rank: int, listed: Listed) -> Standing:
        bundle = self.bundle(listed.bundle_id)
        order = order_of(listed, rank, anchor)
        if bundle is None:
            return Standing(order, rank, intern(listed.bundle_id), listed, (), b"")
        told = listed.tell(bundle)
        others = tuple([intern(part.sku) for part in bundle.components if part.sku != anchor])
        evidence = _encode(Evidence(told.orders_together, listed.confidence, told.lift))
        return Standing(order, rank, intern(listed.bundle_id), listed, others, evidence)

    def bundle(self, bundle_id: str) -> Bundle | None:
        """The bundle; None where the release has none of that id, or it is no id at all."""
        try:
            found = self._bodies.get(body_field(bundle_id))
        except ValueError:
            return None
        return None if found is None else decode_body(bundle_id, found)

    async def let_go(self) -> None:
        """Free what it holds, a little at a time between answers. Nobody may ask it any more."""
        self._kept.clear()
        while self._kept.free(FREED_AT_ONCE):
            await asyncio.sleep(0)
        for held in (self._lists, self._bodies):
            while held:
                for _ in range(min(len(held), 10 * FREED_AT_ONCE)):
                    held.popitem()
                await asyncio.sleep(0)


class CurrentRelease:
    """Follows the region's pointer. What it serves stays until another release is here as a whole.

    The backup is held too, so that a rollback is followed at once, however large the release.
    """

    def __init__(self, reader: RegionReader, log: Any) -> None:
        self._reader, self._log = reader, log
        self.release: Release | None = None
        self._backup: Release | None = None
        self._looked_at: str | None = None
        """The backup that was looked for last; one that is not whole is not looked for again."""

    async def follow(self) -> None:
        while True:
            try:
                await self._catch_up()
                pause = POLL_SECONDS
            except Unavailable:
                pause = POLL_SECONDS
            except NotWhole as error:
                self._log.error("release_not_whole", region=self._reader.region.name, reason=str(error))
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)

    async def _catch_up(self) -> None:
        pointed = await self._reader.current()
        if pointed is None:
            return
        if self.release is None or self.release.meta.release_id != pointed:
            before, self.release = self.release, await self._whole(pointed)
            gc.freeze()  # else each search for garbage goes through all that a release holds
            self._log.info("release", region=self._reader.region.name, release=pointed)
            await self._hold(before)
        else:
            await self._hold_backup()

    async def _whole(self, release_id: str) -> Release:
        """The release, from memory where what is sealed now is what is held."""
        held = self._backup
        if held is not None and held.meta == await self._reader.meta(release_id):
            return held
        return await load(self._reader, release_id)

    async def _hold_backup(self) -> None:
        """Hold what a rollback would go to, if it is whole."""
        named = await self._reader.backup()
        if named == self._looked_at:
            return
        if named is None:
            await self._hold(None)
        elif self._backup is None or self._backup.meta.release_id != named:
            with suppress(NotWhole):
                await self._hold(await load(self._reader, named))
        self._looked_at = named

    async def _hold(self, backup: Release | None) -> None:
        """Hold another backup than before."""
        before, self._backup = self._backup, backup
        if before is not None and before is not self.release:
            await before.let_go()


async def load(reader: RegionReader, release_id: str) -> Release:
    """The release as it was sealed. Raises NotWhole where what is stored is not what was sealed."""
    meta = await reader.meta(release_id)
    if meta is None:
        raise NotWhole(f"release {release_id} is not sealed")
    if meta.format != FORMAT:
        raise NotWhole(
            f"release {release_id} has format {meta.format}, not {FORMAT}: another version of Tandem published it; "
            "publish it again with this one"
        )
    lists, list_digest = await _collect(reader.lists(meta), b"list")
    bodies, body_digest = await _collect(reader.bodies(meta), b"body")
    found = len(lists), len(bodies), checksum([list_digest, body_digest])
    if found != (meta.anchors, meta.bundles, meta.checksum):
        raise NotWhole(f"release {release_id} was sealed as {meta.anchors, meta.bundles, meta.checksum}, found {found}")
    return Release(meta, lists, bodies)


async def _collect(chunks: AsyncIterator[Pairs], kind: bytes) -> tuple[dict[bytes, bytes], int]:
    entries: dict[bytes, bytes] = {}
    digest = 0
    async for pairs in chunks:
        fields, values = pairs[::2], pairs[1::2]
        entries.update(zip(fields, values, strict=True))
        digest += digest_of_all(kind, fields, values)
    return entries, digest
