"""Work in Spark's tasks: an item a task, values that travel as they are, errors that come back as themselves."""

from __future__ import annotations

import importlib
import pickle
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, Row, SparkSession

from tandem.errors import TandemError

Item = TypeVar("Item")
Batches = Iterator[pa.RecordBatch]
VALUE = "value binary"
"""What a task gives, see `given` and `values`."""
_RAISED = re.compile(r"^((?:tandem|cdn|edge_service|spark_jobs|warehouse)(?:\.\w+)*)\.(\w+): (.*)$", re.MULTILINE)


def each(
    spark: SparkSession, items: Sequence[Item], work: Callable[[Iterator[Item]], Batches], schema: str
) -> DataFrame:
    """What `work` makes of `items`, rows of `schema`, in a task for each item; `items` travel with the work."""

    def of_task(numbers: Batches) -> Batches:
        own = (items[number] for batch in numbers for number in batch["id"].to_pylist())
        yield from work(own)
        deque(own, maxlen=0)  # Spark ends a worker whose input is not read to its end, and starting one takes a second

    return spark.range(0, len(items), 1, max(len(items), 1)).mapInArrow(of_task, schema)


def packed(values: Iterable[Any]) -> pa.Array:
    """Values for `unpacked`, in the same job."""
    return pa.array([pickle.dumps(value, protocol=5) for value in values], pa.binary())


def unpacked(column: Iterable[pa.Scalar]) -> list[Any]:
    """The values of a column that `packed` made, or of some of its rows."""
    return [pickle.loads(value.as_buffer()) for value in column]  # noqa: S301 - this job's own


def given(values: Iterable[Any]) -> pa.RecordBatch:
    """A row of VALUE for each of `values`."""
    return pa.record_batch([packed(values)], ["value"])


def values(rows: DataFrame) -> list[Any]:
    """The values in rows of VALUE; they come to the driver, so they are few. Raises what `collected` does."""
    return [pickle.loads(row.value) for row in collected(rows)]  # noqa: S301 - this job's own


def collected(rows: DataFrame) -> list[Row]:
    """What the tasks give back. A TandemError that one of them raised is raised here, of the same kind."""
    try:
        return rows.collect()
    except PythonException as error:
        raised = _RAISED.search(str(error))
        if raised is None:
            raise
        module, kind, message = raised.groups()
        raise getattr(importlib.import_module(module), kind, TandemError)(message) from error
