"""Encodings give back what they were given, and less than that is noticed."""

from __future__ import annotations

import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.files import BROTLI, GZIP, RELEASE, File, sha256


@given(st.binary())
def test_every_body_holds_the_content(content: bytes) -> None:
    file = File(content)
    for encoding in RELEASE:
        assert sha256(encoding.unpack(file.body(encoding))) == file.sha


@given(st.binary(min_size=1), st.integers(1, 8))
def test_a_body_cut_short_is_noticed(content: bytes, cut: int) -> None:
    file = File(content.hex().encode())
    with pytest.raises(zlib.error):
        GZIP.unpack(file.body(GZIP)[:-cut])
    with suppress(OSError):
        assert sha256(BROTLI.unpack(file.body(BROTLI)[:-cut])) != file.sha
