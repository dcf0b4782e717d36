"""Checkout and relay on this machine: two processes over the orders' PostgreSQL."""

from __future__ import annotations

from deploy import asking, services
from deploy.services import Server
from tandem.settings import Settings


def service(settings: Settings) -> Server:
    """Checkout, returns and stock over HTTP."""
    return Server(
        name="orders",
        port=settings.orders_port,
        state=services.run_folder(settings) / "orders.json",
        command=lambda: [services.binary("tandem"), "orders", "serve"],
        ping=lambda: asking.answers(f"{settings.local_orders}/readyz"),
        environment=asking.environment(settings),
        mend="set TANDEM_ORDERS_PORT",
    )


def relay(settings: Settings) -> Server:
    """What tells the edges, or Kafka, what was sold."""
    folder = services.run_folder(settings) / "relay"
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = services.keep_ports(folder / "port.json", 1)
    return Server(
        name="relay",
        port=port,
        state=services.run_folder(settings) / "relay.json",
        command=lambda: [services.binary("tandem"), "relay", "--metrics-port", str(port)],
        ping=lambda: asking.answers(f"http://127.0.0.1:{port}/metrics"),
        environment=asking.environment(settings),
        mend=f"remove {folder / 'port.json'}",
    )
