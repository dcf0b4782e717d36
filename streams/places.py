"""Where the reading of a partition stands, and where it has to begin: pure decisions.

A place lies in the region's Redis beside the state, and moves on with it in one step. So a projector that was killed,
or lost its partition while it slept, can neither lose a message nor bring one twice.
"""

from __future__ import annotations

from typing import NamedTuple

from tandem.errors import TandemError

Part = tuple[str, int]
"""Topic, as the broker names it, and partition."""


class Gone(TandemError):
    """Messages that are needed were dropped by the broker."""


class Place(NamedTuple):
    """What was read of a partition; as text in Redis three numbers."""

    offset: int
    """Of the next message to be read."""
    again: int = 0
    """Messages before this offset were read once already: they are told again over a snapshot that came later."""
    snapshot: int = 0
    """Mark of the snapshot that was there when reading began; 0: none."""

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises ValueError for anything else than three numbers."""
        offset, again, snapshot = map(int, text.split())
        return cls(offset, again, snapshot)

    def __str__(self) -> str:
        return f"{self.offset} {self.again} {self.snapshot}"


class Partition(NamedTuple):
    """What the broker says of a partition."""

    part: Part
    first: int
    """The oldest offset that is there."""
    end: int
    """The offset that the next message will have."""
    at_snapshot: int
    """The first offset from the snapshot's time on; `end`: nothing came since."""
    snapshot_is_kept: bool = True
    """Whether the snapshot is younger than what the topic keeps."""


def begin(stored: Place | None, found: Partition, snapshot: int, *, accept_gap: bool = False) -> Place:
    """Where to read from; `snapshot`: the mark of the newest one, 0 without one.

    Where nothing changed: where reading stood. After a new snapshot: from its time on, once more. In a Redis that knows
    nothing: from the snapshot on, or else all there is. Raises Gone where messages that are needed are not there any
    more, unless `accept_gap`.
    """
    if stored is not None and stored.offset > found.end:
        stored = None  # the topic was made anew
    if stored is not None and stored.offset >= found.first:
        if stored.snapshot == snapshot:
            return stored
        return Place(min(found.at_snapshot, stored.offset), max(stored.again, stored.offset), snapshot)
    start = found.at_snapshot if snapshot else found.first
    superseded = snapshot and (stored is None or snapshot != stored.snapshot)
    whole = found.snapshot_is_kept or found.at_snapshot > found.first or found.first == 0
    if not accept_gap and ((stored is not None and not superseded) or (superseded and not whole)):
        raise Gone(_gone(stored, found))
    return Place(max(start, found.first), 0, snapshot)


def _gone(stored: Place | None, found: Partition) -> str:
    topic, partition = found.part
    needed = "messages since the newest snapshot" if stored is None else f"messages from {stored.offset} on"
    return (
        f"topic {topic}, partition {partition}: {needed} are needed, but the broker kept only those from "
        f"{found.first} on; publish a newer snapshot (tandem publish), or accept the gap with --from-earliest, "
        "and give the topic a longer retention.ms"
    )
