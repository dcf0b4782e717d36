"""What is computed: a build and its parts, and what comes between two builds."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click

from tandem import settings as settings_file
from tandem.cli.group import as_of, main, stopped_by_signals


@main.command()
@as_of
@click.option("--publish/--no-publish", default=True, help="Publish to every region when the gate is passed.")
@click.pass_obj
def build(settings: settings_file.Settings, as_of: date, *, publish: bool) -> None:
    """All jobs in one Spark session: for development and small shops."""
    from spark_jobs import build

    build.run(settings, as_of, click.echo, publish_after=publish)


@main.command()
@as_of
@click.option("--report", type=click.Path(path_type=Path), help="The page; default: in $TANDEM_HOME/reports.")
@click.pass_obj
def evaluate(settings: settings_file.Settings, as_of: date, report: Path | None) -> None:
    """Ask every ranking and part what later orders held; print it, keep it in the table evaluations, and draw it."""
    from spark_jobs import build
    from warehouse import report as reports

    build.evaluate(settings, as_of, click.echo)
    file = report or settings.home / "reports" / f"evaluation-{as_of}.html"
    reports.write(settings, as_of, file)
    click.echo(f"with pictures: {file}")


@main.command()
@as_of
@click.option("--override", "overrides", multiple=True, metavar="GATE", help="Let the build pass this gate once.")
@click.option("--reason", default="", help="Why; needed with --override, and kept in the ledger.")
@click.pass_obj
def gate(settings: settings_file.Settings, as_of: date, overrides: tuple[str, ...], reason: str) -> None:
    """Check the build of a day against gates.toml; exit 1 with every breach."""
    from warehouse import gate

    gate.run(settings, as_of, click.echo, overrides, reason)


@main.command()
@as_of
@click.option("--region", required=True)
@click.pass_obj
def publish(settings: settings_file.Settings, as_of: date, region: str) -> None:
    """Publish the build of a day to one region."""
    from spark_jobs import build

    build.publish(settings, as_of, region, click.echo)


@main.command()
@click.option("--follow", is_flag=True, help="With Kafka: again and again, until TERM or Ctrl-C.")
@click.pass_obj
def events(settings: settings_file.Settings, *, follow: bool) -> None:
    """Bring what shoppers saw and did from the regions' Redis into the lake; to Kafka where TANDEM_KAFKA is set."""
    if settings.kafka:
        from streams import edge_events

        edge_events.run(settings, click.echo, stopped_by_signals() if follow else None)
        return
    from spark_jobs import events

    events.collect_all(settings, click.echo)


@main.command()
@click.option("--once", is_flag=True, help="Take in what is there now, then end.")
@click.pass_obj
def live(settings: settings_file.Settings, *, once: bool) -> None:
    """Between builds: orders and events from Kafka into the lake, and what takes off from there to the edges."""
    from spark_jobs import live

    live.run(settings, click.echo, once=once)
