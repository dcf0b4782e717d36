"""What the evaluations of a day say, as one HTML page with pictures that needs no network and no script."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from tandem.errors import TandemError
from tandem.segments import ALL
from tandem.settings import Settings
from warehouse import lake
from warehouse.views import connect

RANKED = ("hit@5", "tail@5", "ndcg@10", "coverage")
"""What every ranking is measured by, side by side."""
SAID = {
    "hit@5": "a hit among five",
    "tail@5": "… in the tail",
    "ndcg@10": "NDCG at 10",
    "coverage": "products shown",
}
OURS, THEIRS = "#0b6e4f", "#7a8793"
OWN = ("ranker", "segment", "bundles", "cold", "substitutes", "discounts")
"""Subjects that are Tandem's own; the rest are what it is measured against."""
INCHES = 7.2


class Row(NamedTuple):
    """A row of `evaluations`; `at` is the point of a curve, else empty."""

    region: str
    segment: str
    measure: str
    subject: str
    at: str
    value: float
    low: float
    high: float
    queries: int

    @property
    def x(self) -> float | None:
        """The point of the curve as a number: of `tail=0.4` 0.4."""
        try:
            return float(self.at.rpartition("=")[2])
        except ValueError:
            return None


def write(settings: Settings, as_of: date, file: Path) -> None:
    """The page of the day's evaluations. Raises TandemError where there are none."""
    rows, cut = read(settings, as_of)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(rows, as_of, cut), encoding="utf-8")


def read(settings: Settings, as_of: date) -> tuple[list[Row], date]:
    """The rows of the day, and the day before which was learned. Raises TandemError where there are none."""
    found: list[tuple[Any, ...]] = []
    if lake.exists(settings, "evaluations"):
        with connect(settings, ("evaluations",)) as connection:
            found = connection.execute(
                """SELECT region, segment, metric, value, low, high, queries, learned_before FROM evaluations
                   WHERE as_of = ? ORDER BY region, segment, metric""",
                [as_of],
            ).fetchall()
    if not found:
        raise TandemError(f"there are no evaluations of {as_of}; run tandem evaluate --as-of {as_of}")
    return [_row(*row[:-1]) for row in found], found[0][-1]


def page(rows: Sequence[Row], as_of: date, learned_before: date) -> str:
    """The whole page."""
    parts = [f'<section aria-label="{html.escape(title)}">{body}</section>' for title, body in _sections(rows) if body]
    return _PAGE.format(as_of=as_of, cut=learned_before, sections="\n".join(parts))


def _sections(rows: Sequence[Row]) -> Iterable[tuple[str, str]]:
    yield "Rankings", _rankings(rows)
    yield "Frontier", _frontier(rows)
    yield "Segments", _segments(rows)
    yield "Calibration", _calibration(rows)
    yield "Discounts", _profits(rows)
    yield "The rest", _rest(rows)
    yield "All figures", _table([row for row in rows if not row.at])
    yield "All curves", _table([row for row in rows if row.at])


def _row(region: str, segment: str, metric: str, *numbers: Any) -> Row:
    measure, _, rest = metric.rpartition("/")
    subject, _, at = rest.partition("@")
    return Row(region, segment, measure or metric, subject if measure else "", at, *numbers)


def _rankings(rows: Sequence[Row]) -> str:
    found = [row for row in rows if _is_ranking(row)]
    if not found:
        return ""
    by_hits = {row.subject: row.value for row in found if row.measure == "hit@5"}
    subjects = sorted({row.subject for row in found if row.subject in by_hits}, key=lambda name: by_hits[name])
    measures = [name for name in RANKED if any(row.measure == name for row in found)]

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        for axis, measure in zip(axes, measures, strict=True):
            held = {row.subject: row for row in found if row.measure == measure}
            _dots(axis, subjects, [held.get(name) for name in subjects])
            axis.set_title(SAID[measure], fontsize=8)

    picture = _picture(draw, 0.6 + 0.24 * len(subjects), "Every ranking with its interval, best hits on top")
    return f"<h2>What to show with an anchor</h2>{picture}{_table(found)}"


