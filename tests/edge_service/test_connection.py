"""What goes over the wire: a hot question is answered as it is read, and just as it would be otherwise."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest

from tests.edge_service.test_server import Serving, configured, serving

__all__ = ["configured"]  # the fixture
pytestmark = [pytest.mark.servers]

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def edge(configured: Path) -> Iterator[Serving]:
    with serving(configured, "--region", "north", address_rate=1_000) as (server, _):
        yield server


def request(line: str, body: bytes = b"", *, close: bool = False, **headers: str) -> bytes:
    told = {"Host": "edge", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body:
        told["Content-Length"] = str(len(body))
    if close:
        told["Connection"] = "close"
    return (
        f"{line} HTTP/1.1\r\n".encode() + b"".join(f"{n}: {v}\r\n".encode() for n, v in told.items()) + b"\r\n" + body
    )


def answers(server: Serving, parts: list[bytes], count: int) -> list[Answer]:
    """Send the parts one after the other; the answers to what they say."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as connection:
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.05)
            connection.sendall(part)
        with closing(connection.makefile("rb")) as stream:
            return [_answer(stream) for _ in range(count)]


def _answer(stream: BinaryIO) -> Answer:
    status = int(stream.readline().split()[1])
    headers: dict[str, str] = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(": ")
        assert name not in headers, f"{name} is told twice"
        headers[name] = value
    body = stream.read(int(headers.get("content-length", 0)))
    for name in ("date", "ratelimit", "connection"):
        headers.pop(name, None)
    return status, headers, body


@pytest.mark.parametrize(
    ("line", "body", "headers", "status"),
    [
        ("GET /v1/north/bundles/tea", b"", {}, 200),
        ("GET /v1/north/bundles/tea?segment=families&limit=1", b"", {"Origin": "https://shop.example"}, 200),
        ("GET /v1/north/bundles/t%65a", b"", {}, 200),
        ("GET /v1/north/bundles/tea?limit=0", b"", {}, 422),
        ("GET /v1/north/bundles/" + "x" * 200, b"", {}, 404),
        ("GET /v1/nowhere/bundles/tea", b"", {}, 404),
        ("POST /v1/north/offers", b'{"skus":["tea"],"quotes":false}', {"Origin": "https://shop.example"}, 200),
        ("POST /v1/north/offers", b'{"skus":"tea"}', {}, 422),
        ("POST /v1/north/offers", b"{", {}, 400),
        ("POST /v1/nowhere/offers", b'{"skus":["tea"]}', {}, 404),
        ("GET /v1/north/live?skus=tea", b"", {}, 200),
    ],
)
def test_a_question_read_at_once_and_one_that_comes_in_parts_are_answered_alike(
    edge: Serving, line: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    whole = request(line, body, **headers)
    (at_once,) = answers(edge, [whole], 1)
    (in_parts,) = answers(edge, [whole[:9], whole[9 : -1 - len(body) // 2], whole[-1 - len(body) // 2 :]], 1)
    (by_asgi,) = answers(edge, [request(line, body, close=True, **headers)], 1)
    assert at_once[0] == status
    assert at_once == in_parts == by_asgi


def test_headers_that_come_again_are_answered_as_the_first_time(edge: Serving) -> None:
    """Hot questions and others, one after the other on one connection, each with the same headers."""
    tea = "GET /v1/north/bundles/tea"
    lines = [tea, f"{tea}?limit=1", "GET /v1/north/bundles/t%65a", f"{tea}?limit=0", "GET /v1/north/live?skus=tea", tea]
    lines += ["GET /v1/north/bundles/cup", "GET /v1/nowhere/bundles/cup", "GET /v1/north/bundles/cup", tea]
    together = answers(edge, [request(line) for line in lines], len(lines))
    assert together == [answers(edge, [request(line)], 1)[0] for line in lines]


@pytest.mark.parametrize(
    ("again", "status"),
    [
        (b"GET /v1/north/bundles/t ea HTTP/1.1\r\nHost: edge\r\n\r\n", 400),
        (b"GET /v1/north/bundles/t\nea HTTP/1.1\r\nHost: edge\r\n\r\n", 400),
        (b"GET /v1/north/bundles/tea HTTP/1.1\nHost: edge\r\n\r\n", 400),
        (b"GET /v1/north/bundles/tea HTTP/9.9\r\nHost: edge\r\n\r\n", 400),
        (b"GET /v1/north/bundles/" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: edge\r\n\r\n", 431),
        (b"GET /v1/north/bundles/tea HTTP/1.0\r\nHost: edge\r\n\r\n", 200),
        (b"HEAD /v1/north/bundles/tea HTTP/1.1\r\nHost: edge\r\n\r\n", 405),
    ],
)
def test_headers_that_come_again_excuse_no_line_that_is_wrong(edge: Serving, again: bytes, status: int) -> None:
    (_, told) = answers(edge, [request("GET /v1/north/bundles/tea"), again], 2)
    (alone,) = answers(edge, [again], 1)
    assert told[0] == status
    assert told == alone


def test_an_answer_that_is_known_is_not_sent_again(edge: Serving) -> None:
    line = "GET /v1/north/bundles/tea"
    ((status, headers, _),) = answers(edge, [request(line)], 1)
    (again,) = answers(edge, [request(line, If_None_Match=headers["etag"])], 1)
    (by_asgi,) = answers(edge, [request(line, close=True, If_None_Match=headers["etag"])], 1)
    assert (status, again[0], again[2]) == (200, 304, b"")
    assert again == by_asgi


def test_a_body_in_chunks_is_a_body(edge: Serving) -> None:
    body = b'{"skus":["tea"],"quotes":false}'
    (plain,) = answers(edge, [request("POST /v1/north/offers", body)], 1)
    head = request("POST /v1/north/offers", Transfer_Encoding="chunked")
    (chunked,) = answers(edge, [head + b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])], 1)
    assert plain[0] == 200
    assert plain == chunked


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "5", "Transfer-Encoding": "chunked"},
        {"Content-Length": "5, 6"},
        {"Content-Length": "-1"},
        {"Transfer-Encoding": "chunked, identity"},
        {"X-A": "a\nContent-Length: 5"},
    ],
)
def test_a_request_whose_end_can_be_read_in_two_ways_is_refused(edge: Serving, headers: dict[str, str]) -> None:
    """Or whoever stands in front might take another request out of its body than the edge does."""
    smuggled = request("GET /v1/north/bundles/cup")
    ((status, told, _),) = answers(edge, [request("POST /v1/north/offers", **headers) + b"0\r\n\r\n" + smuggled], 1)
    assert (status, told["content-type"]) == (400, "application/problem+json")


