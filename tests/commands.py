"""The command line as a person uses it, in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from benchmarks._serving import environment
from tandem.cli import main
from tandem.settings import Settings


def tandem(settings: Settings, *arguments: str) -> Result:
    """`tandem` with `arguments`, where `settings` says."""
    return CliRunner().invoke(main, arguments, env=environment(settings))
