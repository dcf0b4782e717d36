"""One connection to a Redis, shared by all who ask: commands go out at once, replies come back in their order."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import hiredis
from redis import exceptions
from redis.asyncio.connection import SSLConnection, parse_url

pack = cast("Callable[[Command], bytes]", hiredis.pack_command)
"""Its stub says that a command is one word."""
Word = str | bytes | int
Command = tuple[Word, ...]


class Wire:
    """Connects when it is first used, and again after a break; where nobody answers, the next try goes to the next of
    its addresses. Raises RedisError; it never sends anything twice.
    """

    def __init__(self, urls: Iterable[str], timeout_seconds: float) -> None:
        self._addresses: deque[dict[str, Any]] = deque(dict(parse_url(url)) for url in dict.fromkeys(urls))
        self._timeout_seconds = timeout_seconds
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, *command: Word) -> Any:
        """The reply to one command, as RESP2 has it. Raises ResponseError where it is an error."""
        (reply,) = await self.ask_all([command])
        return reply

    async def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands that go out together, with no other's in between."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                replies = await (await self._up()).send(commands)
        except TimeoutError as error:
            self.close()
            self._addresses.rotate(-1)
            raise exceptions.TimeoutError(f"no answer within {self._timeout_seconds:g} seconds") from error
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise exceptions.ResponseError(str(reply))
        return replies

    def close(self) -> None:
        """Break the connection; who waits for a reply gets ConnectionError."""
        if self._link is not None:
            self._link.abort()
            self._link = None

    async def _up(self) -> _Link:
        link = self._link
        if link is not None and link.open:
            return link
        async with self._connecting:
            if self._link is None or not self._link.open:
                self._link = await self._connect()
            return self._link

    async def _connect(self) -> _Link:
        loop, told = asyncio.get_running_loop(), self._addresses[0]
        try:
            if "path" in told:
                _, link = await loop.create_unix_connection(_Link, told["path"])
            else:
                secure = ssl.create_default_context() if told.get("connection_class") is SSLConnection else None
                _, link = await loop.create_connection(
                    _Link, told.get("host", "localhost"), int(told.get("port", 6379)), ssl=secure
                )
        except OSError as error:
            self._addresses.rotate(-1)
            raise exceptions.ConnectionError(str(error)) from error
        await self._greet(link, told)
        return link

    async def _greet(self, link: _Link, told: Mapping[str, Any]) -> None:
        commands: list[Command] = []
        if password := told.get("password"):
            commands.append(("AUTH", told["username"], password) if told.get("username") else ("AUTH", password))
        if database := int(told.get("db", 0)):
            commands.append(("SELECT", database))
        for reply in await link.send(commands):
            if isinstance(reply, hiredis.ReplyError):
                link.abort()
                raise exceptions.ConnectionError(str(reply))


class _Link(asyncio.Protocol):
    """One connection while it lasts."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[list[Any]]] = deque()
        self._wanted: deque[int] = deque()
        self._replies: list[Any] = []
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def send(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send them; gives what their replies will be in."""
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        if not self.open:
            future.set_exception(exceptions.ConnectionError("the connection was lost"))
        elif not commands:
            future.set_result([])
        else:
            self._waiting.append(future)
            self._wanted.append(len(commands))
            self._transport.write(b"".join([pack(command) for command in commands]))
        return future

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except (hiredis.ProtocolError, IndexError):
            self._lost("what came is no answer of a Redis")
            self._transport.abort()

    def _take(self, reply: Any) -> None:
        self._replies.append(reply)
        if len(self._replies) == self._wanted[0]:
            self._wanted.popleft()
            future, replies = self._waiting.popleft(), self._replies
            self._replies = []
            if not future.done():
                future.set_result(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(str(exc or "the connection was closed"))

    def abort(self) -> None:
        self._lost("the connection was given up")
        self._transport.abort()

    def _lost(self, why: str) -> None:
        self.open = False
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(exceptions.ConnectionError(why))
