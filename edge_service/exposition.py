"""Metrics as Prometheus reads them: its text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Literal


class Family:
    """One metric, with a value for each set of labels."""

    def __init__(self, name: str, text: str, kind: Literal["counter", "gauge", "histogram"] = "gauge") -> None:
        self._name = name
        self._lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]

    def add(self, value: float, **labels: str) -> None:
        self._add("", value, labels)

    def add_histogram(self, bounds: Sequence[float], counts: Sequence[int], total: float, **labels: str) -> None:
        """`counts` of what fell below each of the bounds, not below the one before, and of what lies above them all."""
        for bound, count in zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True):
            self._add("_bucket", count, labels | {"le": bound})
        self._add("_count", sum(counts), labels)
        self._add("_sum", total, labels)

    def _add(self, end: str, value: float, labels: dict[str, str]) -> None:
        told = ",".join(f'{name}="{_escaped(text)}"' for name, text in sorted(labels.items()))
        self._lines.append(
            f"{self._name}{end}{{{told}}} {float(value)}" if told else f"{self._name}{end} {float(value)}"
        )

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


Collected = Callable[[], Iterable[Family]]
"""Says how things are at the moment it is asked."""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
