"""The connections of a process: so many are served at once, the others wait, and none may dawdle."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

WAITING = 1_024
"""Connections that wait for a place at most; the next is broken off."""
LOOK_SECONDS = 0.5


class Guest(Protocol):
    """A connection as the room knows it."""

    def wait(self) -> None:
        """Read nothing until `begin`."""

    def begin(self) -> None: ...

    def give_up(self) -> None:
        """Break it off."""

    def dawdles(self, now: float) -> bool:
        """Whether the other side keeps it for nothing; `now` on the clock of time.perf_counter."""


class Room:
    """`limit`: connections that are served at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside: set[Guest] = set()
        self._waiting: deque[Guest] = deque()
        self._looking = False

    def enter(self, guest: Guest) -> None:
        if len(self._inside) < self._limit:
            self._inside.add(guest)
        elif len(self._waiting) < WAITING:
            guest.wait()
            self._waiting.append(guest)
        else:
            guest.give_up()
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def leave(self, guest: Guest) -> None:
        """For each guest that entered, wherever it is."""
        if guest in self._inside:
            self._inside.remove(guest)
        elif guest in self._waiting:
            self._waiting.remove(guest)
        while self._waiting and len(self._inside) < self._limit:
            newcomer = self._waiting.popleft()
            self._inside.add(newcomer)
            newcomer.begin()

    def _look(self) -> None:
        now = time.perf_counter()
        for guest in [each for each in self._inside if each.dawdles(now)]:
            guest.give_up()
        self._looking = bool(self._inside)
        if self._looking:
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
