"""One HTTP connection: hot questions are answered as they are read, all others by the app's ASGI interface.

A question that came as a whole, while nothing else is under way on its connection, needs no task, no queue of messages
and no second thought: the app is asked for its answer at once (`at_once`), and that is written. Whatever the app does
not answer so, and an app that has no `at_once`, is served by uvicorn's own protocol, of which this is a kind. A client
sends the same headers with each question of a connection: those are parsed once.
"""

from __future__ import annotations

import math
import re
import time
from asyncio import AbstractEventLoop, BaseTransport, Transport
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from edge_service.problems import Problem
from edge_service.replies import Pair, Reply, length_of, lines
from edge_service.room import Room

HEADER_SECONDS = 5.0
"""What a request's line and headers may take to come, from the answer before them on."""
HEADER_BYTES = 16 * 1024
"""What they may hold; more is answered 431."""
HEADERS = 100
"""How many there may be."""
QUEUED = 16
"""Questions of one connection that may wait for the answer to one before them; no browser and no proxy sends any so."""
TAKE_SECONDS = 10.0
"""What a reader may take for what waits to be sent, once that is more than the transport holds willingly (64 kB)."""
NOT_MODIFIED = 304
HOT = {b"GET": "GET", b"POST": "POST"}
"""Methods that the app is asked about."""
ASKING = re.compile(rb"GET (/[!-~]*) HTTP/1\.1\r\n")
"""A request's line, as strict as can be; of any other the parser says what it is."""
_BEYOND = Problem(431, "the request's line and headers are too long; send fewer", kind="headers")
_QUEUED = Problem(503, "too many questions on one connection; wait for an answer before the next", kind="unavailable")
_NO_HTTP = Problem(400, "this is no HTTP request", kind="http")

AtOnce = Callable[[dict[str, Any], bytes], Reply | None]
"""The answer to a question (method, path, query, headers, client as in an ASGI scope) with its whole body; None: it is
to be asked by ASGI."""


class Connection(HttpToolsProtocol):
    """`_since`: the end of the answer before, while nothing is under way; infinite while something is. `_head`: all
    after the line of the GET that was parsed last, where that was answered at once and came alone; or empty.
    """

    def __init__(
        self,
        room: Room,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._room = room
        self._at_once: AtOnce | None = getattr(config.loaded_app, "at_once", None)
        self._since, self._stuck_since = time.perf_counter(), math.inf
        self._begun = self._held = False
        self._read = self._written = 0
        self._head = b""
        self._parts: list[bytes] = []
        self._wrong: Problem | None = None

    # The room's side

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast("Transport", transport))
        self._room.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._room.leave(self)

    def wait(self) -> None:
        self.flow.pause_reading()

    def begin(self) -> None:
        self._since = time.perf_counter()
        self.flow.resume_reading()

    def give_up(self) -> None:
        self.transport.abort() if self.transport.get_write_buffer_size() else self.transport.close()

    def dawdles(self, now: float) -> bool:
        return now - self._since > HEADER_SECONDS or now - self._stuck_since > TAKE_SECONDS

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck_since = time.perf_counter()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck_since = math.inf

    # What is read

    def data_received(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if self._head and len(data) <= HEADER_BYTES and self._again(data):
            return
        begun_before, written_before, self._head = self._begun, self._written, b""
        self._read = self._read + len(data) if begun_before else len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.shutdown()  # what comes next would be in a language that is not spoken here
        except httptools.HttpParserError:
            self._refuse(self._wrong or _NO_HTTP)
        else:
            if self._held:
                self._by_asgi()
            elif begun_before and self._begun and self._read > HEADER_BYTES:
                self._refuse(_BEYOND)
            elif self._written == written_before + 1 and not begun_before and not self._begun:
                line = ASKING.match(data)
                self._head = b"" if line is None else data[line.end() :]

    def _again(self, data: bytes) -> bool:
        """Answer a question that differs from the one before it in its line alone; False: it is none."""
        line = ASKING.match(data)
        if line is None or data[line.end() :] != self._head or self.flow.write_paused:
            return False
        self.url, self._held = line[1], True
        self.on_message_complete()
        return True

    def on_message_begin(self) -> None:
        self._begun, self.url, self.headers, self.expect_100_continue = True, b"", [], False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.headers.append((name, value))
        if name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        self._begun = False
        if len(self.headers) > HEADERS or (self._read > HEADER_BYTES and self._head_bytes() > HEADER_BYTES):
            self._stop_at(_BEYOND)
        if len(self.pipeline) >= QUEUED:
            self._stop_at(_QUEUED)
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._at_once is not None and not self.flow.write_paused and self.parser.should_keep_alive():
            self._held = True
        else:
            self._by_asgi()

    def _stop_at(self, problem: Problem) -> NoReturn:
        """Have the parser stop here."""
        self._wrong = problem
        raise problem

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        if self._held:
            self._parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._held:
            reply = self._answer()
            if reply is not None:
                self._write(reply)
                return
            self._by_asgi()
        super().on_message_complete()

    def _answer(self) -> Reply | None:
        method = HOT.get(self.parser.get_method())
        if method is None or self._at_once is None:
            return None
        path, _, query = self.url.partition(b"?")
        asked = {
            "method": method,
            "path": unquote(path.decode("ascii")) if b"%" in path else path.decode("latin-1"),
            "query_string": query,
            "headers": self.headers,
            "client": self.client,
        }
        return self._at_once(asked, b"".join(self._parts))

    def _by_asgi(self) -> None:
        """Hand what is here of the request to uvicorn."""
        self._held, self._since, self._head = False, math.inf, b""
        url, headers, expects, parts = self.url, self.headers, self.expect_100_continue, self._parts
        super().on_message_begin()
        self.url, self.expect_100_continue, self._parts = url, expects, []
        self.headers += headers
        super().on_headers_complete()
        for part in parts:
            super().on_body(part)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline:
            self._since = time.perf_counter()

    # What is written

    def _write(self, reply: Reply) -> None:
        status, told, body = reply
        if status != NOT_MODIFIED:
            told = b"%bcontent-length: %d\r\n" % (told, length_of(body))
        dated = _dated(*self.server_state.default_headers)
        self.transport.write(b"".join((STATUS_LINE[status], dated, told, b"\r\n", *body)))
        self._held, self._parts, self._since = False, [], time.perf_counter()
        self._written += 1

    def _refuse(self, problem: Problem) -> None:
        """Say what is wrong with what came, and end the connection."""
        if self.cycle is None or self.cycle.response_complete:
            status, told, body = problem.reply()
            self._write((status, told + b"connection: close\r\n", body))
        self.transport.close()


@lru_cache(maxsize=1)
def _dated(*headers: Pair) -> bytes:
    """The headers that uvicorn makes anew each second."""
    return lines(headers)
