"""Start the edge: granian with one app per worker process."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from edge_service.app import create_app
from edge_service.edge import LEAVE
from edge_service.hot_routes import HotRoutes
from tandem import regions as regions_file
from tandem.regions import Region
from tandem.settings import Settings

GARBAGE_AFTER = 50_000
"""Objects made and not ended before cycles are looked for: only errors make them here, and to look takes long."""
STOP_SECONDS = 10
"""What a worker may take to finish the requests it has; then it is ended."""
HEADER_SECONDS = 5
"""What a request's line and headers may take to come."""
HEADER_BYTES = 16 * 1024
"""What they may hold, about; more is answered 431."""


class _Server(Granian):  # type: ignore[valid-type, misc]
    """Granian that says it is leaving before it leaves."""

    drain_seconds = 0.0

    def signal_handler_interrupt(self, *_: object, **__: object) -> None:
        if not self.drain_seconds or self.leaving:
            super().signal_handler_interrupt()
            return
        self.leaving = True
        for worker in self.wrks:
            os.kill(worker.inner.pid, LEAVE)
        threading.Timer(self.drain_seconds, super().signal_handler_interrupt).start()

    leaving = False
    """Told to stop once; told so again, it stops at once."""


def run(settings: Settings, region_names: list[str], host: str, port: int, workers: int) -> None:
    """Serve the named regions (none named: all) until told to stop by INT or TERM. Raises ConfigError."""
    known = regions_file.load(settings.config_folder)
    served = [known.get(name) for name in region_names] or known.region
    serve(
        partial(load, settings, served),
        host,
        port,
        workers,
        connections=settings.connections,
        drain_seconds=settings.drain_seconds,
    )


def serve(
    make: Callable[[], Any],
    host: str,
    port: int,
    workers: int,
    *,
    connections: int = 1_024,
    drain_seconds: float = 0.0,
) -> None:
    """Serve the ASGI app that `make` gives in each worker process, until told to stop by INT or TERM."""
    server = _Server(
        "edge_service.app:create_app",
        address=host,
        port=port,
        workers=workers,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=1_000 * HEADER_SECONDS, max_buffer_size=HEADER_BYTES),
        websockets=False,
        backpressure=connections,
        log_level=LogLevels.warning,
        workers_kill_timeout=STOP_SECONDS,
        respawn_failed_workers=True,
    )
    server.drain_seconds = drain_seconds
    server.serve(target_loader=make, wrap_loader=False)


def load(settings: Settings, regions: list[Region]) -> HotRoutes:
    """The app of one worker process."""
    gc.set_threshold(GARBAGE_AFTER, 20, 100)
    return create_app(settings, regions)
