"""What a region's Redis holds: every key, and the writer for publishers; region_reader.py reads for the edge.

Redis is never the only copy: releases can be staged again from Delta, live state is seeded by every build.
Only commands of Redis 6.2. Two writers of one value meet in a Lua script, never between two round trips.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, islice
from types import TracebackType
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import msgspec
import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from edge_service.region_payloads import (
    FORMAT,
    Applied,
    Buckets,
    Delta,
    LiveRow,
    ReleaseMeta,
    Staged,
    body_field,
    decode_buckets,
    decode_meta,
    delta_arguments,
    digest_of_all,
    encode,
    encode_body,
    encode_buckets,
    encode_list,
    heartbeat_arguments,
    list_field,
    milliseconds,
    snapshot_arguments,
)
from edge_service.region_push import Pace, Push
from edge_service.region_scripts import (
    APPLY,
    MAY_WRITE,
    NOTE_SNAPSHOT,
    PUT_CANDIDATES,
    REPAIR,
    SET_ONCE,
    SWITCH,
    UNLINK,
    UNSEAL,
    fenced,
)
from tandem.bundle import AnchorList, Bundle
from tandem.errors import TandemError, Unavailable
from tandem.regions import Region

__all__ = [
    "Applied",
    "Delta",
    "Fenced",
    "Full",
    "InUse",
    "LiveRow",
    "NotSealed",
    "RegionStore",
    "ReleaseMeta",
    "Staged",
]

CURRENT = "tandem:current"
"""String: the id of the release that shoppers see."""
BACKUP = "tandem:backup"
"""String: the id of the release that a rollback goes to."""
META = "tandem:release:{release}:meta"
"""String: ReleaseMeta as JSON. A release is sealed when, and only when, it exists."""
BUCKETS = "tandem:release:{release}:buckets"
"""String: Buckets as JSON, written before anything else of a release; none: as many as `Buckets()` says."""
LISTS = "tandem:release:{release}:lists:{bucket}"
"""Hash: segment US anchor → the ranked list (MessagePack)."""
BODIES = "tandem:release:{release}:bodies:{bucket}"
"""Hash: bundle id (8 bytes) → the bundle (MessagePack). Each body once per release; lists name it."""
LEASE = "tandem:lease"
"""Hash: `holder`, `until` (ms since 1970): who publishes here; lease.py."""
FENCE = "tandem:fence"
"""String: the newest fence that was granted. It never goes back."""
REFUSED = "tandem:refused:{writer}"
"""Never there: what a writer watches, so that a refusal ends its transaction."""
LIVE = "tandem:live"
"""Hash: sku → nine words: `value sequence at` of stock, list price and sale price. `at` in ms since 1970; `-`: none."""
LIVE_AGES = "tandem:live:ages"
"""Hash: `stock`, `prices` → newest time (ms since 1970) that the feed is known to be good for."""
LIVE_SNAPSHOT = "tandem:live:snapshot"
"""Hash: `stock`, `prices` → the time (ms since 1970) that the newest whole snapshot of the batch is true for; `mark` →
another number each time that one was brought, be it the same once more."""
PLACES = "tandem:places"
"""Hash: `topic:partition` → up to where Kafka's changes are in LIVE; streams/places.py says how."""
DELTAS = "tandem:deltas"
"""Stream: what changed in LIVE. First pair: empty name → `stock_ms prices_ms`; then sku → its nine words."""
QUOTE_USED = "tandem:quote:{nonce}"
"""String: there from when a one-time quote was used until it expires."""
CANDIDATES = "tandem:candidates"
"""String with an end: what the last minutes add to the release (MessagePack); candidates.py reads it."""
CANDIDATES_BATCH = "tandem:candidates:batch"
"""String: `query batch` of who wrote CANDIDATES last; it stays, so that nothing older comes back."""
EVENTS = "tandem:events"
"""Stream: exposures and outcomes, one JSON text each under `event`."""

