"""How a region's edge does, by its own /metrics: what it counted, what it counted since, what speaks against a release.

An edge may be several processes behind one address, each of which tells of itself alone: readings are told apart by
`tandem_process_info`, and each process is compared with its own first reading.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

from tandem.gates import Canary
from tandem.regions import Region
from tandem.settings import Settings

LINE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ASK_SECONDS = 3.0
Row = tuple[str, Mapping[str, str], float]


class Counted(NamedTuple):
    """What an edge has counted: since the start of a process, or within a window."""

    answers: float = 0
    empty: float = 0
    stale: float = 0
    requests: float = 0
    errors: float = 0
    seconds: Mapping[float, float] = {}
    """Upper bound to the requests that took no longer."""

    def plus(self, other: Counted, sign: int = 1) -> Counted:
        told = [own + sign * others for own, others in zip(self[:5], other[:5], strict=True)]
        bounds = sorted({*self.seconds, *other.seconds})
        seconds = {bound: self.seconds.get(bound, 0.0) + sign * other.seconds.get(bound, 0.0) for bound in bounds}
        return Counted(*told, seconds=seconds)

    @property
    def p99_seconds(self) -> float:
        """The bound of the histogram's bucket that the 99th percentile lies in; 0 where nothing was asked."""
        asked = max(self.seconds.values(), default=0.0)
        return min((bound for bound, count in self.seconds.items() if asked and count >= 0.99 * asked), default=0.0)

    def __str__(self) -> str:
        return (
            f"{self.requests:.0f} requests, {self.errors:.0f} failed, {self.answers:.0f} answers, {self.empty:.0f} "
            f"empty, {self.stale:.0f} stale, 99 % within {self.p99_seconds:g} s"
        )


class Reading(NamedTuple):
    """One answer of /metrics."""

    process: str
    release: str
    """What the process serves in the region now; empty: none yet."""
    counted: Counted


class Window:
    """What the processes of an edge have counted since each was first seen to serve a release."""

    def __init__(self, release_id: str) -> None:
        self._release_id = release_id
        self._first: dict[str, Counted] = {}
        self._last: dict[str, Counted] = {}
        self.behind: dict[str, tuple[float, str]] = {}
        """Process to since when it was seen to serve another release, and which."""

    def note(self, reading: Reading, now: float) -> None:
        """Take in a reading of the moment `now`, in seconds of a clock that never goes back."""
        if reading.release != self._release_id:
            since = self.behind.get(reading.process, (now, ""))[0]
            self.behind[reading.process] = since, reading.release
            return
        self.behind.pop(reading.process, None)
        self._first.setdefault(reading.process, reading.counted)
        self._last[reading.process] = reading.counted

    def behind_for(self, now: float, seconds: float) -> str:
        """What a process serves that has not followed for more than `seconds`; empty where all have."""
        late = [release or "nothing" for since, release in self.behind.values() if now - since > seconds]
        return late[0] if late else ""

    @property
    def counted(self) -> Counted:
        found = Counted()
        for process, last in self._last.items():
            found = found.plus(last).plus(self._first[process], -1)
        return found


def read(settings: Settings, region: Region) -> Reading | None:
    """What the region's edge says; None where it does not answer, or does not serve the region."""
    address = (region.edge_url or settings.local_edge).rstrip("/")
    key = {"X-Tandem-Key": settings.admin_key} if settings.admin_key else {}
    asked = urllib.request.Request(f"{address}/metrics", headers=key)  # noqa: S310 - http
    try:
        with urllib.request.urlopen(asked, timeout=ASK_SECONDS) as answer:  # noqa: S310
            return parsed(answer.read().decode(), region.name)
    except (OSError, ValueError):
        return None


def parsed(text: str, region: str) -> Reading | None:
    """A Prometheus text as a reading of one region; None where it tells nothing of that region."""
    rows = [(name, dict(LABEL.findall(labels)), float(value)) for name, labels, value in LINE.findall(text)]
    serves = [labels["release"] for name, labels, _ in rows if name == "tandem_release" and labels["region"] == region]
    process = [labels["id"] for name, labels, _ in rows if name == "tandem_process_info"]
    if not serves:
        return None
    return Reading(process[0] if process else "", serves[0], _counted(rows, region))


def _counted(rows: list[Row], region: str) -> Counted:
    answers = [(labels, value) for name, labels, value in rows if _is(name, labels, "tandem_answers_total", region)]
    asked = [(labels, value) for name, labels, value in rows if name == "tandem_requests_total" and _ours(labels)]
    seconds: dict[float, float] = {}
    for name, labels, value in rows:
        if name == "tandem_request_seconds_bucket" and _ours(labels):
            seconds[float(labels["le"])] = seconds.get(float(labels["le"]), 0.0) + value
    return Counted(
        answers=sum(value for _, value in answers),
        empty=sum(value for labels, value in answers if labels["empty"] == "true"),
        stale=sum(value for labels, value in answers if labels["stale"] == "true"),
        requests=sum(value for _, value in asked),
        errors=sum(value for labels, value in asked if labels["status"].startswith("5")),
        seconds=seconds,
    )


def _is(name: str, labels: Mapping[str, str], metric: str, region: str) -> bool:
    return name == metric and labels["region"] == region


def _ours(labels: Mapping[str, str]) -> bool:
    """Of a route that shoppers ask."""
    return labels["route"].startswith("/v1/")


def judged(asked: Canary, before: Counted, window: Counted) -> list[str]:
    """What a window says against a release, given what the edge had counted before it."""
    found = []
    if window.requests >= asked.min_answers:
        share = window.errors / window.requests
        if share > asked.max_error_share:
            found.append(f"{share:.1%} of the requests failed, at most {asked.max_error_share:.1%} asked for")
        if window.p99_seconds > asked.max_p99_seconds:
            found.append(f"99 % within {window.p99_seconds:g} s, at most {asked.max_p99_seconds:g} s asked for")
    if window.answers >= asked.min_answers:
        for name, most in (("empty", asked.max_empty_rise), ("stale", asked.max_stale_rise)):
            now, then = getattr(window, name) / window.answers, getattr(before, name) / max(before.answers, 1.0)
            if now - then > most:
                found.append(f"{now:.1%} of the answers are {name}, {then:.1%} before; a rise of {most:.1%} is allowed")
    return found
