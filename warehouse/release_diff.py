"""What differs between two releases: bundles added, dropped and changed, coverage, churn."""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tandem.errors import TandemError
from tandem.settings import Settings
from warehouse import ledger
from warehouse.tables import BUNDLE_SETS, BUNDLES
from warehouse.views import connect, first, quoted, view

EXAMPLES = 5
BOTH = "a_anchors a JOIN b_anchors b USING (anchor)"


class Diff(NamedTuple):
    """Of one region, from the first release to the second."""

    region: str
    added: int
    dropped: int
    changed: int
    """Bundles of both whose quantities, floors or discount differ in some segment."""
    kept: int
    anchors_before: int
    anchors_after: int
    churn: float
    """Share of the anchors that both have whose best bundle (in the region's whole list) is another one."""
    examples: list[str]

    def __str__(self) -> str:
        text = (
            f"{self.region}: {self.added} bundles added, {self.dropped} dropped, {self.changed} changed, "
            f"{self.kept} as they were; anchors {self.anchors_before} before, {self.anchors_after} after; "
            f"another best bundle for {self.churn:.1%} of the anchors"
        )
        return f"{text}; such as {', '.join(self.examples)}" if self.examples else text


def diff(settings: Settings, before: str, after: str) -> list[Diff]:
    """For each region that has both releases. Raises TandemError for a release that none has."""
    rows = ledger.latest(settings)
    held = {name: {row["region"]: row for row in rows if row["release_id"] == name} for name in (before, after)}
    for name, regions in held.items():
        if not regions:
            raise TandemError(f"there is no release {name}; look with tandem releases")
    both = [region for region in held[after] if region in held[before]]
    if not both:
        raise TandemError(f"no region has both {before} and {after}; look with tandem releases")
    return [between(settings, region, held[before][region], held[after][region]) for region in both]


def between(settings: Settings, region: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Diff:
    """From `before` to `after`: rows of the ledger, or others with their release_id, as_of and outputs."""
    with connect(settings) as connection:
        for name, row in (("a", before), ("b", after)):
            _load(connection, settings, name, region, row)
        added, dropped, changed, kept = first(
            connection,
            """
            SELECT count(*) FILTER (a.bundle_id IS NULL), count(*) FILTER (b.bundle_id IS NULL),
                   count(*) FILTER (a.held <> b.held), count(*) FILTER (a.held = b.held)
            FROM a_bundles a FULL JOIN b_bundles b USING (bundle_id)
            """,
        )
        anchors = [first(connection, f"SELECT count(*) FROM {name}_anchors")[0] for name in "ab"]
        (churn,) = first(connection, f"SELECT avg((a.best <> b.best)::INT) FROM {BOTH}")
        examples = connection.sql(f"""
            SELECT CASE WHEN a.held IS NULL THEN 'added ' WHEN b.held IS NULL THEN 'dropped ' ELSE 'changed ' END
                   || bundle_id || ' (' || array_to_string(coalesce(b.skus, a.skus), ' + ') || ')'
            FROM a_bundles a FULL JOIN b_bundles b USING (bundle_id)
            WHERE a.held IS DISTINCT FROM b.held ORDER BY ALL LIMIT {EXAMPLES}
        """).fetchall()
    told = [row[0] for row in examples]
    return Diff(region, added, dropped, changed, kept, anchors[0], anchors[1], churn or 0.0, told)


def segments(settings: Settings, region: str, row: Mapping[str, Any]) -> set[str]:
    """The segments that have lists in a release."""
    with connect(settings) as connection:
        view(connection, settings, BUNDLE_SETS, json.loads(row["outputs"] or "{}").get(BUNDLE_SETS.name))
        found = connection.sql(f"SELECT DISTINCT segment FROM bundle_sets WHERE {_where(region, row)}").fetchall()
    return {each[0] for each in found}


def _where(region: str, row: Mapping[str, Any]) -> str:
    return f"region = {quoted(region)} AND release_id = {quoted(row['release_id'])} AND as_of = DATE '{row['as_of']}'"


def _load(connection: Any, settings: Settings, name: str, region: str, row: Mapping[str, Any]) -> None:
    """Tables NAME_bundles and NAME_anchors: the release as it was staged, by the versions that the ledger names."""
    outputs = json.loads(row["outputs"] or "{}")
    for table in (BUNDLES, BUNDLE_SETS):
        view(connection, settings, table, outputs.get(table.name))
    where = _where(region, row)
    connection.execute(f"""
        CREATE TEMP TABLE {name}_bundles AS
            SELECT bundle_id, list((segment, discount_bps, components) ORDER BY segment)::VARCHAR AS held,
                   list_transform(any_value(components), lambda part: part.sku) AS skus
            FROM bundles WHERE {where} GROUP BY bundle_id;
        CREATE TEMP TABLE {name}_anchors AS
            SELECT anchor, arg_min(bundles[1].bundle_id, (segment <> '*', segment)) AS best
            FROM bundle_sets WHERE {where} AND len(bundles) > 0 GROUP BY anchor;
        DROP VIEW bundles; DROP VIEW bundle_sets;
    """)
