"""Start the orders' service: the database brought to the newest schema, then granian with one app per worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from orders.app import create_app
from orders.migrate import brought_up
from tandem import regions as regions_file
from tandem.settings import Settings

Say = Callable[[str], object]
STOP_SECONDS = 10
"""What a worker may take to finish the requests it has."""


def run(settings: Settings, names: list[str], host: str, port: int, workers: int, say: Say) -> None:
    """Serve the named regions (none named: all) until INT or TERM. Raises ConfigError, Unavailable."""
    known = regions_file.load(settings.config_folder)
    served = [known.get(name) for name in names] or known.region
    brought_up(settings, say)
    server: Any = Granian(
        "orders.app:create_app",
        address=host,
        port=port,
        workers=workers,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backpressure=settings.connections,
        log_level=LogLevels.warning,
        workers_kill_timeout=STOP_SECONDS,
        respawn_failed_workers=True,
    )
    server.serve(target_loader=partial(create_app, settings, served), wrap_loader=False)
