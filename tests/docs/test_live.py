"""The page about what happens between two builds names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from tandem.cli import main
from tandem.rules import Live
from tandem.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")
CODE = "".join((ROOT / "spark_jobs" / name).read_text(encoding="utf-8") for name in ("into_lake.py", "live.py"))


def test_its_commands_settings_and_tests_exist() -> None:
    groups = {name: getattr(command, "commands", {}) for name, command in main.commands.items()}
    for first, second in re.findall(r"tandem (import|live|events|sql)(?: ([a-z]+)\b)?", PAGE):
        assert first in groups
        assert first != "import" or second in groups[first], second
    named = {name.lower() for name in re.findall(r"TANDEM_([A-Z_]+)", PAGE)}
    assert named <= {field.name for field in msgspec.structs.fields(Settings)}
    tests = re.findall(r"tests/[\w/.]+", PAGE)
    assert (len(tests) > 6, [name for name in tests if not (ROOT / name).exists()]) == (True, [])


def test_it_explains_every_reason_and_every_bound() -> None:
    assert set(re.findall(r'"(un\w+_message)"', CODE)) <= set(re.findall(r"`(\w+)`", PAGE))
    told = {"half_life_minutes", "min_surge", "min_actors", "per_anchor", "ttl_seconds"}
    assert told <= {field.name for field in msgspec.structs.fields(Live)} & set(re.findall(r"`?(\w+)`?", PAGE))
