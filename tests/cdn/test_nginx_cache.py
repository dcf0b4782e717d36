"""The cache in front, as docs/cdn.md configures it: a real nginx before a real object store."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cdn import keys, shards
from cdn.store import ObjectStore
from deploy import services
from tests.cdn.small_release import RELEASE, release_files

pytestmark = pytest.mark.servers

DOCUMENT = Path(__file__).parents[2] / "docs" / "cdn.md"


class Answer(NamedTuple):
    body: bytes
    headers: Mapping[str, str]

    @property
    def cache(self) -> str:
        return self.headers["X-Cache"]


@pytest.fixture(scope="module")
def cache(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, object_store: Any) -> Iterator[str]:
    """The address of an nginx with the documented configuration; only its ports and folder are changed."""
    binary = require("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    (port,) = services.free_ports(1)
    (block,) = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    site = block.replace("/var/cache/nginx/tandem", str(folder / "cache")).replace(
        "listen 80;", f"listen 127.0.0.1:{port};"
    )
    site = site.replace("127.0.0.1:8333", object_store.store.endpoint.removeprefix("http://"))
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"user root; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;"
        f"events {{ worker_connections 512; }} http {{ access_log off; {temporary}\n{site}\n}}",
        encoding="utf-8",
    )
    command = [binary, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            _wait(address)
            yield address
        finally:
            server.terminate()


def _wait(address: str) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(address, timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def region(store: ObjectStore) -> str:
    """A region with a release."""
    name = f"n{uuid.uuid4().hex[:12]}"
    files, made = release_files(name, RELEASE)
    store.put_release(name, RELEASE, files)
    store.put_manifest(name, made)
    return name


def get(address: str, *, encoding: str = "gzip") -> Answer:
    asked = urllib.request.Request(address, headers={"Accept-Encoding": encoding})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return Answer(answer.read(), answer.headers)


def test_the_second_request_does_not_reach_the_bucket(cache: str, region: str) -> None:
    key = keys.shard_key(region, RELEASE, 0)
    assert get(f"{cache}/{key}").cache == "MISS"
    second = get(f"{cache}/{key}")
    assert second.cache == "HIT"
    assert second.body == release_files(region, RELEASE)[0][key]
    assert second.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert second.headers["Content-Encoding"] == "gzip"
    assert not [name for name in second.headers if name.lower().startswith("x-amz-meta")]


def test_who_takes_no_gzip_gets_plain_json(cache: str, region: str) -> None:
    key = keys.search_key(region, RELEASE)
    plain = get(f"{cache}/{key}", encoding="identity")
    assert "Content-Encoding" not in plain.headers
    assert plain.body == shards.uncompressed(release_files(region, RELEASE)[0][key])


def test_a_hundred_first_requests_at_once_reach_the_bucket_once(cache: str, region: str) -> None:
    address = f"{cache}/{keys.shard_key(region, RELEASE, 1)}"
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: get(address), range(100)))
    assert [answer.cache for answer in answers].count("MISS") == 1
    assert len({answer.body for answer in answers}) == 1


def test_nobody_writes_through_the_cache(cache: str, region: str) -> None:
    asked = urllib.request.Request(f"{cache}/{region}/current.json", data=b"{}", method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(asked, timeout=10)


def test_with_the_bucket_gone_what_was_read_once_is_still_answered(cache: str, region: str, object_store: Any) -> None:
    addresses = [f"{cache}/{key}" for key in (keys.manifest_key(region), keys.shard_key(region, RELEASE, 2))]
    before = [get(address).body for address in addresses]
    object_store.server.stop()
    try:
        time.sleep(10.5)  # the manifest's max-age is over
        after = [get(address) for address in addresses]
    finally:
        object_store.server.start()
    assert [answer.body for answer in after] == before
    assert after[0].cache in ("STALE", "UPDATING")
    assert after[1].cache == "HIT"
