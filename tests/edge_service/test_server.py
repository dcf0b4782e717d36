"""The edge as an operator runs it: real processes, real sockets, real signals."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from edge_service.connection import TAKE_SECONDS
from edge_service.region_store import RegionStore
from spark_jobs import edge_health
from tandem.clients import Client, hash_of, written
from tandem.settings import Settings
from tests.edge_service.conftest import DELTA_KEY, PRODUCTS, QUOTE_KEYS, Clock, free_port, now, publish, region_at

pytestmark = [pytest.mark.servers]

CONFIG = """
[[region]]
name = "{name}"
currency = "USD"
time_zone = "UTC"
redis_url = "{url}"
[region.object_store]
endpoint = "http://127.0.0.1:1"
bucket = "none"
public_url = "http://127.0.0.1:1/none"
"""


class Serving:
    """`tandem serve` as a process."""

    def __init__(self, tmp_path: Path, *arguments: str, **values: object) -> None:
        self.port = free_port()
        self.log = tmp_path / "edge.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")} | {
            "TANDEM_HOME": str(tmp_path),
            "TANDEM_QUOTE_KEYS": QUOTE_KEYS,
            "TANDEM_DELTA_KEYS": DELTA_KEY,
            **{f"TANDEM_{name.upper()}": str(value) for name, value in values.items()},
        }
        command = [sys.executable, "-m", "tandem.cli", "serve", "--port", str(self.port), *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def wait(self, seconds: float = 30) -> httpx.Client:
        client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if client.get("/readyz").status_code == 200:
                    return client
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        client.close()
        raise AssertionError(self.log.read_text())

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(30)


@pytest.fixture
def configured(clean_redis, tmp_path: Path) -> Path:
    """A home with two regions, each published."""
    urls = {"north": clean_redis.url, "south": clean_redis.url.removesuffix("0") + "3"}
    text = ""
    for name, url in urls.items():
        text += CONFIG.format(name=name, url=url)
        with RegionStore(region_at(url, name)) as store:
            publish(store, "r1")
            store.seed_live(PRODUCTS, now(Clock()))
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "regions.toml").write_text(text)
    return tmp_path


@contextmanager
def serving(configured: Path, *arguments: str, **values: object) -> Iterator[tuple[Serving, httpx.Client]]:
    server = Serving(configured, *arguments, **values)
    try:
        with closing(server.wait()) as client:
            yield server, client
    finally:
        server.stop()


def test_one_process_serves_all_regions_and_stops_on_term(configured: Path) -> None:
    with serving(configured) as (server, client):
        for region in ("north", "south"):
            assert len(client.get(f"/v1/{region}/bundles/tea").json()["bundles"]) == 2
        assert client.get("/v1/north/bundles/%FF%FE").status_code in (200, 404)
        assert client.get("/v1/north/bundles/a%2Fb").json()["sku"] == "a/b"
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()


def test_a_named_region_is_served_alone_and_ctrl_c_stops_it(configured: Path) -> None:
    with serving(configured, "--region", "south") as (server, client):
        assert client.get("/v1/south/bundles/tea").status_code == 200
        assert "served are south" in client.get("/v1/north/bundles/tea").json()["detail"]
        assert server.stop(signal.SIGINT) == 0


def test_requests_under_way_are_finished_when_it_stops(configured: Path) -> None:
    with serving(configured, "--region", "north") as (server, client):
        statuses: list[int] = []

        def send() -> None:
            def slowly() -> Iterator[bytes]:
                yield b'{"skus":'
                time.sleep(1.0)
                yield b'["tea"]}'

            statuses.append(client.post("/v1/north/offers", content=slowly()).status_code)

        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(0.4)
        server.process.terminate()
        thread.join(20)
        assert statuses == [200]
        assert server.process.wait(20) == 0


def test_several_workers_agree_within_the_age_of_a_delta(configured: Path) -> None:
    with serving(configured, "--region", "north", "--workers", "2") as (_, client):
        line = {"sku": "tea", "stock": 3, "sequence": 1, "at": now(Clock()).isoformat()}
        told = client.post("/v1/north/deltas", json=line, headers={"X-Tandem-Key": DELTA_KEY})
        assert told.json()["applied"] == 1
        time.sleep(0.5)
        for _ in range(30):  # a connection each, so that both workers are asked
            answer = httpx.get(f"{client.base_url}/v1/north/live", params={"skus": "tea"})
            assert answer.json()["products"][0]["stock"] == 3


def test_an_unknown_region_is_said_in_one_line(configured: Path) -> None:
    server = Serving(configured, "--region", "atlantis")
    assert server.process.wait(30) == 1
    assert server.log.read_text() == "Error: no region 'atlantis' in regions.toml; known are north, south\n"


def test_told_to_stop_it_says_so_before_it_stops(configured: Path) -> None:
    with serving(configured, "--region", "north", drain_seconds=1) as (server, client):
        server.process.terminate()
        while (told := client.get("/readyz")).status_code == 200:
            time.sleep(0.01)
        assert (told.status_code, told.json()) == (503, {"ready": False, "missing": {}, "leaving": True})
        with closing(httpx.Client(base_url=client.base_url)) as newcomer:
            assert newcomer.get("/v1/north/bundles/tea").status_code == 200, "who did not hear of it is still answered"
        assert server.process.wait(20) == 0


def test_who_sends_slowly_or_too_much_is_given_up(configured: Path) -> None:
    """Of each of them the edge lets go; meanwhile it answers everyone else."""
    post = b"POST /v1/north/offers HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000\r\n\r\n{"
    senders = {
        "nothing": b"",
        "half a header": b"GET /healthz HTTP/1.1\r\nHost: edge\r\nX-",
        "a slow body": post,
        "long headers": b"GET /healthz HTTP/1.1\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n",
        "many headers": b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(500)) + b"\r\n",
        "a long path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: edge\r\n\r\n",
        "no HTTP": b"\x00\x01\x02\r\n\r\n",
    }
    with serving(configured, "--region", "north", body_seconds=1) as (server, client), ThreadPoolExecutor(16) as pool:
        told = {name: pool.submit(_answer, server.port, data) for name, data in senders.items()}
        crowd = [pool.submit(_answer, server.port, post) for _ in range(5)]
        assert client.get("/v1/north/bundles/tea").status_code == 200
        found = {name: each.result(30)[9:12] for name, each in told.items()}
        assert found == {
            "nothing": b"", "half a header": b"", "a slow body": b"408", "long headers": b"431",
            "many headers": b"431", "a long path": b"431", "no HTTP": b"400",
        }  # fmt: skip
        assert {each.result(30)[9:12] for each in crowd} == {b"408"}
        assert client.get("/v1/north/bundles/tea").status_code == 200


def test_who_asks_and_does_not_read_is_given_up_and_holds_no_memory(configured: Path) -> None:
    """Twenty connections that ask for 20 MB together and read nothing; meanwhile everyone else is answered."""
    ask = b"GET /v1/north/bundles/tea HTTP/1.1\r\nHost: edge\r\n\r\n"
    with serving(configured, "--region", "north") as (server, client), ExitStack() as stack:
        before, whole = _resident_mb(server.process.pid), 1_000 * len(client.get("/v1/north/bundles/tea").content)
        greedy = [stack.enter_context(closing(socket.socket())) for _ in range(20)]
        for connection in greedy:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            connection.settimeout(30)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(1_000 * ask)
        assert {client.get("/v1/north/bundles/tea").status_code for _ in range(50)} == {200}
        assert _resident_mb(server.process.pid) - before < 15
        time.sleep(TAKE_SECONDS + 2)
        for connection in greedy:
            assert _all_that_comes(connection) < whole / 2, "most of it was never sent"
        assert client.get("/v1/north/bundles/tea").status_code == 200


def _resident_mb(pid: int) -> float:
    """Of the one worker process."""
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _all_that_comes(connection: socket.socket) -> int:
    """Bytes until the connection ends, which it does."""
    count = 0
    with suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            count += len(data)
    return count


def _answer(port: int, data: bytes) -> bytes:
    """What comes back until the edge ends the connection, or answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        return connection.recv(65_536)


