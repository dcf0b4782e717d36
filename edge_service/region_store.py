"""What a region's Redis holds: every key and payload, the writer for publishers, and the encodings its reader uses.

Redis is never the only copy: releases can be staged again from Delta, live state is seeded by every build.
Only commands of Redis 6.2. Two writers of one value meet in a Lua script, never between two round trips.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Annotated, Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import msgspec
import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tandem.bundle import AnchorList, Bundle, Listed
from tandem.errors import TandemError, Unavailable
from tandem.offer import Live
from tandem.regions import Region
from tandem.release import entry_digest

# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
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

BUCKETS = 1024
"""Buckets per kind: 300,000 lists make hashes of about 300 fields, few enough for Redis' compact encoding."""
DELTAS_KEPT = 100_000
"""Stream entries kept, about; who is further behind takes a new snapshot."""
EVENTS_KEPT = 1_000_000
UNIT = "\x1f"
"""Between segment and anchor in a field name; neither may hold it."""

BATCH_ENTRIES = 2_000
BATCH_BUCKETS = 128
BATCH_DELTAS = 500
TIMEOUT_SECONDS = 5.0


# ── Payloads ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class ReleaseMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What a sealed release says about itself."""

    region: str
    release_id: str
    as_of: str
    """Business day, `YYYY-MM-DD`."""
    computed_at: str
    """RFC 3339, UTC."""
    anchors: int
    """Anchor lists."""
    bundles: int
    checksum: str
    """`tandem.release.checksum` over all entries, 16 hexadecimal digits."""
    currency: str
    segments: tuple[str, ...] = ()


class Staged(NamedTuple):
    """What was staged, or found: add up over partitions, digests modulo 2^64."""

    anchors: int
    """Anchor lists (segment × anchor)."""
    bundles: int
    digest: int


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """One product of the nightly snapshot. Prices in minor units; None where it is not known (no sale, for a sale)."""

    sku: str
    stock: int | None = None
    list_price: int | None = None
    sale_price: int | None = None


Sku = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


class Delta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of one product. What is not named stays; a sale price of null ends the sale."""

    sku: Sku
    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    """Grows with every change of this product; Redis compares it as a double, hence the bound."""
    at: datetime
    stock: Amount | msgspec.UnsetType = msgspec.UNSET
    list_price: Amount | msgspec.UnsetType = msgspec.UNSET
    sale_price: Amount | msgspec.UnsetType | None = msgspec.UNSET


class Applied(NamedTuple):
    applied: int
    stale: int
    """Every field of it was older than what is there."""


encode = msgspec.json.Encoder().encode
decode_bundle = msgspec.json.Decoder(Bundle).decode
decode_list = msgspec.json.Decoder(tuple[Listed, ...]).decode
decode_meta = msgspec.json.Decoder(ReleaseMeta).decode


def bucket(name: str) -> int:
    return zlib.crc32(name.encode()) % BUCKETS


def list_entry(ranked: AnchorList) -> tuple[str, str, bytes]:
    """(name that decides the bucket, field, value) of one list."""
    return ranked.anchor, f"{ranked.segment}{UNIT}{ranked.anchor}", encode(ranked.bundles)


def digest_of(kind: bytes, field: bytes, value: bytes) -> int:
    """64 bits over one entry. Free of the release's id and the bucket: the same content has the same checksum."""
    return entry_digest(kind + b":" + field, value)


def live_of(words: bytes) -> Live:
    """The value of one field of LIVE, as the offer arithmetic wants it."""
    word = words.split()
    stock, list_price, sale_price = (None if word[i] == b"-" else int(word[i]) for i in (0, 3, 6))
    return Live(stock=stock, list_price=list_price, sale_price=sale_price)


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970. Raises ValueError for a time without a zone."""
    if at.tzinfo is None:
        raise ValueError("a time needs its zone, such as Z")
    return int(at.timestamp() * 1000)


def delta_arguments(deltas: Sequence[Delta]) -> list[str | int]:
    """Arguments of APPLY for changes told by the feed."""
    arguments: list[str | int] = [DELTAS_KEPT, 0, 0]
    for delta in deltas:
        values = (delta.stock, delta.list_price, delta.sale_price)
        arguments += [delta.sku, delta.sequence, milliseconds(delta.at), *map(_told, values)]
    return arguments


def heartbeat_arguments(at: int) -> list[str | int]:
    """Arguments of APPLY for "all is well up to `at` (ms since 1970), nothing changed"."""
    return [DELTAS_KEPT, at, at]


def snapshot_arguments(rows: Sequence[LiveRow], at: datetime) -> list[str | int]:
    """Arguments of APPLY for a batch's snapshot: no sequence, so it yields to whatever is newer than `at`."""
    stamp = milliseconds(at)
    has_stock = any(row.stock is not None for row in rows)
    has_prices = any(row.list_price is not None for row in rows)
    arguments: list[str | int] = [DELTAS_KEPT, stamp if has_stock else 0, stamp if has_prices else 0]
    for row in rows:
        priced = row.list_price is not None
        stock, list_price = _known(row.stock), _known(row.list_price)
        arguments += [row.sku, 0, stamp, stock, list_price, _told(row.sale_price) if priced else ""]
    return arguments


