"""What was made lately, by key, within a bound of bytes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that knows how much memory it takes."""

    @property
    def size(self) -> int: ...


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Sized)


FREED = 4
"""Freed with each that is put, of what is not kept any more: to free many at once stops all answers for that long."""


class Kept(Generic[Key, Value]):
    """Two generations: what was not asked for while a new one filled half of the bound is dropped with the old one."""

    def __init__(self, limit_bytes: int) -> None:
        self._half = limit_bytes // 2
        self._dropped: list[dict[Key, Value]] = []
        self._new: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}
        self._new_bytes = self._old_bytes = 0

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    @property
    def size(self) -> int:
        """Bytes held now."""
        return self._new_bytes + self._old_bytes

    def get(self, key: Key) -> Value | None:
        found = self._new.get(key)
        if found is None and (found := self._old.pop(key, None)) is not None:
            self._old_bytes -= found.size
            self.put(key, found)
        return found

    def put(self, key: Key, value: Value) -> None:
        """Keep what is not kept yet; its size must stay. What is larger than half of the bound is not kept."""
        if value.size > self._half or key in self._new:
            return
        if self._new_bytes + value.size > self._half:
            self._dropped.append(self._old)
            self._old, self._old_bytes = self._new, self._new_bytes
            self._new, self._new_bytes = {}, 0
        self._new[key] = value
        self._new_bytes += value.size
        self.free(FREED)

    def clear(self) -> None:
        """Keep nothing of what is here."""
        self._dropped += self._new, self._old
        self._new, self._old = {}, {}
        self._new_bytes = self._old_bytes = 0

    def free(self, most: int) -> bool:
        """Free so many of those that are not kept any more; False: there is none left."""
        dropped = self._dropped
        while dropped and most:
            if dropped[-1]:
                dropped[-1].popitem()
                most -= 1
            else:
                dropped.pop()
        return bool(dropped)
