"""Airflow on this machine: its folder, database, pools and environment, and the DAG `bundles` run in it.

    python -m deploy.airflow test --as-of 2017-12-31     one run in this process, a line per task
    python -m deploy.airflow standalone                  scheduler and web page, until Ctrl-C

`python -m deploy.airflow setup` only prepares; `… environment` prints the variables for a shell.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import importlib.metadata
import json
import os
import re
import shlex
import sqlite3
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from deploy import processes, services
from tandem import regions as regions_file
from tandem import settings as settings_file
from tandem.errors import TandemError
from tandem.settings import Settings

DAG = "bundles"
PORT = "8090"
"""Of Airflow's web page, unless AIRFLOW__API__PORT says otherwise."""
ROOT = Path(__file__).resolve().parent.parent
DAGS = ROOT / "dags"
POOLS = ROOT / "deploy" / "pools.json"
CANARY_SECONDS = "3"
"""On one machine nobody waits minutes for a trial, unless TANDEM_CANARY_SECONDS says so."""
FINISHED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
GOOD = frozenset({"success", "skipped"})
STANDALONE_SECONDS = 300.0

Say = Callable[[str], object]


class RunFailed(TandemError):
    """A run of the DAG did not do all of its tasks; `tasks` is how far it came."""

    def __init__(self, message: str, tasks: list[TaskState]) -> None:
        super().__init__(message)
        self.tasks = tasks


@dataclass(frozen=True)
class TaskState:
    """One task instance, as Airflow's database tells it."""

    name: str
    state: str
    seconds: float
    tries: int


def folder(settings: Settings) -> Path:
    return settings.home.absolute() / "airflow"


