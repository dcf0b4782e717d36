"""What shoppers meet: the edge, its keys, the shop page."""

from __future__ import annotations

import click

from tandem import clients
from tandem import settings as settings_file
from tandem.cli.group import main


@main.command()
@click.pass_obj
def shop(settings: settings_file.Settings) -> None:
    """Upload the shop page to the object store of every region."""
    from cdn import storefront

    storefront.upload(settings, click.echo)


@main.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(clients.SCOPES))
@click.option("--rate", type=float, default=0.0, help="Requests a second, in each edge process; default: no limit.")
@click.pass_obj
def key(settings: settings_file.Settings, name: str, scopes: tuple[clients.Scope, ...], rate: float) -> None:
    """Make a key for a client of the edge, and the lines of clients.toml that let it in."""
    made = clients.new_key()
    client = clients.Client(name=name, sha256=[clients.hash_of(made)], scopes=list(scopes), rate=rate)
    click.echo(f"Give {name} this key; it stands nowhere else: {made}\n")
    click.echo(f"Add to {settings.config_folder / clients.FILE}; a running edge takes it in by itself:\n")
    click.echo(clients.written(client), nl=False)


@main.command()
@click.option("--region", "names", multiple=True, help="May be given several times; default: all regions.")
@click.option("--host", default=None)
@click.option("--port", type=int, default=None)
@click.option("--workers", type=int, default=1, show_default=True)
@click.pass_obj
def serve(
    settings: settings_file.Settings, names: tuple[str, ...], host: str | None, port: int | None, workers: int
) -> None:
    """The edge service of one or more regions."""
    from edge_service import server

    server.run(settings, list(names), host or settings.edge_host, port or settings.edge_port, workers)
