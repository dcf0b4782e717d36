"""Messages: what is refused and by which name, what a later version may add, and what is kept of it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from streams import messages
from streams.messages import Activity, PriceChanged, Refused, StockChanged, headers, passed_on, read, unknown

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
CHANGE = StockChanged(region="north", sku="1", stock=5, sequence=7, at=NOON)


def test_what_was_written_is_read_again() -> None:
    assert read(headers(CHANGE), messages.encode(CHANGE)) == CHANGE


def test_a_message_says_its_type_and_version_beside_its_value() -> None:
    assert headers(CHANGE) == [("type", b"stock-changed"), ("version", b"1")]


def test_keys_keep_what_must_stay_in_order_together() -> None:
    assert CHANGE.key == b"north:1"
    price = PriceChanged(region="north", sku="1", list_price=299, sequence=1, at=NOON)
    assert price.key == CHANGE.key
    event = Activity(event_id="e1", at=NOON, region="north", kind="view", sku="1")
    assert (event.key, msgspec.structs.replace(event, session_id="s1").key) == (b"e1", b"s1")


def test_a_later_version_is_read_as_far_as_it_is_known_and_the_rest_is_kept() -> None:
    later = messages.encode({**msgspec.to_builtins(CHANGE), "warehouse": "w1", "reserved": {"units": 2}})
    found = read([("type", b"stock-changed"), ("version", b"2")], later)
    assert found == CHANGE
    assert unknown(later, StockChanged) == {"warehouse": "w1", "reserved": {"units": 2}}
    sent_on = msgspec.json.decode(passed_on(msgspec.structs.replace(CHANGE, stock=4), later))
    assert sent_on == {**msgspec.json.decode(later), "stock": 4}


@pytest.mark.parametrize(
    ("beside", "value", "said"),
    [
        (None, b"{}", "header type: is missing"),
        ([("type", b"stock-burnt")], b"{}", "header type: 'stock-burnt' is none of stock-changed, stock-unchanged"),
        ([("type", b"stock-changed")], b"{}", "header version: must be a number from 1 on, not ''"),
        ([("type", b"stock-changed"), ("version", b"x")], b"{}", "header version: must be a number from 1 on, not 'x'"),
    ],
)
def test_wrong_headers_are_named(beside: list[messages.Header] | None, value: bytes, said: str) -> None:
    with pytest.raises(Refused, match=said):
        read(beside, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stock": -1}, "stock-changed: field stock: expected `int` >= 0"),
        ({"stock": "5"}, "stock-changed: field stock: expected `int`, got `str`"),
        ({"sequence": 0}, "field sequence: expected `int` >= 1"),
        ({"at": "2026-01-05T12:00:00"}, "field at: expected `datetime` with a timezone component"),
        ({"sku": None}, "field sku: expected `str`, got `null`"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(Refused, match=said):
        read(headers(CHANGE), messages.encode({**msgspec.to_builtins(CHANGE), **change}))


def test_a_missing_field_is_named() -> None:
    with pytest.raises(Refused, match="field sku: object missing required field `sku`"):
        read(headers(CHANGE), b'{"region": "north"}')


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"[]", b'{"a":' * 5000, b"7"])
def test_what_is_no_object_is_refused_and_nothing_else_happens(value: bytes | None) -> None:
    with pytest.raises(Refused, match=r"^stock-changed: "):
        read(headers(CHANGE), value)