def test_who_wants_another_protocol_is_answered_in_this_one_and_let_go(edge: Serving) -> None:
    asked = request("GET /v1/north/bundles/tea", Connection="Upgrade", Upgrade="h2c")
    with closing(socket.create_connection(("127.0.0.1", edge.port), timeout=10)) as connection:
        connection.sendall(asked)
        with closing(connection.makefile("rb")) as stream:
            assert _answer(stream)[0] == 200
            assert stream.read() == b""


def test_questions_sent_together_are_answered_in_their_order(edge: Serving) -> None:
    """Hot ones and others in turn: none overtakes another."""
    skus = ["tea", "cup", "pan", "tea", "cup"]
    hot = [request(f"GET /v1/north/bundles/{sku}") for sku in skus]
    rare = [request(f"GET /v1/north/live?skus={sku}") for sku in skus]
    told = answers(edge, [b"".join(one + other for one, other in zip(hot, rare, strict=True))], 10)
    assert [status for status, _, _ in told] == [200] * 10
    for place, sku in enumerate(skus):
        assert f'"sku":"{sku}"'.encode() in told[2 * place][2]
        assert f'"products":[{{"sku":"{sku}"'.encode() in told[2 * place + 1][2]


def test_a_question_counts_once_against_the_limit_of_its_address(configured: Path) -> None:
    with serving(configured, "--region", "north", address_rate=0.001, address_burst=6) as (server, client):
        lines = ["GET /v1/north/bundles/tea", "GET /v1/north/live?skus=tea", "GET /v1/north/bundles/tea"]
        told = answers(server, [b"".join(request(line) for line in lines)], 3)
        assert [status for status, _, _ in told] == [200] * 3
        statuses = [client.get("/v1/north/bundles/tea").status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]


def test_a_question_whose_headers_come_again_counts_once_too(configured: Path) -> None:
    with serving(configured, "--region", "north", address_rate=0.001, address_burst=4) as (server, _):
        told = answers(server, [request("GET /v1/north/bundles/tea")] * 5, 5)
        assert [status for status, _, _ in told] == [200] * 4 + [429]


def test_a_worker_that_dies_is_replaced(configured: Path) -> None:
    with serving(configured, "--region", "north") as (server, client):
        (worker,) = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        with suppress(httpx.TransportError):  # unless another has taken its place already
            client.get("/v1/north/bundles/tea")
        with closing(server.wait()) as again:
            assert again.get("/v1/north/bundles/tea").status_code == 200
        assert "another takes its place" in server.log.read_text()


def test_workers_leave_with_a_parent_that_is_killed(configured: Path) -> None:
    with serving(configured, "--region", "north", "--workers", "2") as (server, _):
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 20
        while listens(server.port) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not listens(server.port)


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
