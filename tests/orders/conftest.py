"""Real PostgreSQL servers, the wheel's and Debian's, and an empty migrated database of each test's own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deploy import services
from deploy.postgres import postgres_server
from orders.migrate import migrate
from tandem.settings import Settings

DEBIAN = Path("/usr/lib/postgresql/15/bin")
_numbers = itertools.count(1)


class Postgres:
    """A server that a test may stop and start."""

    def __init__(self, home: Path, binaries: Path | None) -> None:
        self.settings = Settings(home=home, postgres_port=services.free_ports(1)[0])
        self.server = postgres_server(self.settings, binaries=binaries)

    def dsn(self, database: str = "postgres") -> str:
        return self.settings.orders_dsn.replace("dbname=postgres", f"dbname={database}")

    def made(self, template: str = "template1") -> str:
        """The address of a new database."""
        name = f"t{next(_numbers)}"
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.dsn(name)


@pytest.fixture(scope="session", params=["wheel", "debian"])
def postgres(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    if request.param == "debian" and not DEBIAN.is_dir():
        message = "Debian's PostgreSQL 15 is not installed: make system-deps"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    found = Postgres(
        tmp_path_factory.mktemp(f"postgres-{request.param}"), DEBIAN if request.param == "debian" else None
    )
    found.server.start()
    with psycopg.connect(found.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    migrate(found.dsn("migrated"))
    yield found
    found.server.stop()


@pytest.fixture
def dsn(postgres: Postgres) -> str:
    """The address of a migrated database that is empty."""
    return postgres.made("migrated")
