"""What is sold: orders, their stock, the relay."""

from __future__ import annotations

import json

import click

from tandem import regions as regions_file
from tandem import settings as settings_file
from tandem.cli.group import each_region, main, stopped_by_signals


@main.command()
@click.option("--metrics-port", type=int, default=0, help="Where Prometheus may ask, on loopback; default: nowhere.")
@click.pass_obj
def relay(settings: settings_file.Settings, metrics_port: int) -> None:
    """Tell what was sold: from the outbox to Kafka, or without it to the edges' webhook. Several may run."""
    from orders import relay_process

    relay_process.run(settings, stopped_by_signals(), metrics_port, click.echo)


@main.group()
def orders() -> None:
    """What was sold, and what is left: PostgreSQL, checkout, stock."""


@orders.command("migrate")
@click.pass_obj
def orders_migrate(settings: settings_file.Settings) -> None:
    """Bring the database to the newest schema."""
    from orders import migrate

    before, now = migrate.migrate(settings.orders_dsn)
    click.echo(f"the database is at step {now}" + (f" (was: {before or 'nothing'})" if before != now else " already"))


@orders.command("serve")
@each_region
@click.option("--host", default=None)
@click.option("--port", type=int, default=None)
@click.option("--workers", type=int, default=1, show_default=True)
@click.pass_obj
def orders_serve(
    settings: settings_file.Settings, names: tuple[str, ...], host: str | None, port: int | None, workers: int
) -> None:
    """Checkout, returns and stock over HTTP."""
    from orders import server

    server.run(settings, list(names), host or settings.orders_host, port or settings.orders_port, workers, click.echo)


@orders.command("seed")
@click.pass_obj
def orders_seed(settings: settings_file.Settings) -> None:
    """The first stock of products that the database does not know yet, from the lake's table `stock`."""
    from orders import goods, migrate
    from warehouse import query

    migrate.migrate(settings.orders_dsn)
    rows = json.loads(query.as_json(settings, "SELECT region, sku, on_hand FROM stock"))
    click.echo(f"{goods.seed(settings.orders_dsn, rows):,} of {len(rows):,} products were not known yet")


@orders.command("tell")
@each_region
@click.pass_obj
def orders_tell(settings: settings_file.Settings, names: tuple[str, ...]) -> None:
    """Tell the stock of every product anew: for a region that lost what it was told."""
    from orders import goods

    told = regions_file.load(settings.config_folder)
    chosen = [told.get(name).name for name in names] or told.names
    click.echo(f"{goods.tell(settings.orders_dsn, chosen):,} products are told anew")