def test_metrics_that_need_a_key_are_read_by_a_canary_that_has_it(configured: Path) -> None:
    key = "the-key-of-the-canary"
    client_file = written(Client(name="canary", sha256=[hash_of(key)], scopes=["admin"]))
    (configured / "config" / "clients.toml").write_text(client_file)
    with serving(configured, "--region", "north", open_scopes="read") as (server, client):
        assert client.get("/metrics").status_code == 401
        region = region_at("redis://127.0.0.1:1/0", edge_url=f"http://127.0.0.1:{server.port}")
        assert edge_health.read(Settings(home=configured), region) is None
        assert edge_health.read(Settings(home=configured, admin_key=key), region) is not None


def test_more_connections_than_it_takes_wait_and_are_answered(configured: Path) -> None:
    with serving(configured, "--region", "north", connections=8) as (server, client):
        client.close()
        ask = b"GET /v1/north/bundles/tea HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"
        with ThreadPoolExecutor(40) as pool:
            told = list(pool.map(lambda _: _answer(server.port, ask), range(40)))
        assert {each[9:12] for each in told} == {b"200"}


def test_a_crowd_is_answered_or_told_to_come_back_and_afterwards_all_is_as_before(configured: Path) -> None:
    """A hundred connections, each asking again as soon as it is answered, of an edge that lets nobody wait long."""
    with serving(configured, "--region", "north", longest_wait_ms=10) as (server, client):
        told = asyncio.run(_crowd(server.port, connections=100, requests=40))
        assert len(told) == 4_000
        statuses = Counter(answer[9:12] for answer in told)
        assert statuses.keys() <= {b"200", b"503"}, "how many are told to come back is the machine's affair"
        assert all(b"retry-after: 1" in answer.lower() for answer in told if answer[9:12] == b"503")
        refused = re.search(r'tandem_refused_total\{reason="late"\} (\S+)', client.get("/metrics").text)
        assert refused is not None
        assert float(refused[1]) == statuses[b"503"], "each refusal is counted"
        time.sleep(0.1)
        assert {client.get("/v1/north/bundles/tea").status_code for _ in range(20)} == {200}


async def _crowd(port: int, connections: int, requests: int) -> list[bytes]:
    """The heads of all answers."""
    body = b'{"skus":["tea","pan","cup"],"limit":50}'
    request = b"POST /v1/north/offers HTTP/1.1\r\nHost: edge\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def ask_on() -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        heads = []
        for _ in range(requests):
            writer.write(request)
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(int(re.findall(rb"content-length: (\d+)", heads[-1].lower())[0]))
        writer.close()
        await writer.wait_closed()
        return heads

    return [head for heads in await asyncio.gather(*[ask_on() for _ in range(connections)]) for head in heads]
