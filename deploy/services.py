"""The embedded servers: a Redis per region, an object store (S3) and PostgreSQL, on loopback, all data in one folder.

`python -m deploy.services start|stop|status`. Only what `regions.toml` puts on loopback is started here: a region whose
Redis or object store lies elsewhere is somebody else's to run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import sysconfig
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy import processes
from tandem import regions as regions_file
from tandem import settings as settings_file
from tandem.errors import ConfigError, TandemError
from tandem.regions import Regions
from tandem.settings import Settings

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
READY_SECONDS = 60.0
VOLUME_MEGABYTES = 256
STORE_GRACE_SECONDS = 1.0
"""SeaweedFS waits 15 s for its own connections when it ends; what it acknowledged is in the files by then."""

SPARK_TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"  # noqa: S105 - a variable's name
"""Where Spark Connect's own client and server look for the secret that they share."""

Say = Callable[[str], object]


class PortTaken(TandemError):
    """Another program listens where an embedded server belongs."""


@dataclass(frozen=True)
class Server:
    """One embedded server."""

    name: str
    port: int
    """0: it listens nowhere."""
    state: Path
    """Its file in `$TANDEM_HOME/run`: process, start time."""
    command: Callable[[], list[str]]
    """Writes its configuration and gives its command line."""
    ping: Callable[[], bool]
    """True once it answers as it should."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    grace_seconds: float = processes.GRACE_SECONDS
    ending: signal.Signals = signal.SIGTERM
    """What asks it to end."""
    mend: str = "give another port in regions.toml"
    """What else to do where its port is taken."""

    @property
    def log(self) -> Path:
        return self.state.with_suffix(".log")

    @property
    def pid(self) -> int | None:
        """The process that an earlier start left here, if it lives."""
        try:
            held = json.loads(self.state.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        alive = processes.started_at(held["pid"]) == held["started_at"]
        return int(held["pid"]) if alive else None

    @property
    def where(self) -> str:
        """For a sentence: its port; nothing where it listens nowhere."""
        return f" on port {self.port}" if self.port else ""

    def healthy(self) -> bool:
        return self.pid is not None and self.ping()

    def start(self) -> bool:
        """Start it where it does not run. True if this call did. Raises PortTaken or Failed."""
        if (pid := self.pid) is not None:
            if _within(READY_SECONDS, lambda: self.ping() or self.pid is None) and self.pid is not None:
                return False
            processes.stop(pid, self.grace_seconds, self.ending)
        if listens(self.port):
            raise PortTaken(
                f"{self.name}: port {self.port} on 127.0.0.1 is taken by another program; stop that one, or {self.mend}"
            )
        self._launch()
        return True

    def stop(self) -> bool:
        """End it with all its children. True if it ran."""
        pid = self.pid
        if pid is not None:
            processes.stop(pid, self.grace_seconds, self.ending)
        self.state.unlink(missing_ok=True)
        return pid is not None

    def _launch(self) -> None:
        pid = processes.start(self.command(), self.log, self.environment)
        try:
            held = {"pid": pid, "started_at": processes.started_at(pid)}
            self.state.write_text(json.dumps(held), encoding="ascii")
            processes.wait_until(self.ping, pid, self.log, self.name, READY_SECONDS)
        except BaseException:
            self.stop()
            raise


def servers(settings: Settings, regions: Regions) -> list[Server]:
    """What `regions` puts on loopback: Redis servers by region, then object stores; and the orders' PostgreSQL."""
    from deploy import postgres  # which is made of what stands here

    found: dict[int, Server] = {}
    for region in regions.region:
        for url in (region.redis_url, region.redis_replica_url):
            if (port := _loopback_port(url, "redis", 6379)) is not None:
                found.setdefault(port, redis_server(settings, region.name, url))
    for region in regions.region:
        if (port := _loopback_port(region.object_store.endpoint, "http", 80)) is not None:
            buckets = {other.object_store.bucket for other in regions.region if _same_store(other, region)}
            found.setdefault(port, object_store(settings, port, sorted(buckets)))
    own = [] if settings.orders else [postgres.postgres_server(settings)]
    return [*found.values(), *own]