BATCH_ENTRIES = 20_000
"""Entries held at once, to send those of one hash in one command."""
CALL_ENTRIES = 1_000
"""Entries of one hash in one command."""
BATCH_BUCKETS = 128
BATCH_DELTAS = 500
APPLIED = (LIVE, LIVE_AGES, DELTAS)
"""What APPLY writes."""
TIMEOUT_SECONDS = 5.0
REPLICAS_SECONDS = 1.0


class NotSealed(TandemError):
    """A release that was not sealed was asked for as if it were."""


class InUse(TandemError):
    """A release that shoppers see, or may be rolled back to, was to be changed."""


class Full(Unavailable):
    """The region's Redis holds all that its `maxmemory` allows."""


class Fenced(TandemError):
    """A newer publisher is at work, or Redis lost its data since this one began: what it writes is refused."""


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
    """The region's Redis as publishers and tools use it. Every method raises Unavailable where it can't be reached.

    What a publisher writes carries `fence` (of lease.py's `publishing`), and raises Fenced where a newer one was
    granted. Without a fence it is done only while nobody holds the lease.
    """

    def __init__(self, region: Region, fence: int | None = None) -> None:
        self.region = region
        self.fence = fence
        self._redis: redis.Redis = redis.Redis.from_url(
            region.redis_url,
            protocol=2,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2),
        )
        self._pace = Pace(region.push_per_second)

    def __enter__(self) -> RegionStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._redis.close()

    # Releases

    def begin(self, release_id: str, buckets: Buckets) -> None:
        """Say how many hashes a release will have. What an attempt that said otherwise left is removed first.

        One that said the same, cut off or still at work, wrote what will be written again: it stays. So does a sealed
        release, of which staging it again puts back what got lost, unless an earlier version of Tandem sealed it.
        """
        if self.whole(release_id):
            return
        key, wanted = BUCKETS.format(release=release_id), encode_buckets(buckets)
        unsealed = self._fenced(UNLINK, [META.format(release=release_id)])
        with self._reached():
            if not unsealed and self._redis.get(key) == wanted:
                return
        self._remove(release_id)
        self._fenced(SET_ONCE, [key], [wanted])

    def stage(self, release_id: str, bundles: Iterable[Bundle], lists: Iterable[AnchorList]) -> Staged:
        """Write bodies and lists under the release's own keys, which nobody reads yet.

        Many partitions may do so for one release, each body and list in one of them. Doing it again changes nothing:
        the same content has the same bytes, and once the release is sealed only what got lost is put back.
        Memory is that of one batch. Adds up to what `verify` finds when all have staged.
        """
        sealed, buckets = self.sealed(release_id), self._buckets_of(release_id)
        bodies = ((buckets.of_body(each), body_field(each.id), encode_body(each)) for each in bundles)
        ranked = (
            (buckets.of_list(each.anchor), list_field(each.segment, each.anchor), encode_list(each.bundles))
            for each in lists
        )
        with self._reached(), fenced_push(self._redis, self._fence, self._pace, repair=sealed is not None) as push:
            bundle_count, bundle_digest = _pushed(push, BODIES, release_id, bodies, b"body")
            list_count, list_digest = _pushed(push, LISTS, release_id, ranked, b"list")
        return Staged(list_count, bundle_count, (bundle_digest + list_digest) % 2**64)

    def _buckets_of(self, release_id: str) -> Buckets:
        with self._reached():
            found = cast("bytes | None", self._redis.get(BUCKETS.format(release=release_id)))
        if found is not None:
            return decode_buckets(found)
        sealed = self.sealed(release_id)
        return Buckets() if sealed is None else sealed.buckets

    def verify(self, release_id: str) -> Staged:
        """Read every entry of the release back and count and digest it anew. Memory is that of a few buckets."""
        buckets = self._buckets_of(release_id)
        list_count, list_digest = self._read(release_id, LISTS, buckets.lists, b"list")
        bundle_count, bundle_digest = self._read(release_id, BODIES, buckets.bodies, b"body")
        return Staged(list_count, bundle_count, (bundle_digest + list_digest) % 2**64)

    def _read(self, release_id: str, template: str, hashes: int, kind: bytes) -> tuple[int, int]:
        count = digest = 0
        for entries in self._hashes(release_id, template, hashes):
            count += len(entries)
            digest += digest_of_all(kind, entries, entries.values())
        return count, digest

    def _hashes(self, release_id: str, template: str, hashes: int) -> Iterator[dict[bytes, bytes]]:
        for numbers in batches(range(hashes), BATCH_BUCKETS):
            with self._reached(), self._redis.pipeline(transaction=False) as pipe:
                for number in numbers:
                    pipe.hgetall(template.format(release=release_id, bucket=number))
                found = pipe.execute()
            yield from filter(None, found)

    def seal(self, release_id: str, meta: ReleaseMeta) -> ReleaseMeta:
        """Say that the release is whole; gives `meta` with how its entries lie there.

        Sealed once, that stays. Raises InUse where it was sealed with other content.
        """
        meta = msgspec.structs.replace(meta, buckets=self._buckets_of(release_id), format=FORMAT)
        there = decode_meta(self._fenced(SET_ONCE, [META.format(release=release_id)], [encode(meta)]))
        if there.checksum != meta.checksum:
            raise InUse(
                f"region {self.region.name}: release {release_id} is sealed with checksum {there.checksum}, "
                f"not {meta.checksum}; delete it first, or build a new release"
            )
        return there

    def sealed(self, release_id: str) -> ReleaseMeta | None:
        """What the release says about itself; None while it is not sealed."""
        with self._reached():
            found = cast("bytes | None", self._redis.get(META.format(release=release_id)))
        return None if found is None else decode_meta(found)

    def whole(self, release_id: str) -> bool:
        """Whether the release is sealed, and in the format that this version reads."""
        sealed = self.sealed(release_id)
        return sealed is not None and sealed.format == FORMAT

    def holds(self, release_id: str) -> bool:
        """Whether anything of the release lies here: what is removed last of it, or its seal."""
        with self._reached():
            return bool(self._redis.exists(*(key.format(release=release_id) for key in (BUCKETS, META))))

    def current(self) -> str | None:
        return self._text(CURRENT)

    def backup(self) -> str | None:
        return self._text(BACKUP)

    def _text(self, key: str) -> str | None:
        with self._reached():
            found = cast("bytes | None", self._redis.get(key))
        return None if found is None else found.decode()

    def replicated(self) -> bool:
        """Whether all replicas have what was written on this connection, waiting REPLICAS_SECONDS at most."""
        with self._reached():
            replicas = cast("dict[str, int]", self._redis.info("replication"))["connected_slaves"]
            return not replicas or self._redis.wait(replicas, int(REPLICAS_SECONDS * 1000)) >= replicas

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

    def switch(self, release_id: str, backup: str | None) -> None:
        """Make one release current and another the backup, in one step; a backup that is not whole is none.

        Safe to repeat. Raises NotSealed where `release_id` is not whole here.
        """
        keys = [CURRENT, BACKUP, *(META.format(release=name or "") for name in (release_id, backup))]
        if self._fenced(SWITCH, keys, [release_id, backup or ""]) == b"unsealed":
            raise NotSealed(f"region {self.region.name}: release {release_id} is not sealed; stage and seal it first")

    def delete(self, release_id: str) -> int:
        """Remove the release's keys in slices, without blocking Redis; gives their number. Raises InUse."""
        meta = META.format(release=release_id)
        outcome = self._fenced(UNSEAL, [CURRENT, BACKUP, meta], [release_id]).decode()
        if outcome in ("current", "backup"):
            raise InUse(f"region {self.region.name}: release {release_id} is {outcome}; point to another one first")
        return int(outcome) + self._remove(release_id)

    def _remove(self, release_id: str) -> int:
        buckets, removed = self._buckets_of(release_id), 0
        hashes = ((LISTS, number) for number in range(buckets.lists))
        others = ((BODIES, number) for number in range(buckets.bodies))
        for some in batches(chain(hashes, others), BATCH_BUCKETS):
            removed += self._fenced(UNLINK, [each.format(release=release_id, bucket=at) for each, at in some])
        return removed + cast("int", self._fenced(UNLINK, [BUCKETS.format(release=release_id)]))

    # Live stock and prices

    def seed_live(self, rows: Iterable[LiveRow], at: datetime) -> int:
        """Bring the nightly snapshot, true at `at`; gives how many products it changed.

        A value that is newer than `at` stays, and so does every product's sequence number.
        """
        return sum(self._fenced(APPLY, APPLIED, snapshot_arguments(batch, at)) for batch in batches(rows, BATCH_DELTAS))

    def note_snapshot(self, times: Mapping[str, datetime]) -> None:
        """Say that a snapshot is in as a whole: of `stock`, `prices` or both, and when each is true for.

        What Kafka told since then is brought once more over it.
        """
        words = [word for kind, at in times.items() for word in (kind, milliseconds(at))]
        if words:
            self._fenced(NOTE_SNAPSHOT, [LIVE_SNAPSHOT], words)

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

    def _apply(self, arguments: list[str | bytes | int]) -> int:
        return cast("int", self.script(APPLY, APPLIED, arguments))

    # What the last minutes add

    def put_candidates(self, query: str, batch: int, pairs: bytes, ttl_ms: int) -> bool:
        """Put the region's candidates in place; False where this batch of `query`, or a newer one, was there."""
        arguments: list[str | bytes | int] = [query, batch, pairs, ttl_ms]
        return cast("int", self.script(PUT_CANDIDATES, [CANDIDATES, CANDIDATES_BATCH], arguments)) == 1

    # The wire

    def _fenced(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int] = ()) -> Any:
        return self.script(fenced(script), [LEASE, FENCE, *keys], [*arguments, self._fence])

    @property
    def _fence(self) -> str:
        return "" if self.fence is None else str(self.fence)

    def script(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """What a script of region_scripts.py answers."""
        with self._reached():
            return self._redis.eval(script, len(keys), *keys, *arguments)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        with reached(self.region, self.region.redis_url):
            yield


def fenced_push(client: redis.Redis, fence: str, pace: Pace, *, repair: bool = False) -> Push:
    """Sends hashes, each transaction behind a look at the fence; with `repair` what is there stays.

    Whoever takes the lease between that look and the end of the transaction changes FENCE, which it watches.
    """
    may_write = str(client.script_load(MAY_WRITE)).encode()
    own = REFUSED.format(writer=secrets.token_hex(8)).encode()
    watched = LEASE.encode(), FENCE.encode(), own
    opening = [b"WATCH", *watched[1:]], [b"EVALSHA", may_write, b"3", *watched, fence.encode()]
    before = [b"EVALSHA", str(client.script_load(REPAIR)).encode(), b"1"] if repair else [b"HSET"]
    return Push(client, before, pace, opening)


def _pushed(
    push: Push, template: str, release_id: str, entries: Iterable[tuple[int, bytes, bytes]], kind: bytes
) -> tuple[int, int]:
    """Send entries (bucket, field, value), those of one hash together; gives their number and digest."""
    count = digest = 0
    for batch in batches(entries, BATCH_ENTRIES):
        hashes: dict[int, list[bytes]] = {}
        for bucket, field, value in batch:
            hashes.setdefault(bucket, []).extend((field, value))
        _, fields, values = zip(*batch, strict=True)
        digest += digest_of_all(kind, fields, values)
        for bucket, held in hashes.items():
            key = template.format(release=release_id, bucket=bucket).encode()
            for some in batches(held, 2 * CALL_ENTRIES):
                push.hash(key, some)
        count += len(batch)
    return count, digest


@contextmanager
def reached(region: Region, url: str) -> Iterator[None]:
    """Turn what the Redis client raises into Unavailable with the region and the address."""
    try:
        yield
    except RedisError as error:
        if "FENCED " in str(error):
            why = str(error).partition("FENCED ")[2]
            raise Fenced(f"region {region.name}: refused: {why}; look with tandem releases, then try again") from error
        if "'maxmemory'" in str(error):
            raise Full(
                f"region {region.name}: Redis at {address(url)} is full; give it more maxmemory: "
                "it needs room for three releases, the live values and the events"
            ) from error
        raise Unavailable(
            f"region {region.name}: Redis at {address(url)} can't serve ({error}); "
            "start it, or mend redis_url in regions.toml"
        ) from error
