"""Real servers, one Spark session and the order of a run: what is fast and needs nothing comes first."""

from __future__ import annotations

import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy import services
from tandem.regions import ObjectStore
from tandem.settings import Settings

ORDER = ("servers", "spark", "airflow", "browser", "e2e")
RUN = "PYTEST_TANDEM_RUN"
"""An environment variable that every process started by this run carries."""


ENDING_SECONDS = 5.0
"""How long what ends with the run may take to end."""
WORKER = "PYTEST_XDIST_WORKER"
"""Set where this process is one of several that share a run (`make test` has three)."""


def pytest_configure() -> None:
    """A run depends on no setting of whoever started it."""
    for name in [name for name in os.environ if name.startswith("TANDEM_")]:
        del os.environ[name]
    if WORKER not in os.environ:
        os.environ[RUN] = uuid.uuid4().hex


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unmarked tests first, then as in `ORDER`, by the latest of a test's markers.

    Where several processes share the run, LONGEST follow the unmarked ones, and what needs servers alone comes last:
    it is short, so that none has to wait for another at the end.
    """
    items.sort(key=_rank_shared if WORKER in os.environ else _rank)


def _rank(item: pytest.Item) -> int:
    return max((ORDER.index(mark.name) + 1 for mark in item.iter_markers() if mark.name in ORDER), default=0)


def _rank_shared(item: pytest.Item) -> float:
    if item.path.stem in LONGEST:
        return (1 + LONGEST.index(item.path.stem)) / (1 + len(LONGEST))
    rank = _rank(item)
    return len(ORDER) + 1 if rank == ORDER.index("servers") + 1 else rank


LONGEST = ("test_demo", "test_killed_build", "test_lake_on_s3", "test_cluster")
"""Files that take minutes. First those that do not need the small shop built, or not at once."""
SHARED = ("spark_jobs", "streams")
"""Folders whose tests share a server that takes long to start, or much memory."""
OWN_SPARK = ("test_cluster", "test_killed_build", "test_lake_on_s3", "test_session")
"""Files of tests/spark_jobs whose Spark is a process of its own."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes share the run, each file goes to one, and all of one Spark or Kafka to the same one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.partition("::")[0])
            shared = file.parent.name in SHARED and file.stem not in OWN_SPARK
            return file.parent.name if shared else str(file)

    return ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what a test left running, and say so."""
    if WORKER in os.environ:
        return
    end = time.monotonic() + ENDING_SECONDS
    while any(_leftovers()) and time.monotonic() < end:
        time.sleep(0.1)
    for pid, command in _leftovers():
        print(f"\nleft running by a test, ended now: {pid} {command}")
        os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class RedisServer:
    """A real Redis that a test may stop and start."""

    server: services.Server
    url: str

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()


@dataclass(frozen=True)
class RunningStore:
    """A real S3-compatible server and the key that may do everything; anyone may read the bucket."""

    server: services.Server
    store: ObjectStore
    access_key: str
    secret_key: str


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home of their own and all tables made, empty."""
    from warehouse import lake

    found = Settings(home=tmp_path / "home")
    lake.create(found)
    return found


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """The path of a binary that `make system-deps` installs. Without it a test is skipped; with CI set it fails."""

    def find(binary: str) -> str:
        if found := shutil.which(binary):
            return found
        message = f"{binary} is not installed: make system-deps"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)

    return find


@pytest.fixture(scope="session")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def redis_server(server_home: Path) -> Iterator[RedisServer]:
    """A real Redis on a free port; most tests want `redis_url`."""
    (port,) = services.free_ports(1)
    url = f"redis://127.0.0.1:{port}/0"
    found = RedisServer(services.redis_server(Settings(home=server_home), "test", url), url)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of a real, empty Redis."""
    import redis

    redis_server.start()
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def object_store(server_home: Path) -> Iterator[RunningStore]:
    """A real S3-compatible server on a free port, with the bucket `tandem`."""
    (port,) = services.free_ports(1)
    held = Settings(home=server_home)
    server = services.object_store(held, port, ["tandem"])
    server.start()
    address = f"http://127.0.0.1:{port}"
    store = ObjectStore(endpoint=address, bucket="tandem", public_url=f"{address}/tandem")
    yield RunningStore(server, store, held.s3_access_key, held.s3_secret)
    server.stop()


@dataclass(frozen=True)
class RunningKafka:
    """A real broker that a test may stop, kill and start."""

    server: services.Server
    settings: Settings
    """With its address."""


@pytest.fixture(scope="session")
def running_kafka(server_home: Path) -> Iterator[RunningKafka]:
    """The one broker of the run; most tests want `kafka`."""
    from deploy import kafka

    (port,) = services.free_ports(1)
    held = Settings(home=server_home, kafka=f"127.0.0.1:{port}")
    kafka.fetch(held, print)
    (server,) = kafka.brokers(held)
    server.start()
    yield RunningKafka(server, held)
    server.stop()


@pytest.fixture
def kafka(running_kafka: RunningKafka, tmp_path: Path) -> Settings:
    """Settings with a home and with topics of this test's own, on the broker of the run."""
    import msgspec

    from streams import broker

    running_kafka.server.start()
    found = msgspec.structs.replace(running_kafka.settings, home=tmp_path / "home", topic_prefix=f"{uuid.uuid4().hex}-")
    broker.make_topics(found, print)
    return found


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The one Spark session of the run."""
    from spark_jobs import session

    held = session.with_streams(Settings(home=tmp_path_factory.mktemp("spark")))
    session.fetch(held)
    found = session.create(held, "tests")
    yield found
    found.stop()


def _leftovers() -> Iterator[tuple[int, str]]:
    """Living processes of this run, other than itself and the JVM of its Spark session, which ends with it."""
    mark = f"{RUN}={os.environ[RUN]}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if mark not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if command and not (parent == os.getpid() and "org.apache.spark.deploy.SparkSubmit" in command):
            yield int(folder.name), command[:200]
