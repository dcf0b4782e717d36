"""Kafka on this machine: `python -m deploy.kafka fetch|start|stop|status`, in one folder, without root and Docker.

What is started is each address of TANDEM_KAFKA that is on loopback (none given: one broker at DEFAULT): a node of KRaft
that is a broker, the first the controller, too. An address elsewhere is somebody else's broker to run.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy import asking, processes, services
from deploy.services import LOOPBACK, Say, Server
from tandem import settings as settings_file
from tandem.errors import ConfigError, TandemError, Unavailable
from tandem.settings import Settings

DEFAULT = "127.0.0.1:9092"
PACKAGES = "org.apache.kafka:kafka_2.13:4.2.0,org.slf4j:slf4j-simple:1.7.36"
"""The second writes what the first logs to its standard error."""
SUMS = Path(__file__).with_suffix(".sha256")
"""What has to come, as sha256sum writes it. Scala's own library is Spark's."""
CLUSTER = "VGFuZGVtS2Fma2FOb2RlMQ"
"""Of all nodes here: 22 characters of base64."""
HEAP = "512m"
JAVA = (
    f"-Xmx{HEAP}",
    "-Xms128m",
    "-XX:+UseSerialGC",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Djava.awt.headless=true",
)
PING = struct.pack(">ihhih", 10, 18, 0, 7, -1)
"""A request for the versions of the protocol: its length, key, version, number, no name."""
PING_SECONDS = 2.0
BROKER_GRACE_SECONDS = 30.0
"""A broker writes down what it holds before it ends."""


class NotFetched(TandemError):
    """Kafka's jars are not there, or are not what they should be."""


