"""The bucket behind the CDN: writes that cost nothing when nothing changed, and a check of all that was written."""

from __future__ import annotations

import hashlib
import mimetypes
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import msgspec
from botocore import exceptions as aws
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cdn import keys, manifest, shards
from cdn.manifest import Manifest
from tandem import regions
from tandem.errors import TandemError, Unavailable

IMMUTABLE = "public, max-age=31536000, immutable"
MANIFEST = "public, max-age=10, stale-while-revalidate=60, stale-if-error=86400"
SHOP = "public, max-age=60, stale-while-revalidate=600, stale-if-error=86400"
PICTURE = "public, max-age=86400, stale-while-revalidate=604800, stale-if-error=604800"

JSON = "application/json"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": JSON,
    ".svg": "image/svg+xml",
}
SHOP_FILES = Path(__file__).parent / "shop"

SKEW = timedelta(minutes=5)
"""Stores refuse what was signed with a clock that differs from theirs by more than 5 to 15 minutes."""
CONNECT_SECONDS = 3
READ_SECONDS = 20
ATTEMPTS = 4
PARALLEL = 8

_REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "403"}
_ABSENT = {"NoSuchKey", "NotFound", "404", "NoSuchBucket"}
_OVERLOADED = {"500", "502", "503", "504", "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout"}


_UNREACHED = (aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError)


_MAKING = threading.Lock()
"""Threads that want the same client shall not each make one."""


class Damaged(TandemError):
    """What lies in the object store is not what was written."""


class _Headers(NamedTuple):
    content_type: str
    cache_control: str
    content_encoding: str | None = None


_IMMUTABLE_JSON = _Headers(JSON, IMMUTABLE, "gzip")


