"""How long the event loop has been at work without coming round: who waits for a turn has waited that long at least."""

from __future__ import annotations

import asyncio
import math
import time

BEAT_SECONDS = 0.005


class Pulse:
    """A timer of the loop, which comes late by as long as the requests before it take."""

    def __init__(self) -> None:
        self.at = math.inf
        """Since when the loop has been at work, on the clock of time.perf_counter; not started: never late."""
        self._beat_at = math.inf
        self._longest = 0.0
        self._turning = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._beat()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.at = self._beat_at = math.inf

    def _beat(self) -> None:
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._beat_at - BEAT_SECONDS)
        self.at = self._beat_at = now
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)

    def turn(self) -> float:
        """Now, for who is called as soon as something came: the first one begins a turn, and has not waited for it."""
        now = time.perf_counter()
        if not self._turning and self.at < math.inf:
            self._turning, self.at = True, now
            self._loop.call_soon(self._turned)
        return now

    def _turned(self) -> None:
        self._turning = False

    def longest(self) -> float:
        """The latest that a beat came, in seconds, since this was asked last."""
        found, self._longest = self._longest, 0.0
        return found
