"""Against a real S3-compatible server."""

from __future__ import annotations

import uuid
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cdn import files as encodings
from cdn import keys, storefront
from cdn.files import BROTLI, GZIP, File
from cdn.store import Damaged, ObjectStore
from tandem.errors import TandemError, Unavailable
from tandem.regions import ObjectStore as Where
from tandem.settings import Settings
from tests.cdn.conftest import Get
from tests.cdn.small_release import RELEASE, release_files

pytestmark = pytest.mark.servers


@pytest.fixture
def region() -> str:
    """A region that no other test writes to."""
    return f"r{uuid.uuid4().hex[:12]}"


def raw(store: ObjectStore, key: str, body: bytes, encoding: str = "gzip") -> None:
    """Put `body` behind the store's back, headers and checksum of the old object kept as a broken disk would."""
    before = store._client.head_object(Bucket="tandem", Key=key)
    store._client.put_object(
        Bucket="tandem",
        Key=key,
        Body=body,
        Metadata=before["Metadata"],
        ContentType=before["ContentType"],
        CacheControl=before["CacheControl"],
        ContentEncoding=encoding,
    )


def test_anyone_gets_a_shard_as_it_was_written_in_gzip_and_in_brotli(store: ObjectStore, get: Get, region: str) -> None:
    files, _ = release_files(region, RELEASE)
    store.put_release(region, RELEASE, files)
    for key, file in files.items():
        for encoding, suffix in ((GZIP, ""), (BROTLI, ".br")):
            got, headers = get(f"{key}{suffix}")
            assert got == file.body(encoding)
            assert encoding.unpack(got) == file.content
            assert headers["Content-Type"] == "application/json"
            assert headers["Content-Encoding"] == encoding.name
            assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert headers["x-amz-meta-surrogate-key"] == f"tandem {region} {region}/{RELEASE}"


def test_a_release_that_is_made_anew_has_the_same_etags(store: ObjectStore, get: Get, region: str) -> None:
    def tags() -> dict[str, str]:
        files, made = release_files(region, RELEASE)
        store.put_release(region, RELEASE, files)
        store.keep_manifest(made)
        names = [*files, *(f"{key}.br" for key in files), keys.kept_manifest_key(region, RELEASE)]
        return {key: get(key)[1]["ETag"] for key in names}

    before = tags()
    assert store.delete_release(region, RELEASE) == len(before) == 9
    assert tags() == before


def test_the_manifest_is_short_lived_and_comes_back(store: ObjectStore, get: Get, region: str) -> None:
    _, made = release_files(region, RELEASE)
    assert store.manifest(region) is None
    store.put_manifest(region, made)
    assert store.manifest(region) == made
    _, headers = get(keys.manifest_key(region))
    assert headers["Cache-Control"] == "public, max-age=10, stale-while-revalidate=60, stale-if-error=86400"
    assert headers["Content-Type"] == "application/json"


def test_a_manifest_of_another_region_is_refused(store: ObjectStore, region: str) -> None:
    _, made = release_files("elsewhere", RELEASE)
    with pytest.raises(TandemError, match="is of region elsewhere"):
        store.put_manifest(region, made)


def test_the_same_bytes_are_not_uploaded_twice(store: ObjectStore, get: Get, region: str) -> None:
    files, _ = release_files(region, RELEASE)
    assert store.put_release(region, RELEASE, files) == 8
    written = {key: get(key)[1]["Last-Modified"] for key in files}
    assert store.put_release(region, RELEASE, files) == 0
    assert {key: get(key)[1]["Last-Modified"] for key in files} == written