def _told(value: int | msgspec.UnsetType | None) -> str | int:
    if value is msgspec.UNSET:
        return ""
    return "-" if value is None else value


def _known(value: int | None) -> str | int:
    return "" if value is None else value


# ── Scripts ──────────────────────────────────────────────────────────────────────────────────────────────────────────
APPLY = """
local kept, ages = ARGV[1], {tonumber(ARGV[2]), tonumber(ARGV[3])}
local skus, applied = {}, 0
for i = 4, #ARGV, 6 do skus[#skus + 1] = ARGV[i] end
local found = #skus > 0 and redis.call('HMGET', KEYS[1], unpack(skus)) or {}
local order, entries = {}, {}
for n = 1, #skus do
  local base = 4 + (n - 1) * 6
  local sku, sequence, at = ARGV[base], ARGV[base + 1], ARGV[base + 2]
  local seeding = sequence == '0'
  local word, changed = {}, false
  for part in string.gmatch(entries[sku] or found[n] or '- 0 0 - 0 0 - 0 0', '%S+') do word[#word + 1] = part end
  for field = 0, 2 do
    local told, w = ARGV[base + 3 + field], field * 3 + 1
    if told ~= '' then
      if seeding then
        if tonumber(at) > tonumber(word[w + 2]) then word[w], word[w + 2], changed = told, at, true end
      else
        local kind = field == 0 and 1 or 2
        if tonumber(at) > ages[kind] then ages[kind] = tonumber(at) end
        if tonumber(sequence) > tonumber(word[w + 1]) then
          word[w], word[w + 1], word[w + 2], changed = told, sequence, at, true
        end
      end
    end
  end
  if changed then
    applied = applied + 1
    if not entries[sku] then order[#order + 1] = sku end
    entries[sku] = table.concat(word, ' ')
  end
end
local stamp = {}
for n, kind in ipairs({'stock', 'prices'}) do
  local was = tonumber(redis.call('HGET', KEYS[2], kind) or '0')
  stamp[n] = string.format('%.0f', math.max(was, ages[n]))
  if ages[n] > was then redis.call('HSET', KEYS[2], kind, stamp[n]) end
end
local pairs_ = {'', stamp[1] .. ' ' .. stamp[2]}
for _, sku in ipairs(order) do
  pairs_[#pairs_ + 1] = sku
  pairs_[#pairs_ + 1] = entries[sku]
end
if #order > 0 then redis.call('HSET', KEYS[1], unpack(pairs_, 3)) end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', kept, '*', unpack(pairs_))
return applied
"""
"""KEYS: LIVE, LIVE_AGES, DELTAS. Per field the higher sequence wins, so any order of the same deltas ends alike."""

_POINT = """
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unsealed', ''} end
local was = redis.call('GET', KEYS[1])
if was == ARGV[1] then return {'same', redis.call('GET', KEYS[2]) or ''} end
if was then redis.call('SET', KEYS[2], was) end
redis.call('SET', KEYS[1], ARGV[1])
return {'moved', was or ''}
"""
"""KEYS: CURRENT, BACKUP, the release's META."""

_ROLL_BACK = """
local now = redis.call('GET', KEYS[1])
if now == ARGV[2] then return 'done' end
if now ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[2] then return 'moved' end
if redis.call('EXISTS', KEYS[3]) == 0 then return 'unsealed' end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 'done'
"""
"""KEYS: CURRENT, BACKUP, META of the good one. ARGV: the bad one, the good one; safe to send twice."""

_UNSEAL = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return 'current' end
if redis.call('GET', KEYS[2]) == ARGV[1] then return 'backup' end
return tostring(redis.call('DEL', KEYS[3]))
"""
"""KEYS: CURRENT, BACKUP, META."""


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

    def point(self, release_id: str) -> str | None:
        """Make the release current, in one step; the present one becomes the backup and is returned.

        Pointing to what is current changes nothing and returns the backup, so that a publisher that was cut off
        right here can go on. Raises NotSealed.
        """
        keys = [CURRENT, BACKUP, META.format(release=release_id)]
        outcome, before = (part.decode() for part in self._script(_POINT, keys, [release_id]))
        if outcome == "unsealed":
            raise NotSealed(f"region {self.region.name}: release {release_id} is not sealed; stage and seal it first")
        return before or None

    def roll_back(self) -> tuple[str, str]:
        """Make the backup current, in one step; the bad one is forgotten as a backup. Gives (bad, now current)."""
        bad, good = self.current(), self.backup()
        if bad is None or good is None:
            raise NoBackup(f"region {self.region.name}: there is no backup release; publish one instead")
        outcome = self._script(_ROLL_BACK, [CURRENT, BACKUP, META.format(release=good)], [bad, good]).decode()
        if outcome == "unsealed":
            raise NotSealed(f"region {self.region.name}: backup {good} is not whole any more; publish one instead")
        if outcome == "moved":
            raise InUse(f"region {self.region.name}: the release changed at the same moment; look, then try again")
        return bad, good

    def delete(self, release_id: str) -> int:
        """Remove the release's keys in slices, without blocking Redis; gives their number. Raises InUse."""
        meta = META.format(release=release_id)
        outcome = self._script(_UNSEAL, [CURRENT, BACKUP, meta], [release_id]).decode()
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
