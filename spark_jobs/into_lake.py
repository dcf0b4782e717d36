"""Orders and events into the lake: from Kafka as they come, by Structured Streaming; what can't be used is kept apart.

Tasks read the messages; what they make of a batch, which is bounded, the driver writes in one commit a table. Every row
has a key and goes in once, so a batch that is done again after a kill changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from spark_jobs import in_tasks
from spark_jobs.kernels import arrived
from spark_jobs.kernels.arrived import Row
from streams.messages import Refused, read
from streams.topics import ACTIVITY, EXPOSURES, ORDERS
from tandem import regions as regions_file
from tandem.errors import ConfigError
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import arrivals, derived

NAME = "into-lake"
TOPICS = (ORDERS, ACTIVITY, EXPOSURES)
BATCH_MESSAGES = 50_000
"""At most in one batch: what the driver holds at once, about 1 kB each."""
COMPACT_EVERY = 100
"""Batches after which files that streaming left are made few."""
LONGEST_TEXT = 10_000
MESSAGE = ["topic", "partition", "offset", "value", "headers"]
"""Columns of what is taken in, as Spark's Kafka source has them."""
Say = Callable[[str], object]


class Taken(NamedTuple):
    """What became of a batch."""

    messages: int
    new: int
    """Rows that the lake did not hold yet."""
    rejected: int

    def __str__(self) -> str:
        return f"{self.messages:,} messages, {self.new:,} new rows, {self.rejected:,} rejected"


def messages(spark: SparkSession, settings: Settings) -> DataFrame:
    """The stream of all messages for the lake. Raises ConfigError without brokers."""
    if not settings.kafka:
        raise ConfigError("TANDEM_KAFKA is empty; name the brokers in it, such as 127.0.0.1:9092")
    reader = spark.readStream.format("kafka")
    for name, value in source_options(settings).items():
        reader = reader.option(name, value)
    return reader.load().select(MESSAGE)


def source_options(settings: Settings) -> dict[str, str]:
    """Of Spark's Kafka source. A message that is gone before it was read ends the query: it does not go unsaid."""
    own = {
        "kafka.bootstrap.servers": settings.kafka,
        "subscribe": ",".join(settings.topic_prefix + topic.name for topic in TOPICS),
        "startingOffsets": "earliest",
        "maxOffsetsPerTrigger": str(BATCH_MESSAGES),
        "includeHeaders": "true",
        "failOnDataLoss": "true",
    }
    given = [part.partition("=") for part in settings.kafka_options.split(";") if part.strip()]
    return own | _java({name.strip(): value.strip() for name, _, value in given})


def _java(options: Mapping[str, str]) -> dict[str, str]:
    """Who is asked for by TANDEM_KAFKA_OPTIONS (librdkafka's names), as Kafka's own client for Java says it."""
    found = {f"kafka.{name}": value for name, value in options.items() if name == "security.protocol"}
    if "sasl.mechanism" in options:
        login = "plain.PlainLoginModule" if options["sasl.mechanism"] == "PLAIN" else "scram.ScramLoginModule"
        who = f'username="{options.get("sasl.username", "")}" password="{options.get("sasl.password", "")}"'
        found["kafka.sasl.mechanism"] = options["sasl.mechanism"]
        found["kafka.sasl.jaas.config"] = f"org.apache.kafka.common.security.{login} required {who};"
    if "ssl.ca.location" in options:
        found |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": options["ssl.ca.location"]}
    return found


def checkpoint(settings: Settings, name: str) -> str:
    """Where a query keeps how far it is: beside the tables, so that lake and place move together."""
    return f"{settings.lake_root}/_checkpoints/{name}"


def start(stream: DataFrame, settings: Settings, say: Say, *, once: bool = False) -> StreamingQuery:
    """Take `stream` (columns of MESSAGE) in from now on; `once`: what is there now, and end."""
    take = partial(_batch, settings, say, _Housekeeping(settings, say))
    writer = stream.writeStream.queryName(NAME).option("checkpointLocation", checkpoint(settings, NAME))
    trigger = {"availableNow": True} if once else {"processingTime": f"{settings.live_seconds} seconds"}
    return writer.trigger(**trigger).foreachBatch(take).start()


class _Housekeeping:
    """What is done between batches: files made few, and once a day what sales tell of products and prices."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings, self._say = settings, say
        self._day: date | None = None

    def after(self, number: int, now: datetime) -> None:
        if now.date() != self._day:
            self._day = now.date()
            derived.from_sales(self._settings, self._say)
        if number % COMPACT_EVERY == 0 and (went := compact(self._settings, now)):
            self._say(f"{NAME}: {went:,} small files made few")


def _batch(settings: Settings, say: Say, keeping: _Housekeeping, batch: DataFrame, number: int) -> None:
    start = time.monotonic()
    done = take(settings, batch)
    if done.messages:
        say(f"{NAME}: batch {number}: {done}, {time.monotonic() - start:.1f} s")
    keeping.after(number, datetime.now(UTC))


def take(settings: Settings, batch: DataFrame) -> Taken:
    """Bring a bounded DataFrame with the columns of MESSAGE into the lake."""
    regions = {region.name: region for region in regions_file.load(settings.config_folder).region}
    work = partial(_read, regions, settings.topic_prefix)
    rows = [row for part in in_tasks.values(batch.select(MESSAGE).mapInArrow(work, in_tasks.VALUE)) for row in part]
    told = {name: [row.values for row in rows if row.table == name] for name in {row.table for row in rows}}
    customers = told.get("customers", [])
    arrivals.tell_customers(settings, customers, arrived.SOURCE, arrived.CONSENTS_AT)  # before what rests on consent
    new = sum(arrivals.add(settings, name, told[name]) for name in arrivals.KEYS if name in told)
    rejected = arrivals.refuse(settings, told.get("rejected_rows", []))
    return Taken(len(told.get("", [])), new, rejected)


def _read(regions: Mapping[str, Region], prefix: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The work of a task: a list of rows for each batch of messages; a row of no table for each message."""
    for batch in batches:
        now = datetime.now(UTC)
        yield in_tasks.given([[row for each in batch.to_pylist() for row in _rows(each, regions, prefix, now)]])


def _rows(told: Mapping[str, Any], regions: Mapping[str, Region], prefix: str, now: datetime) -> list[Row]:
    counted = Row("", {})
    headers = [(each["key"], each["value"]) for each in told["headers"] or ()]
    try:
        message = read(headers, told["value"])
    except Refused as error:
        return [counted, _rejected(told, prefix, "unreadable_message", error)]
    try:
        return [counted, *arrived.rows(message, regions, now)]
    except Refused as error:
        return [counted, _rejected(told, prefix, "unusable_message", error)]


def _rejected(told: Mapping[str, Any], prefix: str, reason: str, error: Refused) -> Row:
    """The message by topic, partition and offset: told again, the row stays one."""
    values = {
        "file": told["topic"].removeprefix(prefix),
        "source": f"{told['topic']}/{told['partition']}",
        "row": told["offset"],
        "reason": reason,
        "detail": str(error),
        "text": (told["value"] or b"").decode(errors="replace")[:LONGEST_TEXT],
    }
    return Row("rejected_rows", values)


def compact(settings: Settings, now: datetime) -> int:
    """Make few files of the small ones that came, most of all in days and months that are over; gives how many went."""
    finished = {"sales_lines": f"{now:%Y-%m}"}
    return sum(arrivals.compact(settings, name, finished.get(name, f"{now:%Y-%m-%d}")) for name in arrivals.KEYS)