def start(settings: Settings, regions: Regions, say: Say) -> list[Server]:
    """Start what does not run yet of what `regions` puts on loopback; see `start_all`."""
    return start_all(settings, servers(settings, regions), say)


def start_all(settings: Settings, wanted: list[Server], say: Say) -> list[Server]:
    """Start those that do not run yet and wait until they answer; gives back what this call started.

    Where one cannot be started, or on Ctrl-C, those that this call started are stopped again.
    """
    started: list[Server] = []
    with only_one(settings):
        try:
            for server in wanted:
                before = time.monotonic()
                if server.start():
                    started.append(server)
                    say(f"{server.name}: started{server.where} ({time.monotonic() - before:.1f} s)")
                else:
                    say(f"{server.name}: runs{server.where}")
        except BaseException:
            stop(started, say)
            raise
    return started


def stop(started: list[Server], say: Say) -> None:
    """Stop these servers, the last started first."""
    for server in reversed(started):
        if server.stop():
            say(f"{server.name}: stopped")


def redis_server(settings: Settings, name: str, url: str) -> Server:
    """A Redis at `url` that keeps every write in `$TANDEM_HOME/redis/NAME`."""
    parsed = urllib.parse.urlsplit(url)
    port, password = parsed.port or 6379, urllib.parse.unquote(parsed.password or "")
    folder = settings.home.absolute() / "redis" / name

    def command() -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f'dir "{folder}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            *([f'requirepass "{password}"'] if password else []),
        ]
        write_private(folder / "redis.conf", "\n".join(lines) + "\n")
        return [binary("redis-server"), str(folder / "redis.conf")]

    return Server(
        f"redis-{name}", port, run_folder(settings) / f"redis-{name}.json", command, lambda: _pong(port, password)
    )


def object_store(settings: Settings, port: int, buckets: list[str]) -> Server:
    """An S3-compatible server at `port` with its data in `$TANDEM_HOME/objects`; anyone may read `buckets`.

    The key of the settings may do everything; a bucket is made when the first object is put into it.
    """
    folder = settings.home.absolute() / "objects" / str(port)
    free = folder / "ports.json"

    def command() -> list[str]:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        identities = settings.home.absolute() / "secrets" / f"s3-identities-{port}.json"
        write_private(identities, json.dumps(_identities(settings, buckets)))
        ports = keep_ports(free, 7)
        return [binary("weed"), *_weed(folder, identities, port, ports)]

    def ping() -> bool:
        return free.is_file() and _store_answers(port, json.loads(free.read_text(encoding="ascii"))[0])

    state = run_folder(settings) / f"objects-{port}.json"
    return Server(f"objects-{port}", port, state, command, ping, grace_seconds=STORE_GRACE_SECONDS)


def spark(settings: Settings) -> Server:
    """A Spark that outlives a job, for jobs that find it by TANDEM_SPARK_CONNECT and know SPARK_TOKEN."""
    folder = run_folder(settings) / "spark"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "port.json"
    (port,) = keep_ports(file, 1)
    return Server(
        "spark",
        port,
        run_folder(settings) / "spark.json",
        lambda: [sys.executable, "-m", "spark_jobs.session", "--serve", str(port)],
        lambda: listens(port),
        environment=os.environ | {"TANDEM_HOME": str(settings.home.absolute())},
        mend=f"remove {file}",
    )


