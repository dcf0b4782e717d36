"""Ask the Delta tables without Spark: DuckDB over the files of each snapshot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb

from tandem.errors import TandemError
from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import TABLES
from warehouse.views import connect, view

READ_ONLY = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.RELATION}
REFUSED = "only one statement that reads can be asked, such as SELECT …; the tables are written by jobs"
WIDEST_CELL = 60


def as_text(settings: Settings, statement: str) -> str:
    """The rows of `statement` as a table for a terminal, and their number. Raises TandemError with one line."""
    names, rows = _run(settings, statement)
    return f"{drawn(names, rows)}\n{len(rows):,} row{'' if len(rows) == 1 else 's'}"


def as_json(settings: Settings, statement: str) -> str:
    """The rows of `statement` as a JSON array of objects; decimals as numbers, times as RFC 3339."""
    names, rows = _run(settings, statement)
    return json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=_plain, ensure_ascii=False)


def overview(settings: Settings) -> str:
    """Every declared table: what one row is, its newest version, and its rows by the log alone."""
    rows: list[tuple[Any, ...]] = []
    for table in TABLES.values():
        if lake.exists(settings, table.name):
            opened = lake.open_table(settings, table.name)
            rows.append((table.name, opened.version(), opened.count(), table.grain))
        else:
            rows.append((table.name, None, None, table.grain))
    return drawn(("table", "version", "rows", "one row per"), rows)


def drawn(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows under their names, numbers to the right; a long text is cut with `…`."""
    held = list(rows)
    cells = [[_cell(value) for value in row] for row in held]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(names)]
    right = [any(isinstance(row[i], int | float | Decimal) for row in held) for i in range(len(names))]
    lines = [list(names), ["─" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _run(settings: Settings, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    with connect(settings) as connection:
        try:
            _only_reads(connection, statement)
            for name in _named(settings, statement):
                view(connection, settings, TABLES[name])
            _close_doors(connection, settings)
            result = connection.sql(statement)
            if result is None:
                raise TandemError(REFUSED)
            return list(result.columns), result.fetchall()
        except duckdb.Error as error:
            _say_if_never_made(settings, str(error))
            raise TandemError(_one_line(error)) from error


def _only_reads(connection: Any, statement: str) -> None:
    parsed = connection.extract_statements(statement)
    if len(parsed) != 1 or parsed[0].type not in READ_ONLY:
        raise TandemError(REFUSED)


def _named(settings: Settings, statement: str) -> list[str]:
    """The tables of the lake whose names occur in `statement`."""
    words = set(re.findall(r"\w+", statement.lower()))
    return [name for name in TABLES if name in words and lake.exists(settings, name)]


def _say_if_never_made(settings: Settings, message: str) -> None:
    """Raises InputError where DuckDB misses a table that is declared but not in the lake."""
    found = re.search(r"Table with name (\w+) does not exist", message)
    if found and found[1].lower() in TABLES:
        lake.open_table(settings, found[1].lower())


def _close_doors(connection: Any, settings: Settings) -> None:
    """Nothing but the lake's own files can be read from now on."""
    if not settings.lake_root.startswith("s3"):
        connection.execute("SET allowed_directories = [$1]", [settings.lake_root])
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")


def _one_line(error: duckdb.Error) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0].partition("Error: ")[2] or lines[0]
    if isinstance(error, duckdb.CatalogException) and "Table with name" in message:
        return f"{message.partition('!')[0]}; tables are {', '.join(TABLES)}"
    near = next((line for line in lines[1:] if line.startswith("Candidate bindings")), "")
    return f"{message} {near}".strip()


def _cell(value: Any) -> str:
    if value is None:
        return "·"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = json.dumps(value, default=_plain, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    text = text.replace("\n", "⏎")
    return text if len(text) <= WIDEST_CELL else f"{text[: WIDEST_CELL - 1]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)
