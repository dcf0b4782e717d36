"""A load generator: keep-alive connections, one request under way on each; at full speed, or at a steady rate.

`python -m benchmarks._edge_client URL CONNECTIONS SECONDS FILE [REQUESTS_A_SECOND]`
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks._edge_load import MARK

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """Sends the next request as soon as an answer is whole, or `every` so many seconds."""

    def __init__(
        self, requests: list[bytes], first: int, latencies: list[float], failed: list[int], every: float
    ) -> None:
        self._requests, self._at = requests, first
        self._latencies, self._failed, self._every = latencies, failed, every
        self._received = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._at = (self._at + 1) % len(self._requests)
        self._sent = time.perf_counter()
        self._transport.write(self._requests[self._at])  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, gap, body = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not gap or (length is not None and len(body) < int(length[1])):
            return
        self._failed[0] += not head.startswith(b"HTTP/1.1 2")
        taken = time.perf_counter() - self._sent
        self._latencies.append(taken)
        self._received = b""
        if self._every:
            asyncio.get_running_loop().call_later(max(0.0, self._every - taken), self._send)
        else:
            self._send()


async def run(url: str, connections: int, seconds: float, requests: list[bytes], rate: float) -> str:
    latencies: list[float] = []
    failed = [0]
    address = urlsplit(url)
    loop, every = asyncio.get_running_loop(), connections / rate if rate else 0.0
    for number in range(connections):
        first = number * len(requests) // connections
        await loop.create_connection(
            lambda first=first: Connection(requests, first, latencies, failed, every), address.hostname, address.port
        )
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    taken, ordered = time.perf_counter() - started, sorted(latencies)
    p50, p99 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return f"requests {len(ordered)} seconds {taken:f} failed {failed[0]} p50 {p50:f} p99 {p99:f}"


def main() -> None:
    url, connections, seconds, file, *rate = sys.argv[1:]
    requests = Path(file).read_bytes().split(MARK)[:-1]
    print(asyncio.run(run(url, int(connections), float(seconds), requests, float(rate[0]) if rate else 0.0)))


if __name__ == "__main__":
    main()
