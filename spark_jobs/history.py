"""Orders and returns that lie in PostgreSQL, into the lake: partitioned reads over JDBC, taken in as messages are.

PostgreSQL writes each order as the message that was told of it, so history and stream are converted by the same code
and have the same keys: whoever brings an order first, it is in the lake once.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import into_lake, session
from spark_jobs.into_lake import Taken
from streams.messages import Message, OrderPlaced, OrderReturned
from streams.topics import ORDERS
from tandem.errors import ConfigError, Unavailable
from tandem.settings import Settings
from warehouse import derived, lake

SLICE = 10_000
"""Orders that one connection reads at once."""
Say = Callable[[str], object]


class Kept(NamedTuple):
    """A kind of message as PostgreSQL keeps it."""

    message: type[Message]
    table: str
    at: str
    """The column with its time; there is an index on it."""
    key: str
    value: str
    """SQL of the message as JSON text, one a row of `kept`."""


ORDER = Kept(
    OrderPlaced,
    "orders",
    "placed_at",
    "order_id",
    """json_build_object('order_id', kept.order_id, 'region', kept.region, 'customer_id', kept.customer_id,
        'session_id', kept.session_id, 'consents', kept.consents, 'currency', trim(kept.currency),
        'placed_at', to_char(kept.placed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'lines', (SELECT json_agg(json_build_object('sku', line.sku, 'quantity', line.quantity,
            'offer_total', line.offer_total, 'bundle_id', line.bundle_id, 'release', line.release) ORDER BY line.line)
            FROM order_lines AS line WHERE line.order_id = kept.order_id))""",
)
RETURN = Kept(
    OrderReturned,
    "returns",
    "at",
    "return_id",
    """json_build_object('return_id', kept.return_id, 'order_id', kept.order_id,
        'region', (SELECT region FROM orders WHERE orders.order_id = kept.order_id),
        'at', to_char(kept.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'lines', (SELECT json_agg(json_build_object('sku', sold.sku, 'quantity', line.quantity,
            'refunded', line.refunded) ORDER BY line.line)
            FROM return_lines AS line JOIN order_lines AS sold USING (order_id, line)
            WHERE line.return_id = kept.return_id))""",
)


def run(settings: Settings, say: Say) -> None:
    """Bring all orders and returns of TANDEM_ORDERS that the lake lacks. Raises Unavailable."""
    held = session.with_streams(settings)
    session.fetch(held)
    lake.create(held)
    bring(session.create(held, "tandem import postgres"), held, say)


def bring(spark: SparkSession, settings: Settings, say: Say) -> None:
    """The same in a session that is there."""
    for kept in (ORDER, RETURN):
        done = [into_lake.take(settings, part) for part in _parts(spark, settings, kept)]
        total = Taken(*(sum(column) for column in zip(*done, strict=True))) if done else Taken(0, 0, 0)
        say(f"{kept.table}: {total}")
    derived.from_sales(settings, say)


def _parts(spark: SparkSession, settings: Settings, kept: Kept) -> Iterator[DataFrame]:
    """Bounded reads in the order of time: as many slices at once as Spark has partitions."""
    slices = _slices(spark, settings, kept)
    for first in range(0, len(slices), settings.shuffle_partitions):
        rows = f"(SELECT {kept.at}, {kept.value}::text AS value FROM {kept.table} AS kept) AS told"  # noqa: S608 - ours
        predicates = slices[first : first + settings.shuffle_partitions]
        url, options = address(settings.orders_dsn)
        yield _messages(spark.read.jdbc(url, rows, predicates=predicates, properties=options), kept.message)


def _slices(spark: SparkSession, settings: Settings, kept: Kept) -> list[str]:
    """Conditions that part the table by time into about SLICE rows each; none where it is empty."""
    numbered = f"SELECT {kept.at} AS at, row_number() OVER (ORDER BY {kept.at}) - 1 AS n FROM {kept.table}"  # noqa: S608
    text = "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'"
    asked = f"(SELECT DISTINCT {text} AS since FROM ({numbered}) AS numbered WHERE n % {SLICE} = 0) AS starts"  # noqa: S608
    url, options = address(settings.orders_dsn)
    try:
        rows = spark.read.jdbc(url, asked, properties=options).orderBy("since").collect()
    except PySparkException as error:
        if "JDBC" not in str(error):
            raise
        raise Unavailable(f"PostgreSQL at {url} can't be read; start it, or mend TANDEM_ORDERS") from error
    starts = [f"TIMESTAMPTZ '{row.since}'" for row in rows]
    ends: Sequence[str | None] = [*starts[1:], None]
    return [
        f"{kept.at} >= {start}" + (f" AND {kept.at} < {end}" if end else "")
        for start, end in zip(starts, ends, strict=True)
    ]


def _messages(rows: DataFrame, message: type[Message]) -> DataFrame:
    """Rows with `value` as into_lake takes them in; a row that can't be used is told by its value's hash."""
    headers = [("type", message.type), ("version", str(message.version))]
    pairs = [F.struct(F.lit(name).alias("key"), F.lit(text).cast("binary").alias("value")) for name, text in headers]
    return rows.select(
        F.lit(ORDERS.name).alias("topic"),
        F.lit(-1).alias("partition"),
        F.xxhash64("value").alias("offset"),
        F.col("value").cast("binary").alias("value"),
        F.array(*pairs).alias("headers"),
    )


def address(dsn: str) -> tuple[str, dict[str, str]]:
    """A PostgreSQL address (URL, or `host=… dbname=…`) as JDBC has it: URL, and properties with user and password.

    Raises ConfigError for anything else.
    """
    told = _of_url(dsn) if "://" in dsn else _of_words(dsn)
    host, port, name = told.get("host", "127.0.0.1"), told.get("port", "5432"), told.get("dbname", "postgres")
    properties = {name: told[name] for name in ("user", "password", "sslmode") if name in told}
    return f"jdbc:postgresql://{host}:{port}/{name}", properties | {"driver": "org.postgresql.Driver"}


def _of_url(dsn: str) -> dict[str, str]:
    parts = urlsplit(dsn)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigError(f"TANDEM_ORDERS must be postgresql://…, not {parts.scheme}://…")
    named = {"host": parts.hostname, "port": parts.port, "dbname": parts.path.lstrip("/")}
    who = {"user": unquote(parts.username or ""), "password": unquote(parts.password or "")}
    return {name: str(value) for name, value in {**named, **who}.items() if value} | dict(parse_qsl(parts.query))


def _of_words(dsn: str) -> dict[str, str]:
    words = [word.partition("=") for word in shlex.split(dsn)]
    if wrong := [name for name, equals, _ in words if not equals]:
        raise ConfigError(f"TANDEM_ORDERS: {wrong[0]!r} is not key=value")
    return {name: value for name, _, value in words}
