"""How hard pressed a process is, for Prometheus: who was refused, how late its loop came round, what it holds."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_service.admission import Admission
from edge_service.bodies import Bodies
from edge_service.pulse import Pulse


class LoadMetrics(Collector):
    def __init__(self, admission: Admission, pulse: Pulse, bodies: Bodies) -> None:
        self._admission, self._pulse, self._bodies = admission, pulse, bodies

    def collect(self) -> Iterable[Metric]:
        refused = CounterMetricFamily(
            "tandem_refused", "Requests refused before they were looked at, not counted elsewhere", labels=["reason"]
        )
        for reason in ("late", "rate"):
            refused.add_metric([reason], self._admission.refused[reason])
        yield refused
        late = GaugeMetricFamily(
            "tandem_loop_late_seconds", "The latest that the event loop came round since this was asked last"
        )
        late.add_metric([], self._pulse.longest())
        yield late
        held = GaugeMetricFamily("tandem_bodies_bytes", "Bodies that are on their way")
        held.add_metric([], self._bodies.held)
        yield held
