"""Start the edge: uvicorn with one app per worker process; hot questions are answered as they are read."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from edge_service.app import create_app
from edge_service.connection import Connection
from edge_service.hot_routes import HotRoutes
from edge_service.room import Room
from edge_service.workers import STOP_SECONDS, UNUSABLE, Workers
from tandem import regions as regions_file
from tandem.errors import ConfigError, TandemError
from tandem.regions import Region
from tandem.settings import Settings

GARBAGE_AFTER = 50_000
"""Objects made and not ended before cycles are looked for: only errors make them here, and to look takes long."""
BACKLOG = 1_024
"""Connections that the kernel holds until they are taken in."""

SEND_BYTES = 128 * 1024
"""What the kernel holds of one connection's answers while they are not read, about; a large answer has 50 kB."""


class _Server(uvicorn.Server):
    """Uvicorn that stops on TERM alone: INT goes to all processes of a terminal, and the parent tells its workers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        signal.signal(signal.SIGTERM, self.handle_exit)
        yield
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


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
    """Serve the ASGI app that `make` gives in each worker process, until told to stop by INT or TERM.

    Raises ConfigError where the address can't be listened at.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(f"{host}:{port} can't be listened at: {error}; name another with --host, --port") from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    with listening:
        Workers(partial(_work, make, listening, connections), workers, drain_seconds).run()


def _work(make: Callable[[], Any], listening: socket.socket, connections: int) -> None:
    """What one worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        app = make()
    except TandemError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(UNUSABLE)
    room = Room(connections)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(Connection, room),  # type: ignore[arg-type]  # it is called, and nothing else
        ws="none",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    _Server(config).run([listening])


def load(settings: Settings, regions: list[Region]) -> HotRoutes:
    """The app of one worker process."""
    gc.set_threshold(GARBAGE_AFTER, 20, 100)
    return create_app(settings, regions)
