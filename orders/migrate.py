"""Bring a database to the newest schema, whoever else tries so at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from tandem.errors import ConfigError, Unavailable
from tandem.settings import Settings

STEPS = Path(__file__).parent / "migrations"
LOCK = 0x74616E64656D
"""Key of the advisory lock; one process migrates, the others wait and find it done."""


def migrate(dsn: str) -> tuple[str, str]:
    """Run the steps that the database lacks, all or none; gives the steps before (empty: none) and now.

    Raises Unavailable where no server answers, ConfigError where the database is newer than this program.
    """
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            before = MigrationContext.configure(connection).get_current_revision() or ""
            command.upgrade(_config(before, connection), "head")
            return before, MigrationContext.configure(connection).get_current_revision() or ""
    except OperationalError as error:
        raise Unavailable(f"the orders' database does not answer: {error.orig}") from error
    finally:
        engine.dispose()


def brought_up(settings: Settings, say: Callable[[str], object]) -> None:
    """As `migrate`, of the settings' database; says what was done."""
    before, now = migrate(settings.orders_dsn)
    if before != now:
        say(f"database: brought from step {before or 'nothing'} to {now}")


def newest() -> str:
    """The number of the newest step."""
    return ScriptDirectory.from_config(_plain()).get_current_head() or ""


def _plain() -> Config:
    config = Config()
    config.set_main_option("script_location", str(STEPS))
    return config


def _config(before: str, connection: Any) -> Config:
    config = _plain()
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if before and before not in known:
        raise ConfigError(
            f"the orders' database is at step {before}, which is newer than this program; install a newer one"
        )
    config.attributes["connection"] = connection
    return config
