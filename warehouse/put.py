"""Write only what differs: rows are compared with what the lake holds, whatever their order, before any commit."""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

from typing import Any, NamedTuple

from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import Table
from warehouse.views import first, quoted, sql_type, view


class Put(NamedTuple):
    """What became of a write."""

    rows: int
    changed: bool
    """False: the lake held exactly these rows already, and no version was made."""

    def __str__(self) -> str:
        return f"{self.rows:,} rows{'' if self.changed else ', unchanged'}"


def put(connection: Any, settings: Settings, table: Table, relation: str, where: str | None = None) -> Put:
    """Make the rows of `relation` what `table` holds where the predicate `where` is true (None: everywhere).

    `relation` is a table or view of `connection` with the columns of `table` by name. One commit, or none where
    nothing would change.
    """
    view(connection, settings, table)
    typed = ", ".join(
        f'CAST("{column.name}" AS {sql_type(column.type)}) AS "{column.name}"' for column in table.columns
    )
    rows = f"SELECT {typed} FROM {relation}"
    held = f"SELECT * FROM {table.name} WHERE {where or 'true'}"
    before, after = (first(connection, _digest(source, table)) for source in (held, rows))
    if before != after:
        reader = connection.sql(rows).to_arrow_reader(100_000)
        lake.replace(settings, table, reader.cast(lake.arrow_schema(table)), where)
    connection.execute(f"DROP VIEW {table.name}")
    return Put(after[0], before != after)


def _names(table: Table) -> str:
    return ", ".join(f'"{name}"' for name in table.names)


def _digest(source: str, table: Table) -> str:
    """Count and two order-free sums over the rows' 64-bit hashes."""
    row = f"hash({_names(table)})"
    return f"SELECT count(*), sum({row}), bit_xor({row}) FROM ({source})"


def merge_sales(connection: Any, settings: Settings, table: Table, relation: str) -> Put:
    """Put the orders of `relation` in the place of the same orders (region and order_id), whole, and keep all others.

    Only the (region, month) partitions that hold such orders, before or after, are written.
    """
    view(connection, settings, table)
    connection.execute(f"""
        CREATE TEMP TABLE brought_orders AS SELECT DISTINCT region, order_id FROM {relation};
        CREATE TEMP TABLE touched AS
            SELECT DISTINCT region, month FROM {relation}
            UNION SELECT DISTINCT region, month FROM {table.name} SEMI JOIN brought_orders USING (region, order_id);
    """)
    names = _names(table)
    connection.execute(f"""
        CREATE TEMP TABLE kept AS
            SELECT {names} FROM {table.name} SEMI JOIN touched USING (region, month)
            ANTI JOIN brought_orders USING (region, order_id);
        CREATE TEMP VIEW merged AS SELECT {names} FROM {relation} UNION ALL SELECT {names} FROM kept;
        DROP VIEW {table.name};
    """)
    where = _partitions(connection.sql("SELECT region, month FROM touched ORDER BY ALL").fetchall())
    done = put(connection, settings, table, "merged", where)
    brought, total = (first(connection, f"SELECT count(*) FROM {name}")[0] for name in (relation, "merged"))
    connection.execute("DROP VIEW merged; DROP TABLE kept; DROP TABLE touched; DROP TABLE brought_orders")
    return done._replace(rows=brought) if total else done


def merge(connection: Any, settings: Settings, table: Table, relation: str, key: tuple[str, ...]) -> Put:
    """Put the rows of `relation` in the place of those with the same `key`, and keep all others.

    Where `table` has partitions, only those that `relation` touches are written.
    """
    view(connection, settings, table)
    names = _names(table)
    connection.execute(f"""
        CREATE TEMP TABLE kept AS
            SELECT {names} FROM {table.name}
            {f"SEMI JOIN {relation} USING ({', '.join(table.partitions)})" if table.partitions else ""}
            ANTI JOIN {relation} USING ({", ".join(key)});
        CREATE TEMP VIEW merged AS SELECT {names} FROM {relation} UNION ALL SELECT {names} FROM kept;
        DROP VIEW {table.name};
    """)
    where = None
    if table.partitions:
        where = _one_of(
            "region", [row[0] for row in connection.sql(f"SELECT DISTINCT region FROM {relation}").fetchall()]
        )
    done = put(connection, settings, table, "merged", where)
    brought = first(connection, f"SELECT count(*) FROM {relation}")[0]
    connection.execute("DROP VIEW merged; DROP TABLE kept")
    return done._replace(rows=brought)


def _partitions(pairs: list[tuple[str, str]]) -> str:
    months: dict[str, list[str]] = {}
    for region, month in pairs:
        months.setdefault(region, []).append(month)
    return " OR ".join(f"(region = {quoted(region)} AND {_one_of('month', held)})" for region, held in months.items())


def _one_of(column: str, values: list[str]) -> str:
    return f"{column} IN ({', '.join(map(quoted, sorted(values)))})" if values else "false"
