"""Many entries into one Redis at full speed: commands as bytes on a socket, their answers read by another thread.

redis-py makes and parses each command in Python; here a hash with all its entries is one command, and nobody waits
for an answer before the next is sent. In memory are some transactions and what the socket holds.

Hashes go in transactions that are opened by commands of the caller: a key that these watch and change ends the
transaction before it began, so that a check and the writes that depend on it are sent together, unanswered.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import redis

TRANSACTION_BYTES = 64 * 1024
"""About a thousand entries: Redis does nothing else for half a millisecond."""
AHEAD = 32
"""Transactions sent whose answers were not read yet: what Redis has to hold for us is bounded too."""


class _Lengths(dict[int, bytes]):
    """What stands before a word of so many bytes: made once, so that no Python runs for each word."""

    def __missing__(self, length: int) -> bytes:
        self[length] = told = b"\r\n$%d\r\n" % length
        return told


_LENGTHS = _Lengths()


class Pace:
    """A rate that all pushes which share it keep to together."""

    def __init__(self, per_second: int) -> None:
        """`per_second`: entries at most (0: no limit), where a second without any is not made up for later."""
        self._per_second, self._due = per_second, time.monotonic()

    def wait(self, entries: int) -> None:
        """Sleep until so many more were not too fast."""
        if self._per_second:
            now = time.monotonic()
            self._due = max(self._due, now - 1) + entries / self._per_second
            time.sleep(max(0.0, self._due - now))


class Push:
    """One connection that sends one command for each of many hashes.

    A command that Redis refuses, a transaction that it gave up, and a connection that breaks, is raised by the next
    `hash` or at the end.
    """

    def __init__(
        self, client: redis.Redis, before: Sequence[bytes], pace: Pace, opening: Sequence[Sequence[bytes]] = ()
    ) -> None:
        """A command is the words of `before`, the hash's key, its fields and values.

        A transaction has the commands `opening` before its MULTI. It is given up where a key changed that these watch.
        """
        self._before = before
        self._opening = b"".join(_command(words) for words in (*opening, [b"MULTI"]))
        self._around = len(opening) + 2
        self._pace = pace
        self._pool = client.connection_pool
        self._connection: Any = self._pool.get_connection()
        self._commands: list[bytes] = []
        self._bytes = self._entries = 0
        self._sent: queue.Queue[int] = queue.Queue(AHEAD)
        self._fault: Exception | None = None
        self._reader = threading.Thread(target=self._read, name="answers of Redis", daemon=True)
        self._reader.start()

    def hash(self, key: bytes, words: Sequence[bytes]) -> None:
        """Send one hash; `words` are its fields, each followed by its value."""
        command = _command([*self._before, key, *words])
        self._commands.append(command)
        self._bytes += len(command)
        self._entries += len(words) // 2
        if self._bytes >= TRANSACTION_BYTES:
            self._send()

    def _send(self) -> None:
        if self._fault is not None:
            raise self._fault
        commands, entries = self._commands, self._entries
        self._commands, self._bytes, self._entries = [], 0, 0
        if commands:
            self._connection.send_packed_command([b"".join([self._opening, *commands, _EXEC])], check_health=False)
            self._sent.put(len(commands) + self._around)
            self._pace.wait(entries)

    def _read(self) -> None:
        """Read the answers of each transaction; after a fault only empty the queue, so that nobody waits."""
        while answers := self._sent.get():
            if self._fault is None:
                try:
                    self._read_transaction(answers)
                except Exception as error:  # noqa: BLE001 - raised where the push is used
                    self._fault = error

    def _read_transaction(self, answers: int) -> None:
        for _ in range(answers - 1):
            self._connection.read_response()
        done = self._connection.read_response()
        if done is None:
            raise redis.WatchError("FENCED a newer publisher took over, or Redis lost its data")
        for answer in done:
            if isinstance(answer, Exception):
                raise answer

    def __enter__(self) -> Push:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._send()
        finally:
            self._sent.put(0)
            self._reader.join()
            if kind is not None or self._fault is not None:
                self._connection.disconnect()
            self._pool.release(self._connection)
        if kind is None and self._fault is not None:
            raise self._fault


def _command(words: Sequence[bytes]) -> bytes:
    told = [b""] * (2 * len(words))
    told[::2], told[1::2] = map(_LENGTHS.__getitem__, map(len, words)), words
    return b"*%d%b\r\n" % (len(words), b"".join(told))


_EXEC = _command([b"EXEC"])