def environment(settings: Settings) -> dict[str, str]:
    """All variables that Airflow runs with. Airflow's own variables of the calling shell are left out."""
    home = folder(settings)
    port = os.environ.get("AIRFLOW__API__PORT", PORT)
    binaries = sysconfig.get_path("scripts")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW_")}
    return kept | {
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
        "TANDEM_HOME": str(settings.home.absolute()),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_CONF_DIR": str(home / "spark"),
        "TANDEM_SPARK_CONNECT": settings.spark_connect,
        "TANDEM_CANARY_SECONDS": os.environ.get("TANDEM_CANARY_SECONDS", CANARY_SECONDS),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(
            {"conn_type": "spark", "host": settings.spark_master, "extra": {"deploy-mode": "client"}}
        ),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API__SECRET_KEY": settings.secret("airflow-api"),
        "AIRFLOW__API_AUTH__JWT_SECRET": settings.secret("airflow-jwt"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": _fernet_key(settings),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_database(settings)}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def setup(settings: Settings, say: Say) -> dict[str, str]:
    """Make Airflow's database and pools once, write Spark's settings anew; gives back the environment."""
    found = environment(settings)
    home = folder(settings)
    (home / "spark").mkdir(parents=True, exist_ok=True)
    (home / "airflow.cfg").touch(mode=0o600)  # else Airflow makes one, with secrets in it
    defaults = ["python", "-m", "spark_jobs.session", "--defaults", str(home / "spark" / "spark-defaults.conf")]
    processes.run(defaults, home / "setup.log", found)
    done = home / "prepared"
    wanted = f"{importlib.metadata.version('apache-airflow')}\n{POOLS.read_text(encoding='ascii')}"
    if not done.is_file() or done.read_text(encoding="ascii") != wanted:
        with _timed("airflow: database and pools made", say):
            processes.run(["airflow", "db", "migrate"], home / "setup.log", found)
            processes.run(["airflow", "pools", "import", str(POOLS)], home / "setup.log", found)
            done.write_text(wanted, encoding="ascii")
    return found


def test(settings: Settings, as_of: date, say: Say) -> None:
    """Run the DAG for a day with `airflow dags test`, after `setup`.

    Raises RunFailed unless every task succeeded or was skipped.
    """
    found = environment(settings)
    log = folder(settings) / f"{DAG}-{as_of}.log"
    log.unlink(missing_ok=True)
    start = datetime.now(UTC)
    pid = processes.start(["airflow", "dags", "test", DAG, as_of.isoformat()], log, found)
    told: set[tuple[str, int]] = set()
    try:
        while (code := processes.exit_code(pid)) is None:
            _tell(states(settings, as_of, start), told, say)
            time.sleep(0.3)
    finally:
        processes.stop(pid)
    reached = states(settings, as_of, start)
    _tell(reached, told, say)
    bad = [f"{task.name} {task.state}" for task in reached if task.state not in GOOD]
    if bad or code or not reached:
        what = ", ".join(bad) or ("no task ran" if not reached else f"exit code {code}")
        raise RunFailed(f"DAG {DAG} of {as_of} failed: {what}; {_why(log)}", reached)


def states(settings: Settings, as_of: date, since: datetime) -> list[TaskState]:
    """The tasks of the run of a day as they stand, unless the run is older than `since`."""
    query = """
        SELECT ti.task_id, ti.map_index, ti.state, ti.start_date, ti.end_date, ti.try_number
        FROM task_instance ti JOIN dag_run r ON r.dag_id = ti.dag_id AND r.run_id = ti.run_id
        WHERE ti.dag_id = ? AND r.logical_date = ? AND r.created_at >= ?
        ORDER BY ti.end_date IS NULL, ti.end_date, ti.task_id, ti.map_index
    """
    with contextlib.closing(sqlite3.connect(f"file:{_database(settings)}?mode=ro", uri=True, timeout=10)) as database:
        rows = database.execute(query, (DAG, f"{as_of} 00:00:00.000000", f"{since:%F %T.%f}")).fetchall()
    return [_state(*row) for row in rows]


def standalone(settings: Settings, say: Say) -> None:
    """Servers, scheduler and web page until Ctrl-C; everything that this started is then stopped."""
    started = services.start(settings, regions_file.load(settings.config_folder), say)
    try:
        found = setup(settings, say)
        address = f"http://127.0.0.1:{found['AIRFLOW__API__PORT']}"
        log = folder(settings) / "standalone.log"
        pid = processes.start(["airflow", "standalone"], log, found)
        try:
            with _timed("airflow: up", say):
                processes.wait_until(lambda: _healthy(address), pid, log, "airflow standalone", STANDALONE_SECONDS)
            say(
                f"airflow: {address}/dags/{DAG} (no password; the DAG is paused at first). Log: {log}. Ctrl-C stops it."
            )
            while (code := processes.exit_code(pid)) is None:
                time.sleep(0.5)
            raise processes.Failed(f"airflow ended with code {code}; the end of {log}:\n{processes.tail(log)}")
        finally:
            processes.ignore_signals()
            processes.stop(pid)
            say("airflow: stopped")
    finally:
        services.stop(started, say)


def _why(log: Path) -> str:
    """What a task of ours said about its failure, or the end of the log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    said = re.findall(r"^(?:tandem: |\S*AirflowFailException: (?!Cannot execute))(.*(?:\n  .*)*)", text, re.MULTILINE)
    return f"{said[-1]}\n(all of it in {log})" if said else f"the end of {log}:\n{processes.tail(log, 25)}"


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=5) as answer:  # noqa: S310 - http
            health = json.load(answer)
    except (OSError, ValueError):
        return False
    return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def _tell(tasks: list[TaskState], told: set[tuple[str, int]], say: Say) -> None:
    """A line for every task that finished, or failed and will be tried again, since the last call."""
    for task in tasks:
        if task.state in FINISHED | {"up_for_retry"} and (task.name, task.tries) not in told:
            told.add((task.name, task.tries))
            say(f"  {task.name:<22} {task.state:<16} {task.seconds:6.1f} s")


def _state(task: str, index: int, state: str | None, start: str | None, end: str | None, tries: int) -> TaskState:
    seconds = (_time(end) - _time(start)).total_seconds() if start and end else 0.0
    return TaskState(task if index < 0 else f"{task}[{index}]", state or "none", seconds, tries)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _database(settings: Settings) -> Path:
    return folder(settings) / "airflow.db"


def _fernet_key(settings: Settings) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(settings.secret("airflow-fernet"))).decode()


@contextlib.contextmanager
def _timed(what: str, say: Say) -> Iterator[None]:
    start = time.monotonic()
    yield
    say(f"{what} ({time.monotonic() - start:.1f} s)")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.airflow", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("test").add_argument("--as-of", type=date.fromisoformat, required=True)
    for name in ("standalone", "setup", "environment"):
        commands.add_parser(name)
    options = parser.parse_args(arguments)
    settings = settings_file.from_environment()
    processes.interrupt_on_signals()
    if options.command == "test":
        setup(settings, _say)
        test(settings, options.as_of, _say)
    elif options.command == "standalone":
        with contextlib.suppress(KeyboardInterrupt):
            standalone(settings, _say)
    elif options.command == "setup":
        setup(settings, _say)
    else:
        named = {key: value for key, value in environment(settings).items() if os.environ.get(key) != value}
        print("\n".join(f"export {key}={shlex.quote(value)}" for key, value in named.items()))
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    processes.command(main)