def _frontier(rows: Sequence[Row]) -> str:
    points: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.measure.startswith("frontier_") and _of_all(row):
            points.setdefault(row.at, {})[row.measure.removeprefix("frontier_")] = row
    whole = {at: held for at, held in points.items() if {"hit@5", "tail@5"} <= set(held)}
    if not whole:
        return ""
    others = [row for row in rows if _is_ranking(row) and row.measure in ("hit@5", "tail@5")]

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        ordered = sorted(whole.values(), key=lambda held: held["tail@5"].value)
        tails, hits = ([held[name] for held in ordered] for name in ("tail@5", "hit@5"))
        xs, ys = ([row.value for row in held] for held in (tails, hits))
        axis.errorbar(xs, ys, yerr=_spread(hits), marker="o", color=OURS, lw=1, ms=4, elinewidth=0.7)
        for tail in tails:
            at = whole[tail.at]["hit@5"]
            axis.annotate(tail.at, (tail.value, at.value), fontsize=6, xytext=(3, 4), textcoords="offset points")
        _baselines(axis, others)
        axis.set_xlabel("queries with a hit outside the 100 most popular products", fontsize=8)
        axis.set_ylabel("queries with a hit among five", fontsize=8)

    picture = _picture(
        draw, 3.6, "Hits against hits in the tail: each point is a setting, beside the textbook's rankings"
    )
    return f"<h2>The frontier, and where rules.toml may stand on it</h2>{picture}"


def _baselines(axis: Any, others: Sequence[Row]) -> None:
    held: dict[str, dict[str, float]] = {}
    for row in others:
        held.setdefault(row.subject, {})[row.measure] = row.value
    for name, found in held.items():
        if len(found) == 2:
            axis.plot(found["tail@5"], found["hit@5"], "x", color=THEIRS, ms=4)
            axis.annotate(name, (found["tail@5"], found["hit@5"]), fontsize=6, color=THEIRS, xytext=(3, -7),
                          textcoords="offset points")  # fmt: skip


def _segments(rows: Sequence[Row]) -> str:
    found = [row for row in rows if row.segment != ALL and not row.at and not _is_profit(row)]
    gains = [row for row in found if row.measure == "segment_gain"]
    picture = _gains(
        gains, "hits gained over what stands in for the segment", "What each segment gains, with its interval"
    )
    return f"<h2>Segments must earn their place</h2>{picture}{_table(found)}" if found else ""


def _profits(rows: Sequence[Row]) -> str:
    found = [row for row in rows if row.measure == "profit_gain" and not row.at]
    picture = _gains(
        found,
        "minor units per 1,000 later orders, against no discount",
        "Profit that discounts add or cost on later orders, by segment",
    )
    return f"<h2>What discounts earn</h2>{picture}{_table([row for row in rows if _is_profit(row)])}" if found else ""


def _gains(gains: Sequence[Row], title: str, said: str) -> str:
    """A picture of what each segment gains, on both sides of nothing."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        _dots(axis, [f"{row.region} · {row.segment} · {row.subject}" for row in gains], gains)
        axis.axvline(0, color=THEIRS, lw=0.8)
        axis.set_title(title, fontsize=8)

    return _picture(draw, 0.7 + 0.2 * len(gains), said) if gains else ""


def _calibration(rows: Sequence[Row]) -> str:
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.measure.startswith("calibration") and row.x is not None and _of_all(row):
            curves.setdefault((row.measure, row.subject), []).append(row)
    if not curves:
        return ""

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(curves), squeeze=False)[0]
        for axis, ((measure, subject), held) in zip(axes, curves.items(), strict=True):
            ordered = sorted(held, key=lambda row: row.x or 0.0)
            xs, ys = [row.x or 0.0 for row in ordered], [row.value for row in ordered]
            axis.plot([0, max(xs + ys)], [0, max(xs + ys)], color=THEIRS, lw=0.8)
            axis.errorbar(xs, ys, yerr=_spread(ordered), fmt="o", color=OURS, ms=4, elinewidth=0.8)
            axis.set_title(f"{subject}: {measure.replace('_', ' ')}", fontsize=8)
            axis.set_xlabel("predicted", fontsize=8)
            axis.set_ylabel("seen later", fontsize=8)

    return f"<h2>Predicted against seen</h2>{_picture(draw, 3.2, 'Predicted and later shares; on the line they agree')}"


def _rest(rows: Sequence[Row]) -> str:
    """A picture per measure that no other section draws."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        drawn = _is_ranking(row) or _is_profit(row) or row.measure.startswith(("frontier", "calibration"))
        if not (drawn or row.at or row.segment != ALL):
            found.setdefault(row.measure, []).append(row)
    return "".join(_measure(name, held) for name, held in found.items())


