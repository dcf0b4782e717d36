"""The command itself, and what several of its commands share."""

from __future__ import annotations

import signal
import threading
from datetime import date, datetime
from typing import Any

import click

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


def stopped_by_signals() -> threading.Event:
    """An event that INT and TERM set."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _day(_: click.Context, __: click.Parameter, value: datetime | None) -> date | None:
    return None if value is None else value.date()


as_of = click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d"]),
    callback=_day,
    required=True,
    help="Business day: learn only from orders before it.",
)
each_region = click.option("--region", "names", multiple=True, help="May be given several times; default: all regions.")
