"""A release: one immutable set of bundles published for one region, its states and its id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Literal, cast

from tandem.errors import TandemError

State = Literal[
    "approved", "degraded", "staged", "sealed", "canary", "held", "current", "backup", "retired", "quarantined"
]

NEXT: dict[str, frozenset[str]] = {
    "": frozenset({"approved", "degraded", "staged"}),
    "approved": frozenset({"approved", "degraded", "staged", "quarantined", "retired"}),
    "degraded": frozenset({"degraded", "staged", "quarantined", "retired"}),
    "staged": frozenset({"approved", "degraded", "staged", "sealed", "quarantined", "retired"}),
    "sealed": frozenset({"degraded", "canary", "held", "current", "quarantined", "retired"}),
    "canary": frozenset({"held", "current", "retired", "quarantined"}),
    "held": frozenset({"sealed", "canary", "retired", "quarantined"}),
    "current": frozenset({"backup", "quarantined"}),
    "backup": frozenset({"current", "retired", "quarantined"}),
    "retired": frozenset({"approved", "degraded", "staged"}),
    "quarantined": frozenset(),
}
"""The states a release of one region may go to from each state; the empty state is before the first.

approved: a person let it pass a gate that it breaches. degraded: the region could not be reached when it was published.
canary: shoppers of this region see it on trial. held: a person stopped it on its way. backup: what a rollback goes to.
quarantined: never picked again.
"""
GONE: frozenset[State] = frozenset({"retired", "quarantined"})
"""States of a release that no region's pointer or rollback goes to."""


class WrongTransition(TandemError):
    """A release was asked to go to a state that its present one does not lead to."""


def approved(release_id: str, before: str) -> State:
    """The state of a release once a person let it pass a gate: what is sealed, or further, stays what it is.

    Raises WrongTransition for a quarantined one.
    """
    if before in ("", "staged", "retired", "quarantined"):
        return step(release_id, before, "approved")
    return cast("State", before)


def step(release_id: str, before: str, after: State) -> State:
    """`after`, if `before` leads to it. Raises WrongTransition that names what is allowed."""
    if after not in NEXT[before]:
        allowed = ", ".join(sorted(NEXT[before])) or "nothing: build a new release"
        raise WrongTransition(
            f"release {release_id} is {before or 'new'} and cannot become {after}; allowed: {allowed}"
        )
    return after


def release_id(as_of: date, inputs: Mapping[str, int], config_digest: str) -> str:
    """`YYYYMMDD-` and 12 hexadecimal digits: the same work gives the same id.

    `inputs` maps each fact table to the Delta version that was read.
    """
    text = json.dumps([as_of.isoformat(), sorted(inputs.items()), config_digest], separators=(",", ":"))
    return f"{as_of:%Y%m%d}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def entry_digest(key: bytes, value: bytes) -> int:
    """64 bits over one stored entry; `checksum` adds them up."""
    return int.from_bytes(entry_hash(key + b"\0" + value).digest(), "big")


def entry_hash(begin: bytes) -> hashlib.blake2b:
    """What `entry_digest` is made with, fed with the beginning of key, zero byte and value."""
    return hashlib.blake2b(begin, digest_size=8)


def checksum(digests: Iterable[int]) -> str:
    """Order-free checksum of a release: the sum of its entries' digests modulo 2^64, as 16 hexadecimal digits.

    A sum, so that partitions add theirs up in any order.
    """
    return f"{sum(digests) % 2**64:016x}"
