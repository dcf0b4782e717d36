"""The log of a process: JSON lines on stderr."""

from __future__ import annotations

import sys
from typing import Any

import structlog


class _Stderr:
    """Writes to what stderr is at that moment, one whole line at once."""

    def info(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    warning = error = info


def logger() -> Any:
    """JSON lines on stderr; configured for this logger alone, not for the process."""
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(),
    ]
    return structlog.wrap_logger(_Stderr(), processors=processors)
