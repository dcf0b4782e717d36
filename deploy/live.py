"""The streaming jobs beside a demo with a broker, and what they have to show: an order in Delta, a live bundle."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from deploy import asking, services
from deploy.questions import Say, Wrong, must, ok
from deploy.services import Server
from tandem.regions import Region
from tandem.settings import Settings

SEEN_SECONDS = 120.0
"""In which what shoppers turn to has to be offered, on a busy machine."""
SHOPPERS = 3
"""More than the region's k, who look at the same products."""
LOOKED_AT = 8
"""Products that each of them looks at."""
READY = "live: Kafka"
"""What `tandem live` says when it follows."""


def servers(settings: Settings) -> list[Server]:
    """What brings the edges' events to Kafka, and everything from there into the lake."""
    return [_process(settings, "events", ["events", "--follow"], ""), _process(settings, "live", ["live"], READY)]


def _process(settings: Settings, name: str, command: list[str], ready: str) -> Server:
    """One that listens nowhere; it is ready when its log says so."""
    state = services.run_folder(settings) / f"{name}.json"
    log = state.with_suffix(".log")

    def fresh() -> list[str]:
        log.unlink(missing_ok=True)
        return [services.binary("tandem"), *command]

    def ping() -> bool:
        return not ready or (log.exists() and ready in log.read_text(encoding="utf-8", errors="replace"))

    return Server(name=name, port=0, state=state, command=fresh, ping=ping, environment=asking.environment(settings))


def check(settings: Settings, region: Region, anchors: list[str], say: Say) -> None:
    """Look at products as several shoppers: soon they are offered together. What was bought is in Delta, or Wrong."""
    edge = f"{settings.local_edge}/v1/{region.name}"
    looked_at, start = anchors[:LOOKED_AT], time.monotonic()
    release = ok(asking.ask(f"{edge}/bundles/{looked_at[0]}"))["release"]
    told = list(_looks(release, looked_at, region.k + SHOPPERS, region.consent_purposes))
    must(ok(asking.post(f"{edge}/events", told), 202)["accepted"] == len(told), "an event was not taken")
    bundle = _seen(edge, looked_at)
    parts = " + ".join(part["sku"] for part in bundle["components"])
    must(bundle["discount"] == 0, f"a live bundle has a discount: {bundle}")
    say(f"  live: {parts} offered {time.monotonic() - start:.0f} s after {region.k + SHOPPERS} shoppers looked at both")
    _in_delta(settings, region, say)


def _looks(release: str, anchors: list[str], shoppers: int, consents: list[str]) -> Iterator[dict[str, Any]]:
    for number in range(shoppers):
        for anchor in anchors:
            yield {
                "kind": "exposure",
                "event_id": uuid.uuid4().hex,
                "at": datetime.now(UTC).isoformat(),
                "release": release,
                "session_id": f"demo-{number}-{release}",
                "consents": consents,
                "anchor": anchor,
                "bundle_ids": [],
            }


def _seen(edge: str, anchors: list[str]) -> dict[str, Any]:
    """The first bundle of these products that says that it is live."""
    end = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < end:
        for anchor in anchors:
            for bundle in ok(asking.ask(f"{edge}/bundles/{anchor}"))["bundles"]:
                if bundle.get("source") == "live":
                    return dict(bundle)
        time.sleep(0.5)
    raise Wrong(f"{edge}: no live bundle in {SEEN_SECONDS:.0f} s; the log of tandem live says why")


def _in_delta(settings: Settings, region: Region, say: Say) -> None:
    """An order that was placed here lies in sales_lines."""
    asked = (
        "SELECT count(DISTINCT order_id) AS orders, count(*) AS lines FROM sales_lines "  # noqa: S608 - a region's name
        f"WHERE source = 'orders' AND region = '{region.name}'"
    )
    end = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < end:
        (row,) = asking.sql(settings, asked)
        if row["orders"]:
            say(f"  in Delta: {row['orders']} orders placed here, {row['lines']} lines")
            return
        time.sleep(1)
    raise Wrong(f"{region.name}: no order in Delta in {SEEN_SECONDS:.0f} s; the log of tandem live says why")
