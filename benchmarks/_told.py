"""What a benchmark tells: a table on the terminal, the same as JSON, and a picture."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """What was measured several times."""

    name: str
    values: Sequence[float]
    unit: str = "s"

    @property
    def value(self) -> float:
        return statistics.median(self.values)


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {platform.system()}"


def most_megabytes(process: str) -> float:
    """The most memory that a process (its number, or `self`) has had."""
    (line,) = [line for line in Path("/proc", process, "status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def table(
    rows: Sequence[Row],
    ratios: Mapping[str, float],
    floors: Mapping[str, float],
    ceilings: Mapping[str, float] | None = None,
) -> str:
    """The rows with median and spread, and the ratios with what they have to reach, or to stay below."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':<{width}}     median       least        most"]
    lines += [
        f"{row.name:<{width}} {row.value:10.2f}  {min(row.values):10.2f}  {max(row.values):10.2f}  {row.unit}"
        for row in rows
    ]
    lines.append("")
    for name, ratio in ratios.items():
        bound = f"  (at least {floors[name]:g})" if name in floors else ""
        if ceilings and name in ceilings:
            bound = f"  (at most {ceilings[name]:g})"
        lines.append(f"{name:<{width}} {ratio:10.2f}{bound}")
    return "\n".join(lines)


def write_json(path: Path, rows: Sequence[Row], ratios: Mapping[str, float], **further: Any) -> None:
    held = {
        "machine": machine(),
        "rows": [{"name": row.name, "value": row.value, "unit": row.unit, "values": list(row.values)} for row in rows],
        "ratios": dict(ratios),
        **further,
    }
    path.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def draw(path: Path, rows: Sequence[Row], title: str) -> None:
    """Bars of the rows in seconds, with their spread."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row.unit == "s"]
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(shown) + 1.2), layout="constrained")
    for place, row in enumerate(reversed(shown)):
        colour = "#1b7f5c" if row.name.startswith("tandem") else "#9aa5b1"
        axes.barh(place, row.value, color=colour)
        axes.plot([min(row.values), max(row.values)], [place, place], color="#222222", linewidth=1)
        axes.text(max(row.values), place, f" {row.value:.2f} s", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [row.name for row in reversed(shown)], fontsize=8)
    axes.set_xlabel("seconds, median; line: least to most")
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(path)
    plt.close(figure)
