"""Start the orders' service, or a relay; first the database is brought to the newest schema."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from edge_service.log import logger
from orders.app import create_app
from orders.migrate import migrate
from orders.relay import Relay
from orders.telling import KafkaTeller, WebhookTeller
from tandem import regions as regions_file
from tandem.settings import Settings

Say = Callable[[str], object]
STOP_SECONDS = 10
"""What a worker may take to finish the requests it has."""


def relay(settings: Settings, stop: threading.Event, say: Say) -> None:
    """Tell what the outbox holds until `stop`. Raises ConfigError, Unavailable."""
    regions, log = regions_file.load(settings.config_folder).region, logger()
    _migrate(settings, say)
    say(f"relay: to {f'Kafka at {settings.kafka}' if settings.kafka else 'the webhook of every region'}")
    teller = KafkaTeller(settings) if settings.kafka else WebhookTeller(settings, regions, log)
    made = Relay(settings.orders_dsn, teller, settings.outbox_days, log)
    made.run(stop)
    say(f"relay: told {made.told:,} messages")


def run(settings: Settings, names: list[str], host: str, port: int, workers: int, say: Say) -> None:
    """Serve the named regions (none named: all) until INT or TERM. Raises ConfigError, Unavailable."""
    known = regions_file.load(settings.config_folder)
    served = [known.get(name) for name in names] or known.region
    _migrate(settings, say)
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


def _migrate(settings: Settings, say: Say) -> None:
    before, now = migrate(settings.orders_dsn)
    if before != now:
        say(f"database: brought from step {before or 'nothing'} to {now}")
