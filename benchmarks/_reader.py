"""Somebody who reads all the time, from an edge and from the CDN, and looks whether an answer is made of two releases.

`python -m benchmarks._reader PORT ANCHORS PUBLIC_URL LEAST PAUSE` reads until its stdin is closed and the edge has
given at least so many answers, then tells `Counts` as JSON; between rounds of AT_ONCE it pauses for so many seconds.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import select
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from types import TracebackType

import msgspec

from benchmarks import _releases
from benchmarks._serving import ROOT
from cdn import keys

AT_ONCE = 64
"""Requests sent before the first answer is read."""
CDN_EVERY = 20
"""Rounds of the edge to one of the CDN."""


class Counts(msgspec.Struct):
    answers: int = 0
    mixed: int = 0
    refused: int = 0
    """Answers other than 200."""
    releases: int = 0
    """Different ones seen."""
    manifests: int = 0
    shards: int = 0
    damaged: int = 0
    """Shards that are missing, not what the manifest says, or made of two releases."""


class Reader:
    """A reader in a process of its own; `counts` is there once it is left."""

    counts: Counts

    def __init__(self, port: int, anchors: int, public_url: str, least: int, pause_seconds: float = 0) -> None:
        arguments = (port, anchors, public_url, least, pause_seconds)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._reader", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        told, _ = self._process.communicate(timeout=900)
        if kind is None:
            self.counts = msgspec.json.decode(told, type=Counts)


class _Edge:
    """One connection; many questions are sent at once, and each answer is read whole."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._file = self._socket.makefile("rb", 1 << 18)

    def answers(self, paths: list[str]) -> Iterator[tuple[int, bytes]]:
        """(status, body) of each."""
        ask = "".join(f"GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n" for path in paths)
        self._socket.sendall(ask.encode())
        for _ in paths:
            status, length = int(self._file.readline().split()[1]), 0
            while (line := self._file.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            yield status, self._file.read(length)


def _read_edge(edge: _Edge, paths: list[str], counts: Counts, seen: set[str]) -> None:
    for status, body in edge.answers(paths):
        counts.answers += 1
        if status != 200:
            counts.refused += 1
            continue
        answer = _releases.decode_answer(body)
        counts.mixed += not answer.whole()
        seen.add(answer.release)


def _read_cdn(public_url: str, counts: Counts) -> None:
    """The manifest that is shown, then all shards that it names."""
    manifest = _fetched(f"{public_url}/{keys.manifest_key(_releases.REGION)}")
    if manifest is None:
        return
    told = json.loads(manifest)
    counts.manifests += 1
    for number, sha in enumerate(told["shards"]):
        body = _fetched(f"{public_url}/{keys.shard_key(_releases.REGION, told['release'], number)}")
        counts.shards += 1
        counts.damaged += body is None or not _whole(body, sha, told["release"])


def _whole(body: bytes, sha: str, release: str) -> bool:
    content = zlib.decompress(body, 31)
    return hashlib.sha256(content).hexdigest() == sha and _releases.shard_is_whole(json.loads(content), release)


def _fetched(address: str) -> bytes | None:
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError:
        return None


def read(port: int, anchors: int, public_url: str, least: int, pause_seconds: float) -> Counts:
    """Read until stdin is closed, and `least` answers came."""
    counts, seen, edge = Counts(), set[str](), _Edge(port)
    all_paths = [f"/v1/{_releases.REGION}/bundles/{_releases.sku(n)}?limit={_releases.PLACES}" for n in range(anchors)]
    turns = itertools.cycle(all_paths)
    for turn in itertools.count():
        if counts.answers >= least and select.select([sys.stdin], [], [], 0)[0]:
            break
        _read_edge(edge, [next(turns) for _ in range(AT_ONCE)], counts, seen)
        if turn % CDN_EVERY == 0:
            _read_cdn(public_url, counts)
        time.sleep(pause_seconds)
    counts.releases = len(seen)
    return counts


def main(arguments: list[str]) -> None:
    port, anchors, public_url, least, pause_seconds = arguments
    counts = read(int(port), int(anchors), public_url, int(least), float(pause_seconds))
    print(msgspec.json.encode(counts).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