def _weed(folder: Path, identities: Path, port: int, ports: list[int]) -> Iterator[str]:
    """One process with all roles of SeaweedFS, every port on loopback, nothing told to anyone."""
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": ports[0],
        "master.port.grpc": ports[1],
        "master.electionTimeout": "1s",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": VOLUME_MEGABYTES,
        "volume.port": ports[2],
        "volume.port.grpc": ports[3],
        "volume.max": 200,
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.port": ports[4],
        "filer.port.grpc": ports[5],
        "filer.localSocket": f"/tmp/tandem-filer-{ports[4]}.sock",  # noqa: S108 - a socket's path has 108 bytes at most
        "s3": "true",
        "s3.port": port,
        "s3.port.grpc": ports[6],
        "s3.localSocket": f"/tmp/tandem-s3-{port}.sock",  # noqa: S108
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.iam": "false",
        "s3.config": identities,
    }
    yield from (f"-logdir={folder}", "server")
    yield from (f"-{name}={value}" for name, value in options.items())


def _identities(settings: Settings, buckets: list[str]) -> dict[str, object]:
    key = {"accessKey": settings.s3_access_key, "secretKey": settings.s3_secret}
    admin = {"name": "tandem", "credentials": [key], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    return {"identities": [admin, {"name": "anonymous", "actions": [f"Read:{bucket}" for bucket in buckets]}]}


def _store_answers(port: int, master: int) -> bool:
    """The S3 gateway is up, and a volume server with room has reported to the master."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
            pass
        with urllib.request.urlopen(f"http://127.0.0.1:{master}/dir/status", timeout=2) as answer:
            return bool(json.load(answer)["Topology"]["Max"])
    except (OSError, ValueError, KeyError):
        return False


def _pong(port: int, password: str) -> bool:
    request = (f"AUTH {password}\r\n" if password else "") + "PING\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(request.encode())
            answer = b""
            while answer.count(b"\r\n") < request.count("\r\n") and (part := connection.recv(256)):
                answer += part
    except OSError:
        return False
    return answer.endswith(b"+PONG\r\n")


def binary(name: str) -> str:
    """A server's binary: of this environment, or else of the system."""
    own = Path(sysconfig.get_path("scripts")) / name
    if own.is_file():
        return str(own)
    if found := shutil.which(name):
        return found
    raise ConfigError(f"{name} is not installed in {own.parent}; `make` installs it from requirements.lock")


def _loopback_port(url: str, scheme: str, default: int) -> int | None:
    """The port of `url` if it is ours to serve, else None."""
    parsed = urllib.parse.urlsplit(url)
    return (parsed.port or default) if parsed.scheme == scheme and parsed.hostname in LOOPBACK else None


def _same_store(one: regions_file.Region, other: regions_file.Region) -> bool:
    return one.object_store.endpoint == other.object_store.endpoint


def listens(port: int) -> bool:
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def keep_ports(file: Path, count: int) -> list[int]:
    """The ports written in `file` if they are still free, else new ones, written there."""
    if file.is_file():
        held: list[int] = json.loads(file.read_text(encoding="ascii"))
        if len(held) == count and not any(listens(port) for port in held):
            return held
    file.write_text(json.dumps(ports := free_ports(count)), encoding="ascii")
    return ports


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not (now := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return now


def write_private(path: Path, text: str) -> None:
    """A file that its owner alone reads."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def run_folder(settings: Settings) -> Path:
    """Where process numbers and logs of what runs lie."""
    return settings.home.absolute() / "run"


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Two starts at once wait for each other."""
    run_folder(settings).mkdir(parents=True, exist_ok=True)
    with (run_folder(settings) / "lock").open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    if arguments not in (["start"], ["stop"], ["status"]):
        print("usage: python -m deploy.services start|stop|status", file=sys.stderr)
        return 2
    settings = settings_file.from_environment()
    regions = regions_file.load(settings.config_folder)
    processes.interrupt_on_signals()
    if arguments == ["start"]:
        start(settings, regions, print)
    elif arguments == ["stop"]:
        with only_one(settings):
            stop(servers(settings, regions), print)
    else:
        show(servers(settings, regions))
    return 0


def show(found: list[Server]) -> None:
    """A line for each server: its port, and whether it runs."""
    for server in found:
        print(f"{server.name:<20} port {server.port}  {'runs' if server.healthy() else 'is stopped'}")


if __name__ == "__main__":
    processes.command(main)
