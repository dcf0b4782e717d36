"""The trial of a release: one region sees it first, its edge's own metrics say how it does, then the others, or none.

Health is what the edge's /metrics counted within the window, against all that it counted before: errors, empty and
stale answers, the 99th percentile of the time to answer; and where outcomes are known, purchases an exposure. An edge
process that serves several regions counts errors and times for all of them.
"""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from edge_service.lease import publishing
from spark_jobs import edge_health, events, release_switch
from spark_jobs.edge_health import Counted, Window
from spark_jobs.release_switch import Say
from tandem import gates
from tandem import regions as regions_file
from tandem.errors import TandemError
from tandem.gates import Canary
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import ledger
from warehouse.views import connect, first, quoted

TAKEN_IN_SECONDS = 30.0
"""How long a process of an edge may need to take a release in."""
POLL_SECONDS = 0.25
READINGS = 200
"""How often a long window is read."""
SILENT = 5
"""Readings in a row without an answer, after which an edge is taken to be gone."""
EARLY = 10
"""Times `min_answers`, with which a bad trial is ended before its time."""


class Unhealthy(TandemError):
    """A release did badly on trial; it was rolled back and is quarantined."""


def run(settings: Settings, release_id: str, names: Sequence[str], say: Say) -> None:
    """Try a release in the first of the regions `names` (none: all) that has it; promote it there if it does well.

    Safe to repeat. Raises Unhealthy where it was rolled back and quarantined (in every region where it waited),
    TandemError where it waits nowhere, where it is held, or where nothing can be known and a person has to go on.
    """
    asked = gates.load(settings.config_folder).canary
    region, row = _place(settings, release_id, names, asked)
    if row["state"] == "current":
        say(f"{region.name}: {release_id} is current already")
        return
    told = "was current before"
    if row["state"] != "backup":
        told = _tried(settings, region, row, asked, say)
    release_switch.promote_named(settings, region.name, release_id, told, say)


def _place(settings: Settings, release_id: str, names: Sequence[str], asked: Canary) -> tuple[Region, dict[str, Any]]:
    """Where a release is tried, and its row there: the asked region if that has it, else the first that does."""
    regions = regions_file.load(settings.config_folder)
    first_choice = asked.region and regions.get(asked.region).name
    chosen = sorted(names or regions.names, key=lambda name: name != first_choice)
    rows = {row["region"]: row for row in ledger.latest(settings) if row["release_id"] == release_id}
    for name in chosen:
        if name in rows and rows[name]["state"] == "held":
            raise TandemError(
                f"{release_id} is held in {name} by {rows[name]['by']}: {rows[name]['reason']}; "
                f"tandem go-on {release_id} ends that"
            )
    for name in chosen:
        if name in rows and rows[name]["state"] in ("sealed", "canary", "current", "backup"):
            return regions.get(name), rows[name]
    raise TandemError(f"no region has {release_id} sealed; look with tandem release show {release_id}")


def _tried(settings: Settings, region: Region, row: dict[str, Any], asked: Canary, say: Say) -> str:
    """Why a release may be promoted. Raises Unhealthy."""
    release_id = row["release_id"]
    before = edge_health.read(settings, region)
    with publishing(region, say) as store:
        release_switch.trial(settings, store, release_id, row["as_of"], say)
    if before is None:
        return _unknown(asked, region, release_id, "no edge answers there", say)
    window = Window(release_id)
    breaches = _watched(settings, region, asked, before.counted, window)
    breaches += _conversion(settings, region, release_id, asked)
    say(f"{region.name}: {window.counted}, within {settings.canary_seconds:g} s")
    if breaches:
        reason = f"unhealthy on trial in {region.name}: {'; '.join(breaches)}"
        _withdraw(settings, region, release_id, reason, say)
        raise Unhealthy(f"{release_id} is {reason}; it is quarantined, shoppers see what they saw before")
    if window.counted.answers < asked.min_answers:
        return _unknown(asked, region, release_id, str(window.counted), say)
    return f"healthy on trial: {window.counted}, within {settings.canary_seconds:g} s"


def _watched(settings: Settings, region: Region, asked: Canary, before: Counted, window: Window) -> list[str]:
    """Fill the window; gives what speaks against the release, as soon as enough of it does."""
    begun: float | None = None
    silent = 0
    while True:
        reading, now = edge_health.read(settings, region), time.monotonic()
        silent = 0 if reading else silent + 1
        if silent == SILENT:
            return ["the edge stopped answering"]
        if reading:
            window.note(reading, now)
            begun = begun or now
        found = edge_health.judged(asked, before, window.counted)
        if found and window.counted.requests >= EARLY * asked.min_answers:
            return found
        if late := window.behind_for(now, TAKEN_IN_SECONDS):
            return [f"the edge did not take it in within {TAKEN_IN_SECONDS:g} s, it serves {late}"]
        if begun is not None and not window.behind and now >= begun + settings.canary_seconds:
            return found
        time.sleep(max(POLL_SECONDS, settings.canary_seconds / READINGS))


def _unknown(asked: Canary, region: Region, release_id: str, why: str, say: Say) -> str:
    """What is told of a release that nobody could judge. Raises TandemError where that takes a person."""
    if asked.needs_traffic:
        raise TandemError(
            f"{region.name}: the health of {release_id} is not known ({why}); it stays on trial: "
            f"tandem go-on {release_id}, or tandem rollback --region {region.name}"
        )
    say(f"{region.name}: the health of {release_id} is not known: {why}")
    return f"not enough traffic to judge: {why}"


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
