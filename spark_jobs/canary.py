"""The trial of a release: one region sees it first, its edge's own metrics say how it does, then the others, or none.

Health is what changed on the edge's /metrics within the window, against all that it counted before: errors, empty and
stale answers, the 99th percentile of the time to answer; and where outcomes are known, purchases an exposure. An edge
process that serves several regions counts errors and times for all of them.
"""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

from edge_service.lease import publishing
from spark_jobs import events, release_switch
from spark_jobs.release_switch import Say
from tandem import gates
from tandem import regions as regions_file
from tandem.errors import TandemError
from tandem.gates import Canary
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import ledger
from warehouse.views import connect, first, quoted

LINE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ASK_SECONDS = 3.0
TAKEN_IN_SECONDS = 30.0
"""How long an edge may need to take a release in."""
POLL_SECONDS = 0.25


class Unhealthy(TandemError):
    """A release did badly on trial; it was rolled back and is quarantined."""


class Counted(NamedTuple):
    """What an edge process has counted since its start."""

    release: str
    """What it serves in the region now."""
    answers: float
    empty: float
    stale: float
    requests: float
    errors: float
    seconds: Mapping[float, float]
    """Upper bound to the requests that took no longer."""

    def since(self, before: Counted) -> Counted:
        told = [now - then for now, then in zip(self[1:6], before[1:6], strict=True)]
        seconds = {bound: count - before.seconds.get(bound, 0.0) for bound, count in self.seconds.items()}
        return Counted(self.release, *told, seconds)  # type: ignore[arg-type]

    @property
    def p99_seconds(self) -> float:
        """The bound of the histogram's bucket that the 99th percentile lies in; 0 where nothing was asked."""
        asked = max(self.seconds.values(), default=0.0)
        return min((bound for bound, count in self.seconds.items() if asked and count >= 0.99 * asked), default=0.0)


def run(settings: Settings, as_of: date, say: Say) -> str:
    """Try the build of `as_of` in the first region; promote it there if it does well. Gives the release's id.

    Safe to repeat. Raises Unhealthy where it was rolled back and quarantined (in every region where it waited),
    TandemError where nothing waits, where it is held, or where nothing can be known and a person has to go on.
    """
    asked = gates.load(settings.config_folder).canary
    region, row = _waiting(settings, as_of, asked)
    release_id = row["release_id"]
    if row["state"] == "current":
        say(f"{region.name}: {release_id} is current already")
        return str(release_id)
    before = counted(settings, region)
    with publishing(region, say) as store:
        release_switch.trial(settings, store, release_id, as_of, say)
    breaches, told = _health(settings, region, release_id, asked, before, say)
    if breaches:
        reason = f"unhealthy on trial in {region.name}: {'; '.join(breaches)}"
        _withdraw(settings, region, release_id, reason, say)
        raise Unhealthy(f"{release_id} is {reason}; it is quarantined, shoppers see what they saw before")
    release_switch.promote_named(settings, region.name, release_id, told, say)
    return str(release_id)


def counted(settings: Settings, region: Region) -> Counted | None:
    """What the region's edge has counted; None where it does not answer."""
    edge = region.edge_url or f"http://{_host(settings)}:{settings.edge_port}"
    try:
        with urllib.request.urlopen(f"{edge.rstrip('/')}/metrics", timeout=ASK_SECONDS) as answer:  # noqa: S310 - http
            return parsed(answer.read().decode(), region.name)
    except (OSError, ValueError):
        return None


def parsed(text: str, region: str) -> Counted:
    """The counters of a Prometheus text that say how a region does."""
    rows = [(name, dict(LABEL.findall(labels)), float(value)) for name, labels, value in LINE.findall(text)]

    def total(metric: str, **wanted: str) -> float:
        return sum(value for name, labels, value in rows if name == metric and wanted.items() <= labels.items())

    seconds: dict[float, float] = {}
    for name, labels, value in rows:
        if name == "tandem_request_seconds_bucket" and labels["route"].startswith("/v1/"):
            bound = float(labels["le"])
            seconds[bound] = seconds.get(bound, 0.0) + value
    asked = [
        (labels, value)
        for name, labels, value in rows
        if name == "tandem_requests_total" and labels["route"].startswith("/v1/")
    ]
    serves = [labels["release"] for name, labels, _ in rows if name == "tandem_release" and labels["region"] == region]
    return Counted(
        release=serves[0] if serves else "",
        answers=total("tandem_answers_total", region=region),
        empty=total("tandem_answers_total", region=region, empty="true"),
        stale=total("tandem_answers_total", region=region, stale="true"),
        requests=sum(value for _, value in asked),
        errors=sum(value for labels, value in asked if labels["status"].startswith("5")),
        seconds=seconds,
    )


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


