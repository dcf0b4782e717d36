"""What stands between a publisher and a real server in tests, and does what a bad network or a bad store does."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Proxy:
    """Listens on `port` and passes bytes on to `target`, a port of this machine."""

    def __init__(self, target: int) -> None:
        self._target, self._going, self._open = target, True, list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._going = False
        _shut(self._listener, *self._open)
        self._listener.close()

    def _accept(self) -> None:
        while self._going:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as server:
            self._open += [client, server]
            try:
                self._serve(client, server)
            finally:
                _shut(client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=self._answers, args=(client, server), daemon=True)
        back.start()
        try:
            while data := client.recv(65_536):
                self.sent(data)
                server.sendall(data)
        finally:
            _shut(client, server)
            back.join()

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                client.sendall(self.answered(data) or data)
        _shut(client, server)

    def sent(self, data: bytes) -> None:
        """Bytes on their way to the server; raises OSError to cut the connection."""

    def answered(self, data: bytes) -> bytes | None:
        """Bytes on their way back; what is to be said instead, or None."""
        return None

    def end_open(self) -> None:
        """Cut all connections that are open now."""
        _shut(*self._open)


class RedisProxy(Proxy):
    """Does something once, when the first hash of a release is on its way."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.then: Callable[[], object] | None = None
        self.cut = False

    def sent(self, data: bytes) -> None:
        if b"\r\nHSET\r\n" in data and b":lists:" in data and self.then is not None:
            then, self.then = self.then, None
            then()
            if self.cut:
                raise ConnectionResetError


class LateProxy(Proxy):
    """Passes each piece of what the server says on after `seconds`."""

    seconds = 0.0

    def answered(self, data: bytes) -> None:
        time.sleep(self.seconds)


class StoreProxy(Proxy):
    """In front of an S3 server, request by request, with a fault in the requests that `hit` names."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.fault, self.hit, self.count = "", b"", 0

    @contextlib.contextmanager
    def doing(self, fault: str, hit: bytes = b"") -> Iterator[None]:
        """`503`, `silent`, `late`, `cut`, `truncated` or `changed`, of requests whose first line holds `hit`."""
        self.fault, self.hit, self.count = fault, hit, 0
        try:
            yield
        finally:
            self.fault = ""

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with client.makefile("rb") as asked, server.makefile("rb") as answered:
            self._requests(client, server, asked, answered)

    def _requests(self, client: socket.socket, server: socket.socket, asked: Any, answered: Any) -> None:
        while head := _head(asked):
            if b"100-continue" in head:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            first, body = head.split(b"\r\n", 1)[0], asked.read(_length(head))
            fault = self.fault if self.hit in first else ""
            self.count += bool(fault)
            if fault == "503":
                client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n")
                continue
            if fault == "cut":
                server.sendall(head + body[: len(body) // 2])
                raise ConnectionResetError
            time.sleep({"silent": 60, "late": 0.2}.get(fault, 0))
            server.sendall(head + body)
            self._answer(client, answered, first, fault)

    def _answer(self, client: socket.socket, answered: Any, first: bytes, fault: str) -> None:
        while (head := _head(answered)).startswith(b"HTTP/1.1 100"):
            pass  # it was told to go on
        body = b"" if first.startswith(b"HEAD") else answered.read(_length(head))
        if fault == "truncated" and body:
            client.sendall(head + body[: len(body) // 2])
            raise ConnectionResetError
        if fault == "changed" and body:
            body = bytes([*body[:-1], body[-1] ^ 1])
        client.sendall(head + body)


def _shut(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _head(stream: Any) -> bytes:
    lines = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        lines.append(line)
    return b"".join([*lines, b"\r\n"]) if lines else b""


def _length(head: bytes) -> int:
    found = LENGTH.search(head)
    return int(found[1]) if found else 0
