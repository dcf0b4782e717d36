"""A publisher to kill: a process with all imported forks another for each publish, which takes SIGKILL as it comes.

What Spark would give to tasks is done in that process, task after task; all else is the product's own. A line of JSON
on stdin is one publish: `{"day": 1, "passed": [...]}` kills it before its first write (to Redis, the object store or
the ledger) that is not among these, `{"day": 1, "after_seconds": 0.2}` after that time. A line on stdout tells how it
ended.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any, NamedTuple

import pyarrow as pa

from benchmarks import _releases
from benchmarks._serving import ROOT, environment
from cdn.store import ObjectStore
from edge_service.lease import publishing
from edge_service.region_push import Push
from edge_service.region_store import RegionStore
from spark_jobs import publish, recovery
from tandem import settings as settings_file
from tandem.errors import TandemError
from tandem.settings import Settings
from warehouse import ledger

LEASE_SECONDS = 0.1
"""How long a killed publisher's lease lasts here, so that the next need not wait for 15 s."""
WAIT_SECONDS = 60.0
"""How long one waits here for another that is at work."""


class Here:
    """Stands where a Spark session would: tasks are done here, one after another."""

    def range(self, start: int, end: int, step: int, _tasks: int) -> Here:
        self._ids = range(start, end, step)
        return self

    def mapInArrow(self, work: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]], _: str) -> Here:  # noqa: N802
        tasks = (iter([pa.record_batch([pa.array([number])], ["id"])]) for number in self._ids)
        self._rows = [SimpleNamespace(**row) for task in tasks for batch in work(task) for row in batch.to_pylist()]
        return self

    def collect(self) -> list[SimpleNamespace]:
        return self._rows


class Ended(NamedTuple):
    """How a publish ended."""

    code: int
    """0: it came to its end; -9: killed."""
    seconds: float
    said: str
    """The write that it was killed before, or what went wrong."""


class Publisher:
    """The process that forks."""

    def __init__(self, settings: Settings, lease_seconds: float = LEASE_SECONDS) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._publisher", str(lease_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(settings),
        )

    def publish(self, day: int, *, after_seconds: float = 60, passed: Sequence[str] | None = None) -> Ended:
        return self._asked(day=day, after_seconds=after_seconds, passed=passed)

    def rebuild(self) -> Ended:
        return self._asked(day=None, after_seconds=60, passed=None)

    def killed_at_every_write(self, day: int) -> int:
        """Publish, killed before each write in turn, until there is none left to be killed before; gives their number.

        Each attempt goes on from what the one before it left.
        """
        passed: list[str] = []
        while (ended := self.publish(day, passed=passed)).code != 0:
            if ended.code != -signal.SIGKILL or not ended.said:
                raise RuntimeError(f"the publisher ended with {ended}")
            passed.append(ended.said)
        if ended.said:
            raise RuntimeError(ended.said)
        return len(passed)

    def _asked(self, **what: Any) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate(timeout=20)


class _Writes:
    """Looks at each write of the publisher, and kills it before the first that is none of `passed`."""

    def __init__(self, passed: Sequence[str], tell: Callable[[str], object]) -> None:
        self._passed, self._tell, self._sent, self._lock = frozenset(passed), tell, itertools.count(), threading.Lock()

    def watch(self) -> None:
        self._before(RegionStore, "script", lambda _, script, keys, *__: f"script {zlib.crc32(script.encode())} {keys}")
        self._before(Push, "_send", lambda _: f"send {next(self._sent)}")
        self._before(ObjectStore, "_put", lambda _, key, *__: f"put {key}")
        self._before(ledger, "_committed", lambda _, row: f"ledger {row['release_id']} {row['state']}")

    def _before(self, owner: Any, name: str, told: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def write(*arguments: Any, **further: Any) -> Any:
            if not threading.current_thread().name.startswith("lease of"):  # it comes when it comes
                with self._lock:
                    self._look(told(*arguments))
            return real(*arguments, **further)

        setattr(owner, name, write)

    def _look(self, write: str) -> None:
        if write not in self._passed:
            self._tell(write)
            os.kill(os.getpid(), signal.SIGKILL)


def main(lease_seconds: float) -> None:
    """Answer each line with how that publish ended."""
    for module in (publish, recovery):
        module.publishing = partial(publishing, seconds=lease_seconds, wait_seconds=WAIT_SECONDS)
    settings = settings_file.from_environment()
    for line in sys.stdin:
        print(json.dumps(_ended(settings, **json.loads(line))), flush=True)


def _ended(settings: Settings, day: int | None, after_seconds: float, passed: Sequence[str] | None) -> Ended:
    ear, mouth = os.pipe()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _publish(settings, day, passed, lambda said: os.write(mouth, said.encode()))
        os._exit(0)
    os.close(mouth)
    with os.fdopen(ear, "rb") as told:
        if not select.select([told], [], [], after_seconds)[0]:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        said = told.read().decode()
    return Ended(os.waitstatus_to_exitcode(status), time.monotonic() - start, said)


def _publish(settings: Settings, day: int | None, passed: Sequence[str] | None, tell: Callable[[str], object]) -> None:
    """Publish, or without a day rebuild, and tell what went wrong."""
    if passed is not None:
        _Writes(passed, tell).watch()
    spark: Any = Here()
    try:
        if day is None:
            recovery.rebuild(settings, lambda: spark, _releases.REGION, str)
        else:
            publish.publish(spark, settings, _releases.day(day), _releases.REGION, str)
    except TandemError as error:
        tell(str(error))


if __name__ == "__main__":
    main(float(sys.argv[1]))
