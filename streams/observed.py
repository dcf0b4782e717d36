"""What a projector tells of itself: numbers for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

AGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300)


class Observed:
    """The numbers of one region's projector."""

    def __init__(self, region: str) -> None:
        self._region, self.registry = region, CollectorRegistry()
        records = self._counter("records", "Records read, by what became of them", "outcome")
        self.applied = records.labels(region, "applied")
        self.stale = records.labels(region, "stale")
        """Older than what was there, or the same once more."""
        self.elsewhere = records.labels(region, "elsewhere")
        """Of another region."""
        self.refused = records.labels(region, "refused")
        """Now among the dead letters."""
        self.moved = self._counter("moved", "Times that places had to be read anew").labels(region)
        self._lag = self._gauge("lag_records", "Records that were not read yet", "topic", "partition")
        self.behind = self._gauge(
            "behind_seconds", "Age of the newest record in Redis while more wait; 0: none waits"
        ).labels(region)
        self.snapshot = self._gauge(
            "snapshot_age_seconds", "Age of the snapshot that a replay would begin with; -1: there is none"
        ).labels(region)
        self.age = Histogram(
            "tandem_projector_age_seconds",
            "From the broker's time of a batch's newest record until it was in Redis",
            ["region"],
            buckets=AGES,
            registry=self.registry,
        ).labels(region)

    def lag(self, topic: str, partition: int, records: int) -> None:
        self._lag.labels(self._region, topic, partition).set(records)

    def forget_lags(self) -> None:
        """Partitions may be another's now."""
        self._lag.clear()

    def serve(self, port: int) -> None:
        """Answer Prometheus on loopback."""
        start_http_server(port, "127.0.0.1", self.registry)

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"tandem_projector_{name}", says, ["region", *labels], registry=self.registry)

    def _gauge(self, name: str, says: str, *labels: str) -> Gauge:
        return Gauge(f"tandem_projector_{name}", says, ["region", *labels], registry=self.registry)
