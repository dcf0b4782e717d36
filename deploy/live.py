"""The streaming jobs beside a demo with a broker, and what they show: a live bundle, an order in Kafka and Delta."""

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


def check(settings: Settings, region: Region, anchors: list[str], order_id: str, say: Say) -> None:
    """Look at products as several shoppers: soon they are offered together; the order is in Kafka and Delta.

    Raises Wrong.
    """
    edge = f"{settings.local_edge}/v1/{region.name}"
    looked_at, start = anchors[:LOOKED_AT], time.monotonic()
    release = ok(asking.ask(f"{edge}/bundles/{looked_at[0]}"))["release"]
    told = list(_looks(release, looked_at, region.k + SHOPPERS, region.consent_purposes))
    must(ok(asking.post(f"{edge}/events", told), 202)["accepted"] == len(told), "an event was not taken")
    bundle = _seen(edge, looked_at)
    parts = " + ".join(part["sku"] for part in bundle["components"])
    must(bundle["discount"] == 0, f"a live bundle has a discount: {bundle}")
    say(f"  live: {parts} offered {time.monotonic() - start:.0f} s after {region.k + SHOPPERS} shoppers looked at both")
    _in_kafka(settings, order_id, say)
    _in_delta(settings, region, order_id, say)


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


def _in_kafka(settings: Settings, order_id: str, say: Say) -> None:
    told = asking.tandem(settings, "streams", "show", "orders", "--key", order_id).splitlines()
    must(len(told) == 1 and order_id in told[0], f"topic orders: {len(told)} messages of order {order_id}, not 1")
    where, offset, *_ = told[0].split()
    say(f"  in Kafka: order {order_id} at {where}, offset {offset}")


def _in_delta(settings: Settings, region: Region, order_id: str, say: Say) -> None:
    asked = (
        "SELECT count(*) AS lines FROM sales_lines "  # noqa: S608 - a region's name, an id of ours
        f"WHERE source = 'orders' AND region = '{region.name}' AND order_id = '{order_id}'"
    )
    end = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < end:
        (row,) = asking.sql(settings, asked)
        if row["lines"]:
            say(f"  in Delta: order {order_id}, {row['lines']} lines")
            return
        time.sleep(1)
    raise Wrong(f"order {order_id} not in Delta in {SEEN_SECONDS:.0f} s; the log of tandem live says why")
