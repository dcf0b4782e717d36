"""What regions are shown: releases, their trial, their way back, and the space they take."""

from __future__ import annotations

import json

import click

from tandem import settings as settings_file
from tandem.cli.group import each_region, main
from tandem.errors import TandemError


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
@each_region
@click.option("--reason", default="promoted by hand", show_default=True)
@click.pass_obj
def release_promote(settings: settings_file.Settings, release_id: str, names: tuple[str, ...], reason: str) -> None:
    """Make a release current, region by region. A region where it is current already stays as it is."""
    from spark_jobs import release_switch

    release_switch.promote_each(settings, names, release_id, reason, click.echo)


@release.command("quarantine")
@click.argument("release_id")
@each_region
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
@each_region
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
@each_region
@click.pass_obj
def canary(settings: settings_file.Settings, release_id: str, names: tuple[str, ...]) -> None:
    """Try a sealed release in the first region that has it; promote it there, or roll back and quarantine it."""
    from spark_jobs import canary

    canary.run(settings, release_id, names, click.echo)


@main.command()
@click.argument("release_id")
@each_region
@click.option("--reason", required=True)
@click.pass_obj
def hold(settings: settings_file.Settings, release_id: str, names: tuple[str, ...], reason: str) -> None:
    """Stop a release on its way: no region that waits for it gets it until `tandem go-on`."""
    from spark_jobs import release_switch

    release_switch.in_each(settings, names, release_id, reason, click.echo, release_switch.hold)


@main.command("go-on")
@click.argument("release_id")
@each_region
@click.option("--reason", default="let go on by hand", show_default=True)
@click.pass_obj
def go_on(settings: settings_file.Settings, release_id: str, names: tuple[str, ...], reason: str) -> None:
    """Promote a release that was held or waits, region by region."""
    from spark_jobs import release_switch

    release_switch.in_each(settings, names, release_id, reason, click.echo, release_switch.go_on)


@main.command("catch-up")
@each_region
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
