"""Work done in Spark's tasks that may fail as Tandem fails: the error that ends a task comes back as itself."""

from __future__ import annotations

import re

from pyspark.errors import PythonException
from pyspark.sql import DataFrame, Row

from cdn.store import Damaged
from edge_service.region_store import Fenced, Full, InUse
from tandem.errors import InputError, TandemError, Unavailable

KINDS: dict[str, type[TandemError]] = {
    kind.__name__: kind for kind in (Damaged, Fenced, Full, InputError, InUse, Unavailable)
}
_RAISED = re.compile(r"^(?:tandem|cdn|edge_service|spark_jobs|warehouse)\.[\w.]*?(\w+): (.*)$", re.MULTILINE)


def collected(rows: DataFrame) -> list[Row]:
    """What the tasks give back. A TandemError that one of them raised is raised here, of the same kind."""
    try:
        return rows.collect()
    except PythonException as error:
        raised = _RAISED.search(str(error))
        if raised is None:
            raise
        kind, message = raised.groups()
        raise KINDS.get(kind, TandemError)(message) from error
