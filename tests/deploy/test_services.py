"""The embedded servers, started for real on free ports."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest
import redis
from botocore.config import Config
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy import processes, services
from tandem.errors import TandemError
from tandem.regions import ObjectStore, Region, Regions
from tandem.settings import Settings

pytestmark = pytest.mark.servers


def _regions(redis_ports: list[int], store_port: int) -> Regions:
    address = f"http://127.0.0.1:{store_port}"
    store = ObjectStore(endpoint=address, bucket="tandem", public_url=f"{address}/tandem")
    return Regions(
        [
            Region(
                name=f"r{number}",
                currency="EUR",
                time_zone="UTC",
                redis_url=f"redis://127.0.0.1:{port}/0",
                object_store=store,
            )
            for number, port in enumerate(redis_ports)
        ]
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), postgres_port=services.free_ports(1)[0])


@pytest.fixture(scope="module")
def regions(home: Settings) -> Iterator[Regions]:
    *redis_ports, store_port = services.free_ports(3)
    found = _regions(redis_ports, store_port)
    yield found
    services.stop(services.servers(home, found), print)


@pytest.fixture
def running(home: Settings, regions: Regions) -> list[services.Server]:
    services.start(home, regions, print)
    return services.servers(home, regions)


def _client(home: Settings, regions: Regions) -> object:
    return boto3.client(
        "s3",
        endpoint_url=regions.region[0].object_store.endpoint,
        aws_access_key_id=home.s3_access_key,
        aws_secret_access_key=home.s3_secret,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 10}),
    )


def test_one_redis_per_region_and_one_object_store_answer(running: list[services.Server], regions: Regions) -> None:
    assert [server.name for server in running[:2]] == ["redis-r0", "redis-r1"]
    assert running[2].name.startswith("objects-")
    assert running[3].name == "postgres"
    assert all(server.healthy() for server in running)
    for region in regions.region:
        with redis.Redis.from_url(region.redis_url) as client:
            assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_a_second_start_reuses_what_runs(running: list[services.Server], home: Settings, regions: Regions) -> None:
    before = [server.pid for server in running]
    lines: list[str] = []
    assert services.start(home, regions, lines.append) == []
    assert [server.pid for server in running] == before
    assert all("runs on port" in line for line in lines)


def test_anyone_reads_the_bucket_and_only_the_key_writes_or_lists(
    running: list[services.Server], home: Settings, regions: Regions
) -> None:
    public = regions.region[0].object_store.public_url
    _client(home, regions).put_object(Bucket="tandem", Key="open.txt", Body=b"read me")  # type: ignore[attr-defined]
    answer = httpx.get(f"{public}/open.txt", headers={"Origin": "http://shop.example"})
    assert (answer.status_code, answer.text) == (200, "read me")
    assert answer.headers["access-control-allow-origin"] in {"*", "http://shop.example"}
    assert httpx.put(f"{public}/open.txt", content=b"mine").status_code == 403
    assert httpx.get(f"{public}?list-type=2").status_code == 403


def test_a_killed_server_is_started_again_with_what_it_had_acknowledged(
    running: list[services.Server], home: Settings, regions: Regions
) -> None:
    url, public = regions.region[0].redis_url, regions.region[0].object_store.public_url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    _client(home, regions).put_object(Bucket="tandem", Key="kept.txt", Body=b"yes")  # type: ignore[attr-defined]
    time.sleep(1.1)  # appendfsync everysec
    killed = [running[0], running[2]]
    others = running[1].pid
    for server in killed:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
    assert {server.name for server in services.start(home, regions, print)} == {server.name for server in killed}
    assert running[1].pid == others
    with redis.Redis.from_url(url, decode_responses=True) as client:
        assert client.get("kept") == "yes"
    assert httpx.get(f"{public}/kept.txt").text == "yes"


def test_a_stopped_server_keeps_its_data_and_leaves_no_process(home: Settings, regions: Regions) -> None:
    url, public = regions.region[1].redis_url, regions.region[0].object_store.public_url
    services.start(home, regions, print)
    found = services.servers(home, regions)
    groups = [server.pid for server in found]
    with redis.Redis.from_url(url) as client:
        client.set("stayed", "yes")
    _client(home, regions).put_object(Bucket="tandem", Key="stayed.txt", Body=b"yes")  # type: ignore[attr-defined]
    services.stop(found, print)
    assert [processes.members(group) for group in groups if group] == [[]] * 4
    assert not any(server.healthy() for server in found)
    services.start(home, regions, print)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        assert client.get("stayed") == "yes"
    assert httpx.get(f"{public}/stayed.txt").text == "yes"


def test_a_taken_port_is_a_clear_error_and_what_was_started_before_it_is_stopped(tmp_path: Path) -> None:
    free, taken, store = services.free_ports(3)
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        other.listen()
        with pytest.raises(services.PortTaken, match=rf"redis-r1: port {taken} .* is taken by another program"):
            services.start(Settings(home=tmp_path), _regions([free, taken], store), print)
    assert not any(server.pid for server in services.servers(Settings(home=tmp_path), _regions([free, taken], store)))


def test_a_server_that_ends_at_once_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    (port,) = services.free_ports(1)
    (tmp_path / "redis" / "east").mkdir(parents=True)
    (tmp_path / "redis" / "east" / "appendonly.aof").write_bytes(b"not a log of Redis\n" * 99)
    server = services.redis_server(Settings(home=tmp_path), "east", f"redis://127.0.0.1:{port}/0")
    with pytest.raises(processes.Failed, match=r"(?s)redis-east ended with code 1; the end of .*Bad file format"):
        server.start()


def test_a_password_in_the_address_is_asked_for(tmp_path: Path) -> None:
    (port,) = services.free_ports(1)
    server = services.redis_server(Settings(home=tmp_path), "east", f"redis://:s3cr3t@127.0.0.1:{port}/0")
    server.start()
    try:
        with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        with redis.Redis(port=port, password="s3cr3t") as client:
            assert client.ping()
    finally:
        server.stop()


def test_secrets_can_be_read_by_their_owner_only(running: list[services.Server], home: Settings) -> None:
    for path in [*(home.home / "secrets").iterdir(), *(home.home / "redis").glob("*/redis.conf")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for server in running:
        assert home.s3_secret not in Path(f"/proc/{server.pid}/cmdline").read_text(encoding="utf-8")


def test_a_process_number_that_another_program_got_is_not_taken_for_the_server(tmp_path: Path) -> None:
    (port,) = services.free_ports(1)
    server = services.redis_server(Settings(home=tmp_path), "east", f"redis://127.0.0.1:{port}/0")
    server.state.parent.mkdir(parents=True)
    server.state.write_text(json.dumps({"pid": os.getpid(), "started_at": 1}), encoding="ascii")
    assert server.pid is None
    assert not server.stop()


def test_the_command_line_starts_shows_and_stops(tmp_path: Path) -> None:
    first, second, store, postgres = services.free_ports(4)
    _write_regions(tmp_path / "config", [first, second], store)

    def run(what: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TANDEM_HOME": str(tmp_path), "TANDEM_POSTGRES_PORT": str(postgres)}
        command = [sys.executable, "-m", "deploy.services", what]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    try:
        assert run("start").stdout.count("started on port") == 4
        assert run("status").stdout.count(" runs") == 4
    finally:
        assert run("stop").stdout.count("stopped") == 4
    assert run("status").stdout.count("is stopped") == 4
    assert run("restart").returncode == 2


def test_a_wrong_configuration_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "regions.toml").write_text("[[region]]\nname = 1\n", encoding="ascii")
    with pytest.raises(TandemError, match=r"regions\.toml: key region"):
        services.regions_file.load(Settings(home=tmp_path).config_folder)


def _write_regions(folder: Path, redis_ports: list[int], store_port: int) -> None:
    folder.mkdir()
    text = "".join(
        f'[[region]]\nname = "r{number}"\ncurrency = "EUR"\ntime_zone = "UTC"\nredis_url = "redis://127.0.0.1:{port}/0"\n'
        f'[region.object_store]\nendpoint = "http://127.0.0.1:{store_port}"\nbucket = "tandem"\n'
        f'public_url = "http://127.0.0.1:{store_port}/tandem"\n'
        for number, port in enumerate(redis_ports)
    )
    (folder / "regions.toml").write_text(text, encoding="ascii")
