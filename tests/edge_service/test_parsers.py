"""Bytes from strangers: every parser takes or refuses them, and does nothing else (more: `make bench-edge_fuzz`)."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks._parsers import PARSERS, SEEDS, fed

NAMES = st.sampled_from(["sku", "cart", "skus", "quantity", "stock", "list_price", "sequence", "at", "token", "limit"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["2026-01-05T12:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", 2**63, 10**400]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def altered(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A right input with pieces cut out, doubled or replaced."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        piece = draw(st.binary(max_size=6) | st.just(data[at : at + length] * 3) | VALUES.map(_json))
        data = data[:at] + piece + data[at + length :]
    return data


def _json(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", PARSERS)
def test_no_bytes_break_a_parser(name: str) -> None:
    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.binary(max_size=200) | VALUES.map(_json) | altered(SEEDS[name]))
    def feed(data: bytes) -> None:
        fed(name, data)

    feed()


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 1_000, b"[" * 500_000, b'{"a":' * 100_000, b'"' + b"\\ud800" * 50_000 + b'"', b"9" * 500_000,
     b"\n" * 1_000_000, b"{}\n" * 300_000, b"\xff\xfe\xfd", b"&=&;%zz" * 100_000, b"." * 500_000],
    ids=lambda data: repr(data[:8]),
)  # fmt: skip
def test_large_and_odd_input_neither_breaks_a_parser_nor_takes_long(name: str, data: bytes) -> None:
    """`fed` raises where one input takes more than seconds of a core."""
    fed(name, data)
