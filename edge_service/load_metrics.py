"""How hard pressed a process is, for Prometheus: who was refused, how late its loop came round, what it holds."""

from __future__ import annotations

from collections.abc import Iterable

from edge_service.admission import Admission
from edge_service.bodies import Bodies
from edge_service.exposition import Family
from edge_service.pulse import Pulse


def collected(admission: Admission, pulse: Pulse, bodies: Bodies) -> Iterable[Family]:
    refused = Family(
        "tandem_refused_total", "Requests refused before they were looked at, not counted elsewhere", "counter"
    )
    for reason in ("late", "rate"):
        refused.add(admission.refused[reason], reason=reason)
    late = Family("tandem_loop_late_seconds", "The latest that the event loop came round since this was asked last")
    late.add(pulse.longest())
    held = Family("tandem_bodies_bytes", "Bodies that are on their way")
    held.add(bodies.held)
    yield from (refused, late, held)
