"""What a region's Redis holds: every key, and the writer for publishers; region_reader.py reads for the edge.

Redis is never the only copy: releases can be staged again from Delta, live state is seeded by every build.
Only commands of Redis 6.2. Two writers of one value meet in a Lua script, never between two round trips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from edge_service.region_payloads import (
    BUCKETS,
    Applied,
    Delta,
    LiveRow,
    ReleaseMeta,
    Staged,
    bucket,
    decode_meta,
    delta_arguments,
    digest_of,
    encode,
    heartbeat_arguments,
    list_entry,
    milliseconds,
    snapshot_arguments,
)
from edge_service.region_scripts import APPLY, POINT, ROLL_BACK, UNSEAL
from tandem.bundle import AnchorList, Bundle
from tandem.errors import TandemError, Unavailable
from tandem.regions import Region

__all__ = ["Applied", "Delta", "InUse", "LiveRow", "NoBackup", "NotSealed", "RegionStore", "ReleaseMeta", "Staged"]

CURRENT = "tandem:current"
"""String: the id of the release that shoppers see."""
BACKUP = "tandem:backup"
"""String: the id of the release that a rollback goes to."""
META = "tandem:release:{release}:meta"
"""String: ReleaseMeta as JSON. A release is sealed when, and only when, it exists."""
LISTS = "tandem:release:{release}:lists:{bucket}"
"""Hash: segment US anchor → the ranked list (JSON array of Listed). Bucket: crc32(anchor) mod BUCKETS."""
BODIES = "tandem:release:{release}:bodies:{bucket}"
"""Hash: bundle id → Bundle (JSON array). Each body once per release; lists name it. Bucket: crc32(id) mod BUCKETS."""
LIVE = "tandem:live"
"""Hash: sku → nine words: `value sequence at` of stock, list price and sale price. `at` in ms since 1970; `-`: none."""
LIVE_AGES = "tandem:live:ages"
"""Hash: `stock`, `prices` → newest time (ms since 1970) that the feed is known to be good for."""
DELTAS = "tandem:deltas"
"""Stream: what changed in LIVE. First pair: empty name → `stock_ms prices_ms`; then sku → its nine words."""
EVENTS = "tandem:events"
"""Stream: exposures and outcomes, one JSON text each under `event`."""

BATCH_ENTRIES = 2_000
BATCH_BUCKETS = 128
BATCH_DELTAS = 500
TIMEOUT_SECONDS = 5.0


class NotSealed(TandemError):
    """A release that was not sealed was asked for as if it were."""


class InUse(TandemError):
    """A release that shoppers see, or may be rolled back to, was to be changed."""


class NoBackup(TandemError):
    """There is nothing to roll back to."""


def address(url: str) -> str:
    """Host and port of a Redis address: never its password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path


