"""The page for whoever is on call: its commands run as they stand, and end where the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from benchmarks._serving import environment
from tandem.cli import main
from tandem.release import NEXT
from tandem.settings import Settings
from tests.spark_jobs.test_release_switch import Sealed, promote, sealed, seen, shop

__all__ = ["sealed", "shop"]
pytestmark = pytest.mark.servers

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")


def test_the_commands_for_whoever_is_on_call_run_as_they_stand(shop: Settings, sealed: Sealed) -> None:
    sealed("r1", "r2")
    promote(shop, "r1", "r2")
    sealed("r3")
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    done = subprocess.run(
        ["bash", "-eux", "-c", script],
        env=environment(shop)
        | {
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
            "REGION": "north",
            "BEFORE": "r1",
            "RELEASE": "r2",
            "NEXT": "r3",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "north: r1 is current again, r2 is quarantined" in done.stdout
    assert "north: r3 is held" in done.stdout
    assert "north: has not missed a release" in done.stdout
    assert seen(shop) == ("r3", "r1", "r3", {"r1": "backup", "r2": "quarantined", "r3": "current"})


def test_every_command_and_every_state_that_the_page_names_exists() -> None:
    groups = {name: getattr(command, "commands", {}) for name, command in main.commands.items()}
    for first, second in re.findall(r"tandem ([a-z-]+)(?: ([a-z]+)\b)?", PAGE):
        assert first in groups, first
        assert not groups[first] or second in groups[first], f"{first} {second}"
    cells = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.MULTILINE)
    named = {state for cell in cells for state in re.findall(r"\w+", cell)}
    assert named == set(NEXT) - {""}


def test_everything_that_shows_that_it_holds_exists() -> None:
    tests, benches = re.findall(r"tests/[\w/.]+", PAGE), re.findall(r"make bench-(\w+)", PAGE)
    missing = [name for name in tests if not (ROOT / name).exists()]
    missing += [name for name in benches if not (ROOT / "benchmarks" / f"{name}.py").exists()]
    assert (missing, len(tests) > 10, len(benches) > 2) == ([], True, True)
