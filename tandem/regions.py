"""A region: where one law, one currency and one Redis apply. `regions.toml` names them."""

from __future__ import annotations

import re
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from tandem import config
from tandem.errors import ConfigError
from tandem.money import EXPONENTS

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class ObjectStore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An S3-compatible bucket that the CDN reads from."""

    endpoint: str
    bucket: str
    public_url: str
    """Where a browser finds the bucket's root: the CDN's address, without a slash at its end."""


class Region(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    currency: str
    """ISO 4217."""
    time_zone: str
    """IANA name, used for local days."""
    redis_url: str
    """The primary: publishing and deltas write here."""
    object_store: ObjectStore
    title: str = ""
    redis_replica_url: str = ""
    """The replica nearest to this edge; empty: read the primary."""
    edge_url: str = ""
    """Where a browser finds the region's edge; empty: this machine's own (TANDEM_EDGE_HOST, TANDEM_EDGE_PORT)."""
    orders_url: str = ""
    """Where a browser finds the region's checkout; empty: this machine's own (TANDEM_ORDERS_HOST, …_PORT)."""
    push_per_second: int = 100_000
    """Entries that publishing writes to Redis in a second at most, for the sake of live traffic; 0: no limit."""
    k: int = 5
    """A published pair rests on at least this many distinct customers."""
    consent_purposes: list[str] = []
    """Purposes a customer must have consented to before a row of theirs reaches a feature or a model."""
    lowest_price_days: int = 0
    """Where the law wants an announced reduction to be one from the lowest price of so many days before (30 in the EU:
    Directive 98/6/EC, art. 6a; CJEU C-330/23): a bundle with a component that was cheaper in them gets no discount."""

    def __post_init__(self) -> None:
        if self.lowest_price_days < 0:
            raise ValueError(f"lowest_price_days must not be negative, not {self.lowest_price_days}")
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} must be 1 to 32 of a-z 0-9 _ - and start with a letter or digit")
        if self.currency not in EXPONENTS:
            raise ValueError(f"currency {self.currency!r} is no ISO 4217 code")
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")
        if self.push_per_second < 0:
            raise ValueError(f"push_per_second must not be negative, not {self.push_per_second}")
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"time_zone {self.time_zone!r} is no IANA time zone") from error

    @property
    def read_url(self) -> str:
        return self.redis_replica_url or self.redis_url


class Regions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of `regions.toml`."""

    region: list[Region]

    def __post_init__(self) -> None:
        names = [region.name for region in self.region]
        if not names:
            raise ValueError("at least one [[region]] is needed")
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"region named twice: {', '.join(sorted(twice))}")

    @property
    def names(self) -> list[str]:
        return [region.name for region in self.region]

    def get(self, name: str) -> Region:
        """The region called `name`. Raises ConfigError that lists the known ones."""
        for region in self.region:
            if region.name == name:
                return region
        raise ConfigError(f"no region {name!r} in regions.toml; known are {', '.join(self.names)}")


def load(folder: Path | None) -> Regions:
    """The regions in force: `regions.toml` in `folder`, or Tandem's defaults."""
    return config.load(config.path_of(folder, "regions.toml"), Regions)