Item = TypeVar("Item")


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class RegionStore:
    """The region's Redis as publishers and tools use it. Every method raises Unavailable where it can't be reached."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self._redis: redis.Redis = redis.Redis.from_url(
            region.redis_url,
            protocol=2,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2),
        )

    def __enter__(self) -> RegionStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._redis.close()

    # Releases

    def stage(self, release_id: str, bundles: Iterable[Bundle], lists: Iterable[AnchorList]) -> Staged:
        """Write bodies and lists under the release's own keys, which nobody reads yet.

        Many partitions may do so for one release, each body and list in one of them. Doing it again changes nothing:
        the same content has the same bytes, and once the release is sealed only what got lost is put back.
        Memory is that of one batch. Adds up to what `verify` finds when all have staged.
        """
        repair = self.sealed(release_id) is not None
        bodies = ((BODIES, bundle.id, bundle.id, encode(bundle)) for bundle in bundles)
        ranked = ((LISTS, *list_entry(each)) for each in lists)
        bundle_count, bundle_digest = self._write(release_id, bodies, b"body", repair=repair)
        list_count, list_digest = self._write(release_id, ranked, b"list", repair=repair)
        return Staged(list_count, bundle_count, (bundle_digest + list_digest) % 2**64)

    def _write(
        self, release_id: str, entries: Iterable[tuple[str, str, str, bytes]], kind: bytes, *, repair: bool
    ) -> tuple[int, int]:
        count = digest = 0
        for batch in batches(entries, BATCH_ENTRIES):
            with self._reached(), self._redis.pipeline(transaction=False) as pipe:
                for template, name, field, value in batch:
                    key = template.format(release=release_id, bucket=bucket(name))
                    (pipe.hsetnx if repair else pipe.hset)(key, field, value)
                    digest += digest_of(kind, field.encode(), value)
                pipe.execute()
            count += len(batch)
        return count, digest

    def verify(self, release_id: str) -> Staged:
        """Read every entry of the release back and count and digest it anew. Memory is that of a few buckets."""
        list_count, list_digest = self._read(release_id, LISTS, b"list")
        bundle_count, bundle_digest = self._read(release_id, BODIES, b"body")
        return Staged(list_count, bundle_count, (bundle_digest + list_digest) % 2**64)

    def _read(self, release_id: str, template: str, kind: bytes) -> tuple[int, int]:
        count = digest = 0
        for entries in self._buckets(release_id, template):
            count += len(entries)
            digest += sum(digest_of(kind, field, value) for field, value in entries.items())
        return count, digest

    def _buckets(self, release_id: str, template: str) -> Iterator[dict[bytes, bytes]]:
        for numbers in batches(range(BUCKETS), BATCH_BUCKETS):
            with self._reached(), self._redis.pipeline(transaction=False) as pipe:
                for number in numbers:
                    pipe.hgetall(template.format(release=release_id, bucket=number))
                found = pipe.execute()
            yield from filter(None, found)

    def seal(self, release_id: str, meta: ReleaseMeta) -> None:
        """Say that the release is whole. Sealed once, `meta` stays; sealing it anew with other content is refused."""
        with self._reached():
            self._redis.set(META.format(release=release_id), encode(meta), nx=True)
        there = self.sealed(release_id)
        if there is not None and there.checksum != meta.checksum:
            raise InUse(
                f"region {self.region.name}: release {release_id} is sealed with checksum {there.checksum}, "
                f"not {meta.checksum}; delete it first, or build a new release"
            )

    def sealed(self, release_id: str) -> ReleaseMeta | None:
        """What the release says about itself; None while it is not sealed."""
        with self._reached():
            found = cast("bytes | None", self._redis.get(META.format(release=release_id)))
        return None if found is None else decode_meta(found)

    def current(self) -> str | None:
        return self._text(CURRENT)

    def backup(self) -> str | None:
        return self._text(BACKUP)

    def _text(self, key: str) -> str | None:
        with self._reached():
            found = cast("bytes | None", self._redis.get(key))
        return None if found is None else found.decode()

    # Events

    def events(self, count: int) -> list[tuple[bytes, bytes]]:
        """The oldest `count` exposures and outcomes that were not forgotten: (id, JSON), in the order they came."""
        with self._reached():
            found = cast("list[tuple[bytes, dict[bytes, bytes]]]", self._redis.xrange(EVENTS, count=count))
        return [(place, fields[b"event"]) for place, fields in found]

    def forget_events(self, places: Iterable[bytes]) -> None:
        """Drop events that lie in the lake now."""
        with self._reached():
            self._redis.xdel(EVENTS, *places)

    # The switch

    def point(self, release_id: str) -> str | None:
        """Make the release current, in one step; the present one becomes the backup and is returned.

        Pointing to what is current changes nothing and returns the backup, so that a publisher that was cut off
        right here can go on. Raises NotSealed.
        """
        keys = [CURRENT, BACKUP, META.format(release=release_id)]
        outcome, before = (part.decode() for part in self._script(POINT, keys, [release_id]))
        if outcome == "unsealed":
            raise NotSealed(f"region {self.region.name}: release {release_id} is not sealed; stage and seal it first")
        return before or None

    def roll_back(self) -> tuple[str, str]:
        """Make the backup current, in one step; the bad one is forgotten as a backup. Gives (bad, now current)."""
        bad, good = self.current(), self.backup()
        if bad is None or good is None:
            raise NoBackup(f"region {self.region.name}: there is no backup release; publish one instead")
        outcome = self._script(ROLL_BACK, [CURRENT, BACKUP, META.format(release=good)], [bad, good]).decode()
        if outcome == "unsealed":
            raise NotSealed(f"region {self.region.name}: backup {good} is not whole any more; publish one instead")
        if outcome == "moved":
            raise InUse(f"region {self.region.name}: the release changed at the same moment; look, then try again")
        return bad, good

    def delete(self, release_id: str) -> int:
        """Remove the release's keys in slices, without blocking Redis; gives their number. Raises InUse."""
        meta = META.format(release=release_id)
        outcome = self._script(UNSEAL, [CURRENT, BACKUP, meta], [release_id]).decode()
        if outcome in ("current", "backup"):
            raise InUse(f"region {self.region.name}: release {release_id} is {outcome}; point to another one first")
        removed = int(outcome)
        for numbers in batches(range(BUCKETS), BATCH_BUCKETS):
            keys = [each.format(release=release_id, bucket=number) for number in numbers for each in (LISTS, BODIES)]
            with self._reached():
                removed += self._redis.unlink(*keys)
        return removed

    # Live stock and prices

    def seed_live(self, rows: Iterable[LiveRow], at: datetime) -> int:
        """Bring the nightly snapshot, true at `at`; gives how many products it changed.

        A value that is newer than `at` stays, and so does every product's sequence number.
        """
        return sum(self._apply(snapshot_arguments(batch, at)) for batch in batches(rows, BATCH_DELTAS))

    def push(self, deltas: Iterable[Delta]) -> Applied:
        """Apply changes in order. Those whose every field is older than what is there are counted as stale."""
        told = applied = 0
        for batch in batches(deltas, BATCH_DELTAS):
            told += len(batch)
            applied += self._apply(delta_arguments(batch))
        return Applied(applied, told - applied)

    def heartbeat(self, at: datetime | None = None) -> None:
        """Say that the feed is good up to `at` (default: now) though nothing changed."""
        self._apply(heartbeat_arguments(milliseconds(at or datetime.now(UTC))))

    def _apply(self, arguments: list[str | int]) -> int:
        return cast("int", self._script(APPLY, [LIVE, LIVE_AGES, DELTAS], arguments))

    # The wire

    def _script(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        with self._reached():
            return self._redis.eval(script, len(keys), *keys, *arguments)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        with reached(self.region, self.region.redis_url):
            yield


@contextmanager
def reached(region: Region, url: str) -> Iterator[None]:
    """Turn what the Redis client raises into Unavailable with the region and the address."""
    try:
        yield
    except RedisError as error:
        raise Unavailable(
            f"region {region.name}: Redis at {address(url)} can't serve ({error}); "
            "start it, or mend redis_url in regions.toml"
        ) from error
