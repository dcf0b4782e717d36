"""Worker processes under one parent, which replaces those that die and tells all of them to stop."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

LEAVE = signal.SIGURG
"""Tells a worker that it will be stopped. Whoever does not listen yet is not harmed by it."""
STOP_SECONDS = 10
"""What a worker may take to finish the requests it has; then it is ended."""
AGAIN_SECONDS = 1.0
"""Pause before a worker that died is replaced."""
UNUSABLE = 2
"""Exit status of a worker that another one would not do better than; the parent stops with all of them."""
_TOLD = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


class Workers:
    """`number` processes that do `work`, forked from this one: what it has imported, they have."""

    def __init__(self, work: Callable[[], None], number: int, drain_seconds: float) -> None:
        self._work, self._number, self._drain_seconds = work, number, drain_seconds
        self._processes: list[BaseProcess] = []

    def run(self) -> None:
        """Until told by INT or TERM; then LEAVE is told to the workers, and `drain_seconds` later, or told once more,
        they are stopped. Exits with status 1 where a worker is UNUSABLE. Only for the main thread.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)
        self._processes = [self._started() for _ in range(self._number)]
        try:
            while signal.sigwait(_TOLD) == signal.SIGCHLD:
                self._replace()
            self._drain()
        finally:
            self._stop()

    def _started(self) -> BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=self._begun)
        process.start()
        return process

    def _begun(self) -> None:
        threading.Thread(target=_leave_with_parent, name="waits for the parent", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
        self._work()

    def _replace(self) -> None:
        for place, process in enumerate(self._processes):
            if process.is_alive():
                continue
            if process.exitcode == UNUSABLE:
                sys.exit(1)
            sys.stderr.write(f"A worker ended with status {process.exitcode}; another takes its place\n")
            time.sleep(AGAIN_SECONDS)
            self._processes[place] = self._started()

    def _drain(self) -> None:
        if self._drain_seconds:
            self._tell(LEAVE)
            signal.sigtimedwait({signal.SIGTERM, signal.SIGINT}, self._drain_seconds)

    def _tell(self, what: signal.Signals) -> None:
        for process in self._processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, what)

    def _stop(self) -> None:
        self._tell(signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS + 1
        for process in self._processes:
            process.join(max(0.0, end - time.monotonic()))
            process.kill()


def _leave_with_parent() -> None:
    """A parent that is killed tells nobody; nor would its workers leave the address to who comes after it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
