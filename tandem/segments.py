"""A segment: a cohort of customers, named by a SQL predicate. `segments.toml` lists them; the first match wins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tandem import config

EVERYONE = "everyone"
"""The segment of those whom no predicate matches, and of orders without a customer."""
ALL = "*"
"""In the place of a segment: a whole region; in the place of a region: everything."""


Publish = Literal["where-it-helps", "always", "never"]
"""Which segments get lists of their own: those that gain on later orders over everyone's list and over a placebo of
shuffled customers; every one; or none. Who is in which segment is stored in any case."""
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    where: str
    """A SQL predicate over customer attributes (as text) and behaviour: see `Segments`."""
    title: str = ""
    requires: list[str] = []
    """Attributes it rests on: where the customers file has not all of them, nobody is in the segment."""
    publish: Publish = "where-it-helps"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", self.name) or self.name == EVERYONE:
            raise ValueError(f"name {self.name!r} must be 1 to 32 of a-z 0-9 _ - and not {EVERYONE!r}")
        if not self.where.strip() or ";" in self.where:
            raise ValueError(f"where of segment {self.name!r} must be one SQL predicate")


class Learned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Segments learned from what customers buy."""

    count: Annotated[int, msgspec.Meta(ge=0, le=50)] = 8
    """How many at most; 0: none are learned."""
    level: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    """What customers are compared by: 0 the products themselves, 1 the coarsest level of categories, 2 the next …"""
    features: Annotated[int, msgspec.Meta(ge=2, le=1_000)] = 100
    """How many of those, the most bought first."""
    min_customers: Annotated[int, msgspec.Meta(ge=2)] = 50
    """A segment of fewer customers is not made."""
    stickiness: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    """A customer changes segment only where another is nearer by more than this share."""
    publish: Publish = "where-it-helps"


class Segments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of `segments.toml`.

    Predicates may use, per region and customer: `recency_days` (days from the last order to as_of),
    `frequency` (orders in the window), `spend` (major units of the region's currency in the window), and any attribute
    of the customers file by its own name.
    """

    segment: list[Segment] = []
    learned: Learned = Learned(count=0)
    """Without this table in the file, none are learned."""
    first: Literal["learned", "predicates"] = "learned"
    """Which a customer belongs to who would be in one of each."""
    window_days: int = 365
    """How many days before as_of behaviour is counted over."""

    def __post_init__(self) -> None:
        names = [segment.name for segment in self.segment]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"segment named twice: {', '.join(sorted(twice))}")
        if self.window_days < 1:
            raise ValueError(f"window_days must be at least 1, not {self.window_days}")

    @property
    def names(self) -> list[str]:
        """The segments with predicates, `everyone` last; those that are learned have names of their own."""
        return [segment.name for segment in self.segment] + [EVERYONE]


def load(folder: Path | None) -> Segments:
    """The segments in force: `segments.toml` in `folder`, or Tandem's defaults."""
    return config.load(config.path_of(folder, "segments.toml"), Segments)
