"""A release's id comes from its work; its states follow one another as the design says."""

from __future__ import annotations

import itertools
import random
from datetime import date

import pytest

from tandem.release import NEXT, WrongTransition, checksum, entry_digest, release_id, step

DAY = date(2026, 1, 5)
INPUTS = {"sales_lines": 3, "products": 1}


def test_the_same_work_gives_the_same_id() -> None:
    turned = dict(reversed(INPUTS.items()))
    assert release_id(DAY, INPUTS, "c") == release_id(DAY, turned, "c")
    assert release_id(DAY, INPUTS, "c").startswith("20260105-")


@pytest.mark.parametrize(
    "other",
    [
        (date(2026, 1, 6), INPUTS, "c"),
        (DAY, INPUTS | {"products": 2}, "c"),
        (DAY, {"sales_lines": 3}, "c"),
        (DAY, INPUTS, "d"),
    ],
)
def test_other_work_gives_another_id(other: tuple[date, dict[str, int], str]) -> None:
    assert release_id(*other) != release_id(DAY, INPUTS, "c")


def test_a_release_goes_from_staged_to_retired_and_a_backup_may_come_back() -> None:
    path = ["", "staged", "sealed", "canary", "current", "backup", "current", "backup", "retired"]
    for before, after in itertools.pairwise(path):
        assert step("r", before, after) == after  # type: ignore[arg-type]


@pytest.mark.parametrize("after", sorted(set(NEXT) - {""}))
def test_what_was_quarantined_is_never_picked_again(after: str) -> None:
    with pytest.raises(WrongTransition, match="build a new release"):
        step("r", "quarantined", after)  # type: ignore[arg-type]


@pytest.mark.parametrize("before", ["", "staged"])
def test_an_unsealed_release_never_becomes_current(before: str) -> None:
    with pytest.raises(WrongTransition, match="allowed: "):
        step("r7", before, "current")


def test_every_state_that_can_be_reached_can_be_left_or_is_an_end() -> None:
    assert set().union(*NEXT.values()) == set(NEXT) - {""}


def test_a_checksum_does_not_depend_on_order_or_partition_and_notices_any_change() -> None:
    entries = [(f"k{n}".encode(), f"v{n}".encode()) for n in range(100)]
    digests = [entry_digest(key, value) for key, value in entries]
    shuffled = random.Random(1).sample(digests, len(digests))
    assert checksum(shuffled) == checksum(digests)
    assert checksum([sum(digests[:40]) % 2**64, sum(digests[40:]) % 2**64]) == checksum(digests)
    assert checksum(digests[1:]) != checksum(digests)
    assert checksum([*digests[1:], entry_digest(b"k0", b"other")]) != checksum(digests)
    assert entry_digest(b"a", b"bc") != entry_digest(b"ab", b"c")
    assert len(checksum([])) == 16
