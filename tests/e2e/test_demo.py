"""`make demo` on a small shop: every step for real, from a CSV file to checked answers, and nothing left behind."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy import asking, services
from tandem import regions as regions_file
from tandem.settings import Settings

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
AS_OF = "2017-12-31"
PAIRS = [(f"bread-{n}", f"butter-{n}") for n in range(12)]
SINGLES = [f"single-{n}" for n in range(16)]


@dataclass(frozen=True)
class Shop:
    settings: Settings
    environment: dict[str, str]

    def demo(self, *arguments: str, seconds: float = 1_200) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deploy.demo", "--as-of", AS_OF, *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )

    def tandem(self, *arguments: str) -> str:
        return asking.tandem(self.settings, *arguments)

    def left(self) -> list[str]:
        """Command lines of living processes that work on this shop's folder."""
        mark = f"TANDEM_HOME={self.settings.home}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            try:
                ours = folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode() if ours else ""
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            found += [command] if command else []
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A folder with two regions on free ports and 3,000 orders in which bread goes with butter."""
    home = tmp_path_factory.mktemp("shop").resolve()
    ports = services.free_ports(7)
    _write_config(home / "config", ports)
    variables = {"TANDEM_HOME": str(home), "TANDEM_EDGE_PORT": str(ports[3]), "TANDEM_SPARK_DRIVER_MEMORY": "1g"}
    variables |= {"TANDEM_POSTGRES_PORT": str(ports[5]), "TANDEM_ORDERS_PORT": str(ports[6])}
    environment = {**os.environ, **variables, "AIRFLOW__API__PORT": str(ports[4])}
    found = Shop(Settings(home=home, edge_port=ports[3], postgres_port=ports[5], orders_port=ports[6]), environment)
    _write_csv(home / "orders.csv", _orders())
    _write_csv(home / "stock.csv", _stock())
    found.tandem("import", "csv", "--orders", str(home / "orders.csv"), "--stock", str(home / "stock.csv"))
    yield found
    services.stop(services.servers(found.settings, regions_file.load(found.settings.config_folder)), print)


@pytest.fixture(scope="module")
def checked(shop: Shop) -> tuple[str, list[str]]:
    """What `--check` said the first time, and what it left running."""
    done = shop.demo("--check")
    assert done.returncode == 0, done.stdout
    return done.stdout, shop.left()


def test_the_check_builds_publishes_and_asks_every_region(checked: tuple[str, list[str]]) -> None:
    said, _ = checked
    jobs = ["segments", "affinity", "substitutes", "bundles", "pricing", "evaluation"]
    for task in [*jobs, "gate", "stage[1]", "canary", "promote[1]"]:
        assert f"  {task} " in said
    assert said.count("checksum agrees") == said.count("quote: valid until") == said.count("in PostgreSQL") == 2
    assert said.rstrip().splitlines()[-1] == "every answer is right"


def test_the_check_leaves_no_process(checked: tuple[str, list[str]]) -> None:
    assert checked[1] == []


@pytest.mark.usefixtures("checked")
def test_a_second_run_reuses_everything_answers_and_stops_all_of_it_on_ctrl_c(shop: Shop) -> None:
    command = [sys.executable, "-m", "deploy.demo", "--as-of", AS_OF]
    start = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, env=shop.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C stops" in line:
                break
        assert time.monotonic() - start < 60, "".join(said)
        assert any("published to every region already" in line for line in said)
        _ask(shop)
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, "".join(said) + rest
    assert {line.split(":")[0] for line in rest.splitlines() if line.endswith(": stopped")} >= {
        "edge",
        "orders",
        "postgres",
        "redis-north",
        "relay",
    }
    assert shop.left() == []


def test_an_interrupted_build_leaves_no_process(shop: Shop) -> None:
    command = [sys.executable, "-m", "deploy.demo", "--as-of", "2017-11-30"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=shop.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "pin_inputs" in line:
            break
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert shop.left() == [], rest


def _ask(shop: Shop) -> None:
    """The links work, the planted pair is offered, and the feed keeps live data fresh."""
    (region, *_) = regions_file.load(shop.settings.config_folder).region
    edge = shop.settings.local_edge
    assert httpx.get(f"{region.object_store.public_url}/shop/index.html").status_code == 200
    assert httpx.get(f"{edge}/docs").status_code == 200
    first = httpx.get(f"{edge}/v1/{region.name}/bundles/bread-1").json()
    assert {part["sku"] for part in first["bundles"][0]["components"]} == {"bread-1", "butter-1"}
    time.sleep(2.5)
    later = httpx.get(f"{edge}/v1/{region.name}/bundles/bread-1").json()
    assert first["stock_as_of"] < later["stock_as_of"]
    assert later["stale"] is False


def _orders() -> list[dict[str, Any]]:
    random.seed(7)
    rows = []
    for number in range(3000):
        when = datetime(2017, 1, 2, 9, tzinfo=UTC) + timedelta(hours=2.8 * number)
        bread, butter = PAIRS[number % len(PAIRS)]
        skus = [bread, *([butter] if random.random() < 0.7 else []), *random.sample(SINGLES, 2)]
        rows += [
            {
                "order_id": number,
                "ordered_at": when.isoformat(),
                "sku": sku,
                "quantity": 1,
                "unit_price": "2.50",
                "customer_id": f"c{number % 97}",
                "region": ("north", "south")[number // len(PAIRS) % 2],
                "currency": "EUR",
            }
            for sku in skus
        ]
    return rows


def _stock() -> list[dict[str, Any]]:
    return [
        {"sku": sku, "on_hand": 500, "region": region}
        for region in ("north", "south")
        for sku in [*(sku for pair in PAIRS for sku in pair), *SINGLES]
    ]


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_config(folder: Path, ports: list[int]) -> None:
    folder.mkdir()
    store = f'endpoint = "http://127.0.0.1:{ports[2]}"\nbucket = "tandem"\npublic_url = "http://127.0.0.1:{ports[2]}/tandem"\n'
    text = "".join(
        f'[[region]]\nname = "{name}"\ncurrency = "EUR"\ntime_zone = "UTC"\nk = 3\n'
        f'redis_url = "redis://127.0.0.1:{port}/0"\n[region.object_store]\n{store}\n'
        for name, port in zip(("north", "south"), ports[:2], strict=True)
    )
    (folder / "regions.toml").write_text(text, encoding="ascii")
    segment = '[[segment]]\nname = "regulars"\nwhere = "frequency >= 20"\n'
    (folder / "segments.toml").write_text(segment, encoding="ascii")
