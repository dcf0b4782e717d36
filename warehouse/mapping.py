"""What a retailer's files call things and how they write them: the mapping file of `tandem import csv`."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import duckdb
import msgspec

from tandem import config
from warehouse.views import quoted

Kind = Literal["orders", "catalog", "prices", "stock", "customers"]


class Format(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a file is written."""

    ordered_at: str = ""
    """A strptime pattern such as `%d.%m.%Y %H:%M`; empty: ISO 8601."""
    time_zone: str = "UTC"
    """IANA name, for times that name no offset of their own."""
    encoding: str = "utf-8"
    delimiter: str = ","
    decimal: Literal[".", ","] = "."
    """What stands before the decimal places."""

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            raise ValueError(f"encoding {self.encoding!r} is not known; such as utf-8, cp1252, utf-16") from error
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"time_zone {self.time_zone!r} is no IANA time zone, such as Europe/Berlin") from error
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise ValueError(f"delimiter {self.delimiter!r} must be one character")
        if self.ordered_at:
            _try_pattern(self.ordered_at)


class _Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The files' own column names, by Tandem's."""

    format: Format = msgspec.field(default_factory=Format)
    constant: dict[str, str] = {}
    """Values for columns that the files lack."""

    def __post_init__(self) -> None:
        if unknown := sorted(self.constant.keys() - set(columns(type(self)))):
            raise ValueError(f"constant {unknown[0]!r} is no column here; columns are {', '.join(columns(type(self)))}")

    def own_name(self, column: str) -> str:
        """What the file calls `column`."""
        return str(getattr(self, column)) or column

    def is_named(self, column: str) -> bool:
        return bool(getattr(self, column))


class Orders(_Columns, frozen=True, kw_only=True, forbid_unknown_fields=True):
    order_id: str = ""
    ordered_at: str = ""
    sku: str = ""
    quantity: str = ""
    unit_price: str = ""
    customer_id: str = ""
    region: str = ""
    currency: str = ""
    list_price: str = ""


class Catalog(_Columns, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sku: str = ""
    title: str = ""
    brand: str = ""
    category: str = ""
    unit_cost: str = ""
    minimum_advertised_price: str = ""
    image_url: str = ""
    active: str = ""
    currency: str = ""
    """Of cost and minimum; where there is none: the one currency of all regions."""


class Prices(_Columns, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sku: str = ""
    list_price: str = ""
    sale_price: str = ""
    region: str = ""
    currency: str = ""


class Stock(_Columns, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sku: str = ""
    on_hand: str = ""
    region: str = ""


class Customers(_Columns, frozen=True, kw_only=True, forbid_unknown_fields=True):
    customer_id: str = ""
    region: str = ""
    consents: str = ""


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of a mapping file."""

    orders: Orders = msgspec.field(default_factory=Orders)
    catalog: Catalog = msgspec.field(default_factory=Catalog)
    prices: Prices = msgspec.field(default_factory=Prices)
    stock: Stock = msgspec.field(default_factory=Stock)
    customers: Customers = msgspec.field(default_factory=Customers)

    def of(self, kind: Kind) -> _Columns:
        found: _Columns = getattr(self, kind)
        return found


REQUIRED: dict[Kind, tuple[str, ...]] = {
    "orders": ("order_id", "ordered_at", "sku", "quantity", "unit_price"),
    "catalog": ("sku",),
    "prices": ("sku", "list_price"),
    "stock": ("sku", "on_hand"),
    "customers": ("customer_id",),
}


def columns(shape: Any) -> list[str]:
    """Tandem's columns of a kind of file, in the order of the design."""
    names = [field.name for field in msgspec.structs.fields(shape)]
    return [name for name in names if name not in ("format", "constant")]


def load(path: Path | None) -> Mapping:
    """The mapping in `path` (None: every column has Tandem's name). Raises ConfigError naming file, key and mend."""
    return Mapping() if path is None else config.load(path, Mapping)


def _try_pattern(pattern: str) -> None:
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SELECT try_strptime('', {quoted(pattern)})")
    except duckdb.Error as error:
        raise ValueError(f"ordered_at {pattern!r} is no strptime pattern, such as %d.%m.%Y %H:%M") from error