def _waiting(settings: Settings, as_of: date, asked: Canary) -> tuple[Region, dict[str, Any]]:
    """Where the build of the day is tried, and its row there: the asked region, else the first that has it."""
    regions = regions_file.load(settings.config_folder)
    first_choice = regions.get(asked.region).name if asked.region else regions.names[0]
    rows = [row for row in ledger.latest(settings) if row["as_of"] == as_of]
    for name in sorted(regions.names, key=lambda name: name != first_choice):
        newest = {row["state"]: row for row in reversed(rows) if row["region"] == name}
        if held := newest.get("held"):
            raise TandemError(f"{held['release_id']} is held by {held['by']}: {held['reason']}; tandem go-on ends it")
        for state in ("canary", "sealed", "current"):
            if state in newest:
                return regions.get(name), newest[state]
    raise TandemError(f"no region has a sealed release of {as_of}; run the DAG, or tandem publish --as-of {as_of}")


def _health(
    settings: Settings, region: Region, release_id: str, asked: Canary, before: Counted | None, say: Say
) -> tuple[list[str], str]:
    """(what speaks against the release, what is to be told of its health)."""
    if before is None:
        return _unknown(asked, region, release_id, "no edge answers there", say)
    end = time.monotonic() + TAKEN_IN_SECONDS
    while (start := counted(settings, region)) is not None and start.release != release_id:
        if time.monotonic() > end:
            return [f"the edge did not take it in within {TAKEN_IN_SECONDS:g} s, it serves {start.release}"], ""
        time.sleep(POLL_SECONDS)
    time.sleep(settings.canary_seconds)
    now = counted(settings, region)
    if start is None or now is None:
        return ["the edge stopped answering"], ""
    window = now.since(start)
    found = judged(asked, before, window) + _conversion(settings, region, release_id, asked)
    told = (
        f"{window.requests:.0f} requests in {settings.canary_seconds:g} s, {window.errors:.0f} failed, "
        f"{window.answers:.0f} answers, {window.empty:.0f} empty, {window.stale:.0f} stale, "
        f"99 % within {window.p99_seconds:g} s"
    )
    say(f"{region.name}: {told}")
    if not found and window.answers < asked.min_answers:
        return _unknown(asked, region, release_id, told, say)
    return found, f"healthy on trial: {told}"


def _unknown(asked: Canary, region: Region, release_id: str, why: str, say: Say) -> tuple[list[str], str]:
    if asked.needs_traffic:
        raise TandemError(
            f"{region.name}: the health of {release_id} is not known ({why}); it stays on trial: "
            f"tandem go-on, or tandem rollback --region {region.name}"
        )
    say(f"{region.name}: the health of {release_id} is not known: {why}")
    return [], f"not enough traffic to judge: {why}"


def _conversion(settings: Settings, region: Region, release_id: str, asked: Canary) -> list[str]:
    """Purchases an exposure against the current release's, where both were shown often enough."""
    events.collect(settings, region)
    current = ledger.current(settings, region.name)
    rates = []
    with connect(settings, ("exposures", "outcomes")) as connection:
        for each in (release_id, current or ""):
            where = f"region = {quoted(region.name)} AND release_id = {quoted(each)}"
            shown = first(connection, f"SELECT coalesce(sum(len(bundle_ids)), 0) FROM exposures WHERE {where}")[0]
            bought = first(connection, f"SELECT count(*) FROM outcomes WHERE {where} AND kind = 'purchase'")[0]
            if shown < asked.min_exposures:
                return []
            rates.append(bought / shown)
    if rates[0] >= asked.min_conversion_share * rates[1]:
        return []
    return [f"{rates[0]:.2%} of what was shown was bought, {rates[1]:.2%} of the current release"]


def _withdraw(settings: Settings, region: Region, release_id: str, reason: str, say: Say) -> None:
    """Back in the region of the trial first, then never again in any; one out of reach keeps it waiting, unseen."""
    if ledger.current(settings, region.name) is None:
        raise Unhealthy(f"{release_id} is {reason}; {region.name} has nothing to go back to: build and publish another")
    release_switch.rollback(settings, region.name, reason, say)
    try:
        release_switch.in_each(settings, [], release_id, reason, say, release_switch.quarantine)
    except TandemError as error:
        say(str(error))


def _host(settings: Settings) -> str:
    return "127.0.0.1" if settings.edge_host in {"", "0.0.0.0", "::"} else settings.edge_host  # noqa: S104
