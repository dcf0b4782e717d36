"""The guides hold: their commands run as they stand, print what the page shows, and no reason is left unexplained."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORT = (ROOT / "docs" / "import.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What all commands of docs/import.md print, run one after the other in an empty folder."""
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", IMPORT, re.MULTILINE | re.DOTALL))
    done = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=tmp_path_factory.mktemp("guide"),
        env=os.environ | {"PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_guide_to_importing_shows_what_its_commands_print(told: str):
    shown = [block for block in _indented(IMPORT) if "rows read" in block or "1 row" in block]
    assert len(shown) == 2
    for block in shown:
        assert block in told


def test_every_reason_that_a_row_is_rejected_for_is_explained():
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "warehouse").glob("*.py")))
    given = {reason for pair in re.findall(r'Refusal\(\s*"(\w+)"|THEN \'(\w+_quantity)\'', code) for reason in pair}
    explained = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", IMPORT, re.MULTILINE)
    assert given - {""} | {"ragged_row"} == {name for cell in explained for name in re.findall(r"\w+", cell)}


def _indented(page: str) -> list[str]:
    """The page's blocks of indented text, without their indent."""
    blocks = re.findall(r"(?:^    .*\n?)+", page, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks]
