"""A file of the bucket in each encoding that browsers take, so that a cache only has to choose.

The same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from cdn.keys import BROTLI_SUFFIX

GZIP_LEVEL = 9
GZIP_FRAME = 31
"""zlib's window for a gzip frame; its header then has no name and a time of 0."""
BROTLI_QUALITY = 6
"""Half of gzip's CPU; from 7 on, each hundredth of the size costs as much again (`make bench-publish` compares)."""


class Encoding(NamedTuple):
    name: str
    """`Content-Encoding`; empty: none."""
    suffix: str
    """After the key of the file."""
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]
    """Raises zlib.error or OSError where the body is damaged; of what brotli lets pass only the checksum tells."""


class File:
    """What shall lie in the bucket. A body is made when it is first asked for, and so not where it lies there."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.sha = sha256(content)
        self._bodies: dict[str, bytes] = {}

    def body(self, encoding: Encoding) -> bytes:
        if encoding.name not in self._bodies:
            self._bodies[encoding.name] = encoding.pack(self.content)
        return self._bodies[encoding.name]


def sha256(content: bytes) -> str:
    """Of a file's content: what a browser, which sees no encoding, can check."""
    return hashlib.sha256(content).hexdigest()


def brotli(content: bytes, quality: int = BROTLI_QUALITY) -> bytes:
    compressed: bytes = pa.Codec("brotli", quality).compress(content, asbytes=True)
    return compressed


def _unbrotli(body: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(body), "brotli") as reader:
        content: bytes = reader.read()
    return content


def _gzip(content: bytes) -> bytes:
    return zlib.compress(content, GZIP_LEVEL, GZIP_FRAME)


def _gunzip(body: bytes) -> bytes:
    reader = zlib.decompressobj(GZIP_FRAME)
    content = reader.decompress(body)
    if not reader.eof:
        raise zlib.error("the gzip frame is cut short")
    return content


PLAIN = Encoding("", "", bytes, bytes)
GZIP = Encoding("gzip", "", _gzip, _gunzip)
BROTLI = Encoding("br", BROTLI_SUFFIX, brotli, _unbrotli)
RELEASE = (GZIP, BROTLI)
"""What each file of a release lies there in."""
