"""The relay as a process: the database brought to the newest schema, then told from until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable

from prometheus_client import start_http_server

from edge_service.log import logger
from orders.migrate import brought_up
from orders.relay import Relay
from orders.telling import KafkaTeller, WebhookTeller
from tandem import regions as regions_file
from tandem.settings import Settings


def run(settings: Settings, stop: threading.Event, metrics_port: int, say: Callable[[str], object]) -> None:
    """Tell what the outbox holds until `stop`; Prometheus may ask at `metrics_port` (0: nowhere). Raises ConfigError,
    Unavailable.
    """
    regions, log = regions_file.load(settings.config_folder).region, logger()
    brought_up(settings, say)
    say(f"relay: to {f'Kafka at {settings.kafka}' if settings.kafka else 'the webhook of every region'}")
    teller = KafkaTeller(settings) if settings.kafka else WebhookTeller(settings, regions, log)
    made = Relay(settings.orders_dsn, teller, settings.outbox_days, log)
    if metrics_port:
        start_http_server(metrics_port, "127.0.0.1", made.registry)
    made.run(stop)
    say(f"relay: told {made.told:,} messages")