def _measure(name: str, rows: Sequence[Row]) -> str:
    labels = [row.subject if row.region == ALL else f"{row.region} · {row.subject}".rstrip(" ·") for row in rows]

    def draw(figure: Any) -> None:
        _dots(figure.subplots(), labels, rows)

    title = html.escape(name.replace("_", " "))
    return f"<h3>{title}</h3>{_picture(draw, 0.5 + 0.22 * len(rows), title)}"


def _dots(axis: Any, labels: Sequence[str], rows: Sequence[Row | None]) -> None:
    """A dot with its interval per label, the first lowest."""
    for place, row in enumerate(rows):
        if row is not None:
            color = OURS if row.subject.startswith(OWN) else THEIRS
            axis.errorbar([row.value], [place], xerr=_spread([row]), fmt="o", color=color, ms=4, elinewidth=1.2)
    axis.set_yticks(range(len(labels)), labels, fontsize=7)
    axis.set_ylim(-0.6, len(labels) - 0.4)
    axis.grid(axis="x", lw=0.3)


def _spread(rows: Sequence[Row]) -> list[list[float]]:
    """How far each interval reaches below and above its value."""
    return [[max(row.value - row.low, 0.0) for row in rows], [max(row.high - row.value, 0.0) for row in rows]]


def _picture(draw: Callable[[Any], None], height: float, said: str) -> str:
    """An SVG of `draw`'s figure, the same bytes for the same rows."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "tandem", "svg.fonttype": "none", "font.size": 8, "axes.linewidth": 0.5}):
        figure = Figure(figsize=(INCHES, max(height, 1.2)), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    said = html.escape(said)
    return f'<figure role="img" aria-label="{said}">{drawn}<figcaption>{said}</figcaption></figure>'


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td>{html.escape(row.region)}<td>{html.escape(row.segment)}<td>{html.escape(row.measure)}"
        f"<td>{html.escape(row.subject)}<td>{html.escape(row.at)}<td>{_number(row.value)}"
        f"<td>{_number(row.low)} to {_number(row.high)}<td>{row.queries:,}</tr>"
        for row in rows
    )
    head = "<tr><th>region<th>segment<th>measure<th>of<th>at<th>value<th>95 %<th>queries</tr>"
    return f"<details><summary>{len(rows)} figures</summary><table>{head}{lines}</table></details>"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _is_ranking(row: Row) -> bool:
    """What products with hidden history get is asked otherwise, and stands by itself."""
    return _of_all(row) and row.measure in RANKED and not row.at and not row.subject.startswith("cold")


def _is_profit(row: Row) -> bool:
    return row.subject in ("discounts", "fixed_discounts")


def _of_all(row: Row) -> bool:
    return (row.region, row.segment) == (ALL, ALL)


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Tandem: evaluation of {as_of}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #16202a }}
figure {{ margin: 1rem 0 }} figure svg {{ max-width: 100%; height: auto }}
figcaption {{ color: #55636f; font-size: 13px }}
table {{ border-collapse: collapse; font-size: 13px }} td, th {{ padding: 2px 8px; text-align: left }}
tr:nth-child(even) {{ background: #f3f6f8 }} summary {{ cursor: pointer; color: #0b6e4f }}
</style>
<h1>Evaluation of {as_of}</h1>
<p>Learned from orders before {cut}, asked about the orders from that day on, up to {as_of}. A query is an anchor in a
later order; relevant are the order's other products. Every figure has its 95 % interval, from a bootstrap that draws
customers. Green is Tandem's, grey what it is measured against. How each is made: docs/methods.md.</p>
{sections}
</html>
"""
