"""The cache in front, as docs/cdn.md configures it: a real nginx before a real object store."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cdn import keys
from cdn.files import BROTLI, GZIP, PLAIN
from cdn.store import ObjectStore
from deploy import services
from tests.cdn.small_release import RELEASE, release_files

pytestmark = pytest.mark.servers

ENCODINGS = {"br": BROTLI, "gzip": GZIP, None: PLAIN}
DOCUMENT = Path(__file__).parents[2] / "docs" / "cdn.md"


class Answer(NamedTuple):
    body: bytes
    headers: Message

    @property
    def cache(self) -> str:
        return str(self.headers["X-Cache"])

    @property
    def varies(self) -> list[str]:
        return self.headers.get_all("Vary", [])


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
    assert second.body == release_files(region, RELEASE)[0][key].body(GZIP)
    assert second.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert second.headers["Content-Encoding"] == "gzip"
    assert not [name for name in second.headers if name.lower().startswith("x-amz-meta")]


def test_who_takes_brotli_gets_it_and_the_others_never_do(cache: str, region: str) -> None:
    for key in (keys.shard_key(region, RELEASE, 0), keys.search_key(region, RELEASE)):
        content = release_files(region, RELEASE)[0][key].content
        for _ in range(2):
            for asked, given in (
                ("gzip, deflate, br, zstd", "br"),
                ("br;q=0.9", None),
                ("br", "br"),
                ("gzip, br;q=0", "gzip"),
                ("gzip, deflate", "gzip"),
                ("brotli-like, gzip", "gzip"),
                ("identity", None),
            ):
                answer = get(f"{cache}/{key}", encoding=asked)
                assert answer.headers["Content-Encoding"] == given, asked
                assert "Accept-Encoding" in answer.varies
                assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
                assert answer.headers["Content-Type"] == "application/json"
                assert answer.headers["Surrogate-Key"] == f"tandem {region} {region}/{RELEASE}"
                assert ENCODINGS[given].unpack(answer.body) == content
        assert answer.cache == "HIT"


def test_the_manifest_and_the_shop_vary_and_live_shortly(cache: str, region: str, store: ObjectStore) -> None:
    store.put_shop({})
    for path, seconds in (
        (keys.manifest_key(region), 10),
        ("shop/index.html", 60),
        ("shop/symbols/grocery.svg", 86_400),
    ):
        for encoding in ("br, gzip", "identity"):
            answer = get(f"{cache}/{path}", encoding=encoding)
            assert answer.headers["Cache-Control"].startswith(f"public, max-age={seconds}, stale-while-revalidate=")
            assert "stale-if-error=" in answer.headers["Cache-Control"]
            assert "Accept-Encoding" in answer.varies
            assert answer.headers["Content-Encoding"] in (None, "gzip" if "gzip" in encoding else None)
    assert get(f"{cache}/{keys.manifest_key(region)}").headers["Surrogate-Key"] == f"tandem {region}"


def test_a_new_release_is_seen_when_the_manifests_seconds_are_over(cache: str, region: str, store: ObjectStore) -> None:
    address, newer = f"{cache}/{keys.manifest_key(region)}", "20170602-0123456789ab"
    before = get(address)
    store.put_manifest(region, release_files(region, newer)[1])
    assert get(address).body == before.body, "the cache answers without asking"
    time.sleep(10.5)
    first = get(address)
    assert first.cache in ("STALE", "UPDATING", "EXPIRED", "HIT")
    end = time.monotonic() + 10
    while json.loads(get(address, encoding="identity").body)["release"] != newer:
        assert time.monotonic() < end, "one request after the manifest's seconds is enough to fetch the new one"
        time.sleep(0.05)


def test_who_takes_no_gzip_gets_plain_json(cache: str, region: str) -> None:
    key = keys.search_key(region, RELEASE)
    plain = get(f"{cache}/{key}", encoding="identity")
    assert "Content-Encoding" not in plain.headers
    assert plain.body == release_files(region, RELEASE)[0][key].content


def test_a_hundred_first_requests_at_once_reach_the_bucket_once(cache: str, region: str) -> None:
    address = f"{cache}/{keys.shard_key(region, RELEASE, 1)}"
    for encoding in ("gzip", "br"):
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda _, encoding=encoding: get(address, encoding=encoding), range(100)))
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
