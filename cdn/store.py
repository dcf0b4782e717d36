"""The bucket behind the CDN: writes that cost nothing when nothing changed, and a check of all that was written."""

from __future__ import annotations

import mimetypes
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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

from cdn import files, keys, manifest
from cdn.files import Encoding, File
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
    encoding: Encoding = files.PLAIN


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

    def put_release(
        self,
        region: str,
        release: str,
        wanted: Mapping[str, File],
        there: Collection[str] | None = None,
    ) -> int:
        """Write many files of one release by key, in each encoding, in parallel; what was cut off goes on where it was.

        `there` is what `keys_of` gave before; without it, it is asked. What is not in it is written at once, the rest
        only where it has other content, length or headers. Gives how many objects were written.
        """
        there = self.keys_of(region, release) if there is None else there
        words = keys.surrogate_keys(region, release)

        def put(key: str, file: File, encoding: Encoding) -> bool:
            name = key + encoding.suffix
            return self._put(name, file, _Headers(JSON, IMMUTABLE, encoding), words, look=name in there)

        return sum(_each(put, ((*pair, encoding) for pair in wanted.items() for encoding in files.RELEASE)))

    def keys_of(self, region: str, release: str) -> frozenset[str]:
        """Keys that lie in the bucket of a release."""
        return frozenset(key for page in self._listed(keys.release_prefix(region, release)) for key in page)

    def put_manifest(self, region: str, content: Manifest) -> None:
        """Point `region` to a release. Call it after `verify`: from here on shoppers read that release."""
        if content.region != region:
            raise TandemError(f"the manifest is of region {content.region}, not {region}; publish it there")
        self._put(
            keys.manifest_key(region),
            File(manifest.encode(content)),
            _Headers(JSON, MANIFEST),
            keys.surrogate_keys(region),
        )

    def keep_manifest(self, content: Manifest) -> None:
        """Keep the manifest beside its release's files, so that a switch to that release is one write."""
        self._put(
            keys.kept_manifest_key(content.region, content.release),
            File(manifest.encode(content)),
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
        """Read files back, `key, checksum`, in each encoding. Raises Damaged that names the first wrong one."""
        _each(self._check, ((*pair, encoding) for pair in wanted for encoding in files.RELEASE))

    def put_shop(self, config: Mapping[str, Any]) -> int:
        """Upload the storefront's own files and its `config.json`. Gives how many had changed."""
        found = [(path.relative_to(SHOP_FILES).as_posix(), path) for path in sorted(SHOP_FILES.rglob("*"))]

        def put(name: str, path: Path) -> bool:
            return self._put(keys.shop_key(name), File(path.read_bytes()), _shop(path))

        changed: int = sum(_each(put, (pair for pair in found if pair[1].is_file())))
        body = msgspec.json.format(msgspec.json.encode(config), indent=2)
        return changed + self._put(keys.SHOP_CONFIG, File(body), _Headers(JSON, SHOP))

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

    def sizes(self, region: str) -> dict[str, tuple[int, int]]:
        """Release to the number of its files in the bucket, and their bytes."""
        prefix = f"{region}/"
        found: dict[str, tuple[int, int]] = {}
        for key, size in (item for page in self._listed(prefix) for item in page.items()):
            release, slash, _ = key.removeprefix(prefix).partition("/")
            if slash:
                files, held = found.get(release, (0, 0))
                found[release] = files + 1, held + size
        return found

    def _check(self, key: str, sha: str, encoding: Encoding) -> None:
        name = key + encoding.suffix
        body = self._get(name)
        if body is None:
            raise Damaged(f"{self._name(name)} is missing; publish the release again")
        try:
            found = files.sha256(encoding.unpack(body))
        except (zlib.error, OSError) as error:
            raise Damaged(f"{self._name(name)} is damaged ({error}); publish the release again") from error
        if found != sha:
            raise Damaged(f"{self._name(name)} has checksum {found[:12]}, not {sha[:12]}; publish the release again")

    def _put(self, key: str, file: File, headers: _Headers, surrogate_keys: str = "", *, look: bool = True) -> bool:
        """Write a file. With `look` not where it lies there already: False then."""
        if look and self._has(key, file.sha, headers):
            return False
        body = file.body(headers.encoding)
        encoding = {"ContentEncoding": headers.encoding.name} if headers.encoding.name else {}
        words = {"surrogate-key": surrogate_keys} if surrogate_keys else {}
        with self._asking(key):
            self._client.put_object(
                Bucket=self._where.bucket,
                Key=key,
                Body=body,
                ContentType=headers.content_type,
                CacheControl=headers.cache_control,
                Metadata={"sha256": file.sha, "bytes": str(len(body)), **words},
                **encoding,
            )
        return True

    def _has(self, key: str, sha: str, headers: _Headers) -> bool:
        with self._asking(key):
            try:
                found = self._client.head_object(Bucket=self._where.bucket, Key=key)
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return False
                raise
        told = found["Metadata"]
        there = (found.get("ContentType"), found.get("CacheControl"), found.get("ContentEncoding") or "")
        wanted = (headers.content_type, headers.cache_control, headers.encoding.name)
        whole = told.get("sha256") == sha and told.get("bytes") == str(found["ContentLength"])
        return whole and there == wanted

    def _get(self, key: str) -> bytes | None:
        with self._asking(key):
            try:
                body: bytes = self._client.get_object(Bucket=self._where.bucket, Key=key)["Body"].read()
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
        return body

    def _listed(self, prefix: str) -> Iterator[dict[str, int]]:
        """Keys below `prefix` and their bytes, a page at a time."""
        with self._asking(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._where.bucket, Prefix=prefix
            ):
                if found := {item["Key"]: item["Size"] for item in page.get("Contents", ())}:
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


def _each(work: Callable[..., Any], items: Iterable[tuple[Any, ...]]) -> list[Any]:
    """`work(*item)` for all items, `PARALLEL` at a time, with the first error raised."""
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="cdn") as pool:
        try:
            return list(pool.map(lambda item: work(*item), items))
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
