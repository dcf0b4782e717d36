"""Many entries into one Redis at full speed: commands as bytes on a socket, their answers read by another thread.

redis-py makes and parses each command in Python; here a hash with all its entries is one command, and nobody waits
for an answer before the next is sent. In memory are one chunk and what the socket holds.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import redis

CHUNK_BYTES = 256 * 1024
CHUNKS_AHEAD = 8
"""Chunks sent whose answers were not read yet: what Redis has to hold for us is bounded too."""

Entry = tuple[bytes, bytes]


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

    A command that Redis refuses, and a connection that breaks, is raised by the next `hash` or at the end.
    """

    def __init__(self, client: redis.Redis, before: Sequence[bytes], pace: Pace, after: Sequence[bytes] = ()) -> None:
        """A command is the words of `before`, the hash's key, its fields and values, and the words of `after`."""
        self._head, self._tail = b"".join(map(_bulk, before)), b"".join(map(_bulk, after))
        self._words = len(before) + 1 + len(after)
        self._pace = pace
        self._pool = client.connection_pool
        self._connection: Any = self._pool.get_connection()
        self._chunk: list[bytes] = []
        self._bytes = self._entries = 0
        self._sent: queue.Queue[int] = queue.Queue(CHUNKS_AHEAD)
        self._fault: Exception | None = None
        self._reader = threading.Thread(target=self._read, name="answers of Redis", daemon=True)
        self._reader.start()

    def hash(self, key: bytes, entries: Sequence[Entry]) -> None:
        """Send one hash. Field and value of each entry are bytes."""
        pairs = [b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(field), field, len(value), value) for field, value in entries]
        command = b"*%d\r\n%b%b%b%b" % (
            self._words + 2 * len(entries),
            self._head,
            _bulk(key),
            b"".join(pairs),
            self._tail,
        )
        self._chunk.append(command)
        self._bytes += len(command)
        self._entries += len(entries)
        if self._bytes >= CHUNK_BYTES:
            self._send()

    def _send(self) -> None:
        if self._fault is not None:
            raise self._fault
        chunk, entries = self._chunk, self._entries
        self._chunk, self._bytes, self._entries = [], 0, 0
        if chunk:
            self._connection.send_packed_command([b"".join(chunk)], check_health=False)
            self._sent.put(len(chunk))
            self._pace.wait(entries)

    def _read(self) -> None:
        """Read the answers of each chunk that was sent; after a fault only empty the queue, so that nobody waits."""
        while commands := self._sent.get():
            try:
                for _ in range(commands if self._fault is None else 0):
                    self._connection.read_response()
            except Exception as error:  # noqa: BLE001 - raised where the push is used
                self._fault = error

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


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)