def test_what_lies_there_is_not_compressed_again(
    store: ObjectStore, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pack(content: bytes) -> bytes:
        packed.append(content)
        return content

    packed: list[bytes] = []
    store.put_release(region, RELEASE, release_files(region, RELEASE)[0])
    monkeypatch.setattr(encodings, "RELEASE", (GZIP._replace(pack=pack), BROTLI._replace(pack=pack)))
    changed = File(b'{"products": []}')
    files = release_files(region, RELEASE)[0] | {keys.search_key(region, RELEASE): changed}
    assert store.put_release(region, RELEASE, files) == 2
    assert packed == [changed.content] * 2


def test_a_release_that_was_half_uploaded_is_completed(store: ObjectStore, region: str) -> None:
    files, made = release_files(region, RELEASE)
    first = dict(list(files.items())[:2])
    assert store.put_release(region, RELEASE, first) == 4
    with pytest.raises(Damaged, match="is missing"):
        store.verify(region, RELEASE, made)
    assert store.put_release(region, RELEASE, files) == 4
    store.verify(region, RELEASE, made)


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_verify_names_an_object_that_was_cut_short_and_a_rerun_mends_it(
    store: ObjectStore, get: Get, region: str, encoding: str
) -> None:
    files, made = release_files(region, RELEASE)
    store.put_release(region, RELEASE, files)
    store.verify(region, RELEASE, made)
    key = keys.shard_key(region, RELEASE, 1) + {"gzip": "", "br": ".br"}[encoding]
    raw(store, key, get(key)[0][:-9], encoding)
    with pytest.raises(Damaged, match=f"{key} (is damaged|has checksum)"):
        store.verify(region, RELEASE, made)
    assert store.put_release(region, RELEASE, files) == 1
    store.verify(region, RELEASE, made)


def test_verify_names_an_object_with_other_content(store: ObjectStore, region: str) -> None:
    files, made = release_files(region, RELEASE)
    store.put_release(region, RELEASE, files)
    key = keys.search_key(region, RELEASE)
    raw(store, key, GZIP.pack(b'{"products": []}'))
    with pytest.raises(Damaged, match=f"{key} has checksum"):
        store.verify(region, RELEASE, made)


def test_a_manifest_that_cannot_be_read_is_an_error_and_not_an_absent_one(store: ObjectStore, region: str) -> None:
    _, made = release_files(region, RELEASE)
    store.put_manifest(region, made)
    raw(store, keys.manifest_key(region), b'{"region": 1}', "")
    with pytest.raises(Damaged, match="is no manifest"):
        store.manifest(region)


def test_the_manifest_kept_beside_a_release_is_what_a_rollback_shows_again(store: ObjectStore, region: str) -> None:
    _, old = release_files(region, RELEASE)
    assert store.manifest_of(region, RELEASE) is None
    store.keep_manifest(old)
    assert store.manifest(region) is None, "keeping shows it to nobody"
    assert store.manifest_of(region, RELEASE) == old
    raw(store, keys.kept_manifest_key(region, RELEASE), b"cut", "")
    with pytest.raises(Damaged, match=f"{RELEASE}/manifest.json is no manifest"):
        store.manifest_of(region, RELEASE)


def test_a_release_is_deleted_whole_and_never_the_one_that_is_shown(store: ObjectStore, region: str) -> None:
    old, new = "20170531-000000000000", RELEASE
    for release in (old, new):
        store.put_release(region, release, release_files(region, release)[0])
    store.put_manifest(region, release_files(region, new)[1])
    assert sorted(store.sizes(region)) == [old, new]
    with pytest.raises(TandemError, match=f"{new} is what {region} shows"):
        store.delete_release(region, new)
    with pytest.raises(TandemError, match="none"):
        store.delete_release(region, "")
    assert store.delete_release(region, old) == 8
    assert store.delete_release(region, old) == 0
    assert sorted(store.sizes(region)) == [new]
    store.verify(region, new, release_files(region, new)[1])


def test_the_shop_is_uploaded_with_types_that_a_browser_takes(store: ObjectStore, get: Get) -> None:
    config = {"regions": [{"name": uuid.uuid4().hex, "title": "East", "currency": "USD", "edge": "http://127.0.0.1:1"}]}
    assert store.put_shop(config) >= 1
    assert store.put_shop(config) == 0

    def kind(path: str) -> Message:
        return get(f"shop/{path}")[1]

    assert kind("index.html")["Content-Type"] == "text/html; charset=utf-8"
    assert kind("index.html")["Cache-Control"].startswith("public, max-age=60,")
    assert kind("shop.css")["Content-Type"] == "text/css; charset=utf-8"
    assert kind("main.js")["Content-Type"] == "text/javascript; charset=utf-8"
    assert kind("symbols/grocery.svg")["Content-Type"] == "image/svg+xml"
    assert msgspec.json.decode(get("shop/config.json")[0]) == config


def test_the_storefront_is_put_where_the_regions_are(object_store: Any, get: Get, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    one = object_store.store
    regions = "".join(
        f'[[region]]\nname = "{name}"\ncurrency = "USD"\ntime_zone = "UTC"\nredis_url = "redis://127.0.0.1:1/0"\n'
        f'edge_url = "{edge}"\n'
        f'[region.object_store]\nendpoint = "{where.endpoint}"\nbucket = "tandem"\npublic_url = "{where.public_url}"\n'
        for name, edge, where in (("north", "", one), ("south", "https://edge.example.net/", one))
    )
    (tmp_path / "config" / "regions.toml").write_text(regions, encoding="utf-8")
    settings = Settings(home=tmp_path, s3_secret_key=object_store.secret_key, edge_host="0.0.0.0", edge_port=8123)
    said: list[str] = []
    storefront.upload(settings, said.append)
    assert len(said) == 1, "two regions, one bucket"
    config = msgspec.json.decode(get("shop/config.json")[0])
    assert [(region["name"], region["edge"]) for region in config["regions"]] == [
        ("north", "http://127.0.0.1:8123"),
        ("south", "https://edge.example.net"),
    ]
    assert config["segments"][-1] == {"name": "everyone", "title": "Everyone else"}
    storefront.upload(settings, said.append)
    assert said[1].endswith("(0 files changed)")


def test_a_bucket_is_made_once(object_store: Any) -> None:
    where = msgspec.structs.replace(object_store.store, bucket=f"b{uuid.uuid4().hex[:12]}")
    fresh = ObjectStore(where, object_store.access_key, object_store.secret_key, "us-east-1")
    fresh.ensure_bucket()
    fresh.ensure_bucket()
    assert fresh.manifest("east") is None


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_credentials_say_which_settings_to_mend(object_store: Any, wrong: str) -> None:
    given = replace(object_store, **{wrong: "not-the-right-one"})
    store = ObjectStore(given.store, given.access_key, given.secret_key, "us-east-1")
    with pytest.raises(TandemError, match="TANDEM_S3_ACCESS_KEY"):
        store.put_release("x", "y", {"x/y/0.json": File(b"{}")})


def test_an_address_where_nothing_listens_is_unavailable_and_named() -> None:
    where = Where(endpoint="http://127.0.0.1:9", bucket="tandem", public_url="")
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9/tandem/east/current\.json cannot be reached"):
        ObjectStore(where, "key", "secret", "us-east-1").manifest("east")


def test_a_server_that_stops_is_unavailable_and_holds_everything_when_it_is_back(tmp_path: Path) -> None:
    from deploy import services

    held = Settings(home=tmp_path)
    (port,) = services.free_ports(1)
    server = services.object_store(held, port, ["tandem"])
    address = f"http://127.0.0.1:{port}"
    where = Where(endpoint=address, bucket="tandem", public_url=f"{address}/tandem")
    store = ObjectStore(where, held.s3_access_key, held.s3_secret, "us-east-1")
    files, made = release_files("east", RELEASE)
    server.start()
    try:
        store.ensure_bucket()
        store.put_release("east", RELEASE, files)
        server.stop()
        with pytest.raises(Unavailable, match="cannot be reached"):
            store.verify("east", RELEASE, made)
        with pytest.raises(Unavailable, match="cannot be reached"):
            store.put_manifest("east", made)
        server.start()
        store.put_manifest("east", made)
        store.verify("east", RELEASE, made)
    finally:
        server.stop()