def fetch(settings: Settings, say: Say) -> None:
    """Get Kafka's jars into `settings.kafka_jars`, once, the way Spark gets its packages; their sums are checked."""
    folder = _folder(settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _wrong(folder) is None:
            say(f"Kafka's jars are in {folder}")
        else:
            _fetch_into(folder, say)


def _fetch_into(folder: Path, say: Say) -> None:
    before = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kafka-", dir=folder.parent) as staging:
        _resolve(Path(staging))
        jars = Path(staging) / "jars"
        if (wrong := _wrong(jars)) is not None:
            raise NotFetched(f"Kafka's jars came, but {wrong}; deploy/{SUMS.name} names what was expected")
        shutil.rmtree(folder, ignore_errors=True)
        jars.replace(folder)
    say(f"Kafka's {len(_sums())} jars fetched into {folder} ({time.monotonic() - before:.0f} s)")


def _resolve(staging: Path) -> None:
    """Have Spark's resolver put the jars into `staging/jars`. Raises Unavailable with the end of what it said."""
    (script := staging / "nothing.py").write_text("pass\n", encoding="ascii")
    options = {"spark.jars.ivy": str(staging), "spark.jars.packages": PACKAGES}
    told = [part for key, value in options.items() for part in ("--conf", f"{key}={value}")]
    command = [services.binary("spark-submit"), "--master", "local[1]", *told, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        raise Unavailable(f"Kafka's jars could not be fetched; is the network there?\n{last}")


def brokers(settings: Settings) -> list[Server]:
    """One node for each address on loopback."""
    addresses = [_address(each) for each in (settings.kafka or DEFAULT).split(",")]
    ports = [port for host, port in addresses if host in LOOPBACK]
    if not ports:
        return []
    folder = settings.home.absolute() / "kafka"
    folder.mkdir(parents=True, exist_ok=True)
    (controller,) = _ports(folder / "controller.json", 1)
    return [_broker(settings, node, ports, controller) for node in range(1, len(ports) + 1)]


def projectors(settings: Settings, regions: list[str]) -> list[Server]:
    """What brings Kafka's changes into each region's Redis; its port is that of its metrics, on loopback."""
    folder = services.run_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    ports = _ports(folder / f"projectors-{len(regions)}.json", len(regions))
    return [_projector(settings, region, port) for region, port in zip(regions, ports, strict=True)]


def _projector(settings: Settings, region: str, port: int) -> Server:
    return Server(
        name=f"projector-{region}",
        port=port,
        state=services.run_folder(settings) / f"projector-{region}.json",
        command=lambda: [services.binary("tandem"), "project", "--region", region, "--metrics-port", str(port)],
        ping=lambda: asking.answers(f"http://127.0.0.1:{port}/metrics"),
        environment=asking.environment(settings),
        mend=f"remove {services.run_folder(settings)}/projectors-*.json",
    )


def _broker(settings: Settings, node: int, ports: list[int], controller: int) -> Server:
    folder, port = settings.home.absolute() / "kafka" / str(node), ports[node - 1]

    def command() -> list[str]:
        java = _java(settings)
        folder.mkdir(parents=True, exist_ok=True)
        (file := folder / "server.properties").write_text(_properties(folder, node, ports, controller))
        if not (folder / "data" / "meta.properties").exists():
            _format(java, file)
        return [*java, "kafka.Kafka", str(file)]

    return Server(
        f"kafka-{node}",
        port,
        services.run_folder(settings) / f"kafka-{node}.json",
        command,
        lambda: answers(port),
        grace_seconds=BROKER_GRACE_SECONDS,
        mend="give another one in TANDEM_KAFKA",
    )


def _properties(folder: Path, node: int, ports: list[int], controller: int) -> str:
    """The settings of one node of so many; the first is their controller, too."""
    leads = node == 1
    copies = min(3, len(ports))
    internal = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
    settings = {
        "process.roles": "broker,controller" if leads else "broker",
        "node.id": node,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{ports[node - 1]}" + f",CONTROLLER://127.0.0.1:{controller}" * leads,
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{ports[node - 1]}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": folder / "data",
        **{f"{name}.replication.factor": copies for name in internal},
        **{f"{name}.num.partitions": 1 for name in internal},
        "transaction.state.log.min.isr": max(1, copies - 1),
        "share.coordinator.state.topic.min.isr": max(1, copies - 1),
        "group.initial.rebalance.delay.ms": 0,
        "auto.create.topics.enable": "false",
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _format(java: list[str], file: Path) -> None:
    command = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise processes.Failed(f"{file.parent}: Kafka's folder can't be made:\n{done.stdout}{done.stderr}")


def answers(port: int) -> bool:
    """Whether a broker on loopback speaks Kafka's protocol."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PING_SECONDS) as connection:
            connection.sendall(PING)
            return connection.recv(8)[4:] == PING[8:12]
    except OSError:
        return False


def _java(settings: Settings) -> list[str]:
    """Java with Kafka's classes. Raises NotFetched."""
    folder = _folder(settings)
    if not folder.is_dir():
        raise NotFetched(f"Kafka's jars are not in {folder}; `make kafka` fetches them")
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else services.binary("java")
    return [java, *JAVA, "-cp", f"{folder}/*:{_scala()}"]


def _scala() -> Path:
    """Scala's library, which Spark brings and therefore does not fetch."""
    found = importlib.util.find_spec("pyspark")
    folders = found.submodule_search_locations if found else None
    for folder in folders or ():
        if jars := sorted(Path(folder).glob("jars/scala-library-*.jar")):
            return jars[0]
    raise NotFetched("Spark, whose Scala library Kafka needs, is not installed; `make environment` installs it")


def _ports(file: Path, count: int) -> list[int]:
    """Ports that were free when `file` was written; they stay, as others know them."""
    if not file.is_file():
        file.write_text(json.dumps(services.free_ports(count)), encoding="ascii")
    ports: list[int] = json.loads(file.read_text(encoding="ascii"))
    return ports


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    if not (re.fullmatch(r"[\w.-]+|\[[0-9a-f:]+\]", host) and port.isdigit()):
        raise ConfigError(f"TANDEM_KAFKA must be host:port, separated by commas, not {text!r}")
    return host, int(port)


def _folder(settings: Settings) -> Path:
    return settings.kafka_jars.expanduser().absolute()


def _sums() -> dict[str, str]:
    lines = SUMS.read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in map(str.split, lines)}


def _wrong(folder: Path) -> str | None:
    """What is not as expected in a folder of jars; None: nothing."""
    for name, digest in _sums().items():
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            return f"{name} is missing"
        if found != digest:
            return f"{name} has the SHA-256 {found}, not {digest}"
    return None


def main(arguments: list[str]) -> int:
    if arguments not in (["fetch"], ["start"], ["stop"], ["status"]):
        print("usage: python -m deploy.kafka fetch|start|stop|status", file=sys.stderr)
        return 2
    settings = settings_file.from_environment()
    processes.interrupt_on_signals()
    if arguments == ["fetch"]:
        fetch(settings, print)
    elif arguments == ["start"]:
        services.start_all(settings, brokers(settings), print)
    elif arguments == ["stop"]:
        services.stop(brokers(settings), print)
    else:
        services.show(brokers(settings))
    return 0


if __name__ == "__main__":
    processes.command(main)