class ObjectStore:
    """One bucket. Every method raises Unavailable where the store can't be reached, TandemError where it refuses."""

    def __init__(self, where: regions.ObjectStore, access_key: str, secret_key: str, s3_region: str) -> None:
        self._where = where
        with _MAKING:
            self._client = _client(where.endpoint, access_key, secret_key, s3_region)

    def ensure_bucket(self) -> None:
        """Make the bucket where there is none."""
        with self._asking(""):
            try:
                self._client.head_bucket(Bucket=self._where.bucket)
            except ClientError as error:
                if _code(error) not in _ABSENT:
                    raise
                self._client.create_bucket(Bucket=self._where.bucket)

    def put_immutable(self, key: str, body: bytes, *, surrogate_keys: str = "") -> bool:
        """Write a gzipped JSON that never changes again. False where the same bytes and headers lie there already."""
        return self._put(key, body, _IMMUTABLE_JSON, surrogate_keys)

    def put_release(self, region: str, release: str, files: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> int:
        """Write many `key → gzipped JSON` of one release in parallel. Gives how many were not there already."""
        words = keys.surrogate_keys(region, release)
        pairs = files.items() if isinstance(files, Mapping) else files
        return sum(_each(lambda pair: self.put_immutable(*pair, surrogate_keys=words), pairs))

    def put_manifest(self, region: str, content: Manifest) -> None:
        """Point `region` to a release. Call it after `verify`: from here on shoppers read that release."""
        if content.region != region:
            raise TandemError(f"the manifest is of region {content.region}, not {region}; publish it there")
        self._put(
            keys.manifest_key(region), manifest.encode(content), _Headers(JSON, MANIFEST), keys.surrogate_keys(region)
        )

    def keep_manifest(self, content: Manifest) -> None:
        """Keep the manifest beside its release's files, so that a switch to that release is one write."""
        self._put(
            keys.kept_manifest_key(content.region, content.release),
            manifest.encode(content),
            _Headers(JSON, IMMUTABLE),
            keys.surrogate_keys(content.region, content.release),
        )

    def manifest(self, region: str) -> Manifest | None:
        """What `region` shows now; None before its first release."""
        return self._manifest(keys.manifest_key(region))

    def manifest_of(self, region: str, release: str) -> Manifest | None:
        """The manifest kept for a release; None where it was never published whole."""
        return self._manifest(keys.kept_manifest_key(region, release))

    def _manifest(self, key: str) -> Manifest | None:
        body = self._get(key)
        try:
            return None if body is None else manifest.decode(body)
        except msgspec.MsgspecError as error:
            raise Damaged(f"{self._name(key)} is no manifest ({error}); publish the current release again") from error

    def verify(self, region: str, release: str, content: Manifest) -> None:
        """Read every file of the release back and compare checksums. Raises Damaged that names the first wrong key."""
        wanted = [(keys.shard_key(region, release, number), sha) for number, sha in enumerate(content.shards)]
        wanted.append((keys.search_key(region, release), content.search))
        self.check(wanted)

    def check(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Read files back, `key, checksum`. Raises Damaged that names the first one that is not what was written."""
        _each(lambda pair: self._check(*pair), wanted)

    def put_shop(self, config: Mapping[str, Any]) -> int:
        """Upload the storefront's own files and its `config.json`. Gives how many had changed."""
        files = [
            (path.relative_to(SHOP_FILES).as_posix(), path) for path in sorted(SHOP_FILES.rglob("*")) if path.is_file()
        ]
        changed: int = sum(
            _each(lambda file: self._put(keys.shop_key(file[0]), file[1].read_bytes(), _shop(file[1])), files)
        )
        body = msgspec.json.format(msgspec.json.encode(config), indent=2)
        return changed + self._put(keys.SHOP_CONFIG, body, _Headers(JSON, SHOP))

    def delete_release(self, region: str, release: str) -> int:
        """Remove all files of a release; gives how many. Refuses the release that the region's manifest names."""
        current = self.manifest(region)
        if not release or (current is not None and current.release == release):
            raise TandemError(f"release {release or '(none)'} is what {region} shows; point it to another one first")
        gone = 0
        for page in self._listed(keys.release_prefix(region, release)):
            with self._asking(keys.release_prefix(region, release)):
                self._client.delete_objects(
                    Bucket=self._where.bucket, Delete={"Objects": [{"Key": key} for key in page], "Quiet": True}
                )
            gone += len(page)
        return gone

    def releases(self, region: str) -> list[str]:
        """Releases of which anything lies in the bucket, sorted."""
        prefix = f"{region}/"
        found = {key.removeprefix(prefix).partition("/") for page in self._listed(prefix) for key in page}
        return sorted({release for release, slash, _ in found if slash})

    def _check(self, key: str, sha: str) -> None:
        body = self._get(key)
        if body is None:
            raise Damaged(f"{self._name(key)} is missing; publish the release again")
        try:
            found = shards.digest(body)
        except zlib.error as error:
            raise Damaged(f"{self._name(key)} is damaged ({error}); publish the release again") from error
        if found != sha:
            raise Damaged(f"{self._name(key)} has checksum {found[:12]}, not {sha[:12]}; publish the release again")

    def _put(self, key: str, body: bytes, headers: _Headers, surrogate_keys: str = "") -> bool:
        sha = hashlib.sha256(body).hexdigest()
        if self._has(key, len(body), sha, headers):
            return False
        encoding = {"ContentEncoding": headers.content_encoding} if headers.content_encoding else {}
        metadata = {"sha256": sha, **({"surrogate-key": surrogate_keys} if surrogate_keys else {})}
        with self._asking(key):
            self._client.put_object(
                Bucket=self._where.bucket,
                Key=key,
                Body=body,
                ContentType=headers.content_type,
                CacheControl=headers.cache_control,
                Metadata=metadata,
                **encoding,
            )
        return True

    def _has(self, key: str, size: int, sha: str, headers: _Headers) -> bool:
        with self._asking(key):
            try:
                found = self._client.head_object(Bucket=self._where.bucket, Key=key)
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return False
                raise
        there = _Headers(
            found.get("ContentType", ""), found.get("CacheControl", ""), found.get("ContentEncoding") or None
        )
        return (found["ContentLength"], found["Metadata"].get("sha256"), there) == (size, sha, headers)

    def _get(self, key: str) -> bytes | None:
        with self._asking(key):
            try:
                body: bytes = self._client.get_object(Bucket=self._where.bucket, Key=key)["Body"].read()
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
        return body

    def _listed(self, prefix: str) -> Iterator[list[str]]:
        """Keys below `prefix`, a page at a time."""
        with self._asking(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._where.bucket, Prefix=prefix
            ):
                if found := [item["Key"] for item in page.get("Contents", ())]:
                    yield found

    def _name(self, key: str) -> str:
        return f"{self._where.endpoint or 's3:/'}/{self._where.bucket}/{key}".rstrip("/")

    @contextmanager
    def _asking(self, key: str) -> Iterator[None]:
        """Turns botocore's errors into ours, which name the address and what to do."""
        try:
            yield
        except ClientError as error:
            code, ahead = _code(error), _ahead(error)
            if code in _REFUSED and abs(ahead) >= SKEW:
                raise TandemError(
                    f"{self._name(key)}: refused ({code}): this machine's clock is {abs(ahead)} "
                    f"{'ahead of' if ahead > timedelta(0) else 'behind'} the object store's; set it, then run it again"
                ) from error
            if code in _REFUSED:
                raise TandemError(
                    f"{self._name(key)}: the object store refuses these credentials ({code}); "
                    "set TANDEM_S3_ACCESS_KEY and TANDEM_S3_SECRET_KEY to an account that may write there"
                ) from error
            if code in _OVERLOADED:
                raise Unavailable(
                    f"{self._name(key)}: the object store cannot answer now ({code}); try again"
                ) from error
            raise TandemError(f"{self._name(key)}: the object store says {code}: {error}; see its log") from error
        except _UNREACHED as error:
            raise Unavailable(
                f"{self._name(key)} cannot be reached ({type(error).__name__}); start it and try again"
            ) from error
        except BotoCoreError as error:
            raise TandemError(f"{self._name(key)}: {error}; check object_store in regions.toml") from error


@cache
def _client(endpoint: str, access_key: str, secret_key: str, s3_region: str) -> Any:
    """boto3's client, which threads may share and which takes 20 ms to make."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint or None,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=s3_region,
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=PARALLEL,
            s3={"addressing_style": "path" if endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _each(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """`work` on all items, `PARALLEL` at a time, with the first error raised."""
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="cdn") as pool:
        try:
            return list(pool.map(work, items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _shop(path: Path) -> _Headers:
    kind = CONTENT_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return _Headers(kind, PICTURE if path.suffix == ".svg" else SHOP)


def _ahead(error: ClientError) -> timedelta:
    """How far this machine's clock was ahead of the store's, to the minute; none where the store does not say."""
    told = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if told is None:
        return timedelta(0)
    return timedelta(minutes=round((datetime.now(UTC) - parsedate_to_datetime(told)) / timedelta(minutes=1)))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))
