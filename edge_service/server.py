"""Start the edge: granian with one app per worker process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from edge_service.app import create_app
from edge_service.hot_routes import HotRoutes
from tandem import regions as regions_file
from tandem.regions import Region
from tandem.settings import Settings

STOP_SECONDS = 10
"""What a worker may take to finish the requests it has; then it is ended."""


def run(settings: Settings, region_names: list[str], host: str, port: int, workers: int) -> None:
    """Serve the named regions (none named: all) until told to stop by INT or TERM. Raises ConfigError."""
    known = regions_file.load(settings.config_folder)
    served = [known.get(name) for name in region_names] or known.region
    serve(partial(load, settings, served), host, port, workers)


def serve(make: Callable[[], Any], host: str, port: int, workers: int) -> None:
    """Serve the ASGI app that `make` gives in each worker process, until told to stop by INT or TERM."""
    server = Granian(
        "edge_service.app:create_app",
        address=host,
        port=port,
        workers=workers,
        interface=Interfaces.ASGI,
        websockets=False,
        log_level=LogLevels.warning,
        workers_kill_timeout=STOP_SECONDS,
        respawn_failed_workers=True,
    )
    server.serve(target_loader=make, wrap_loader=False)


def load(settings: Settings, regions: list[Region]) -> HotRoutes:
    """The app of one worker process."""
    return create_app(settings, regions)
