"""The page of the streams: its commands run as they stand, its tables and names are the code's."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from deploy import services
from streams import schema
from streams.observed import Observed

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "streams.md").read_text(encoding="utf-8")


@pytest.mark.servers
def test_the_commands_of_the_page_run_as_they_stand(tmp_path: Path) -> None:
    """With a port of their own, since another broker may have the one that the page names."""
    (port,) = services.free_ports(1)
    parts = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    script = "\n".join(text if kind == "sh" else f"python - <<'END'\n{text}END" for kind, text in parts)
    done = subprocess.run(
        ["bash", "-eu", "-c", script.replace("127.0.0.1:9092", f"127.0.0.1:{port}")],
        cwd=ROOT,
        env=os.environ
        | {
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
            "TANDEM_HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"kafka-1 +port {port}  runs", done.stdout)
    assert "there are none" in done.stdout
    assert "kafka-1: stopped" in done.stdout


def test_the_table_of_topics_is_current() -> None:
    assert schema.table() in PAGE


def test_every_metric_that_the_page_names_is_told_and_the_other_way_round() -> None:
    told = {name for family in Observed("east").registry.collect() for name in (family.name, f"{family.name}_total")}
    named = set(re.findall(r"^\| `(tandem_projector_\w+)`", PAGE, re.MULTILINE))
    assert named <= told
    assert len(named) == sum(1 for _ in Observed("east").registry.collect())


def test_every_test_and_command_that_the_page_names_exists() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "streams").glob("*.py"))
    tests = re.findall(r"`(test_\w+)`", PAGE)
    assert len(tests) > 10
    assert [name for name in tests if f"def {name}(" not in code] == []
    for name in re.findall(r"benchmarks[.-](\w+)", PAGE):
        assert (ROOT / "benchmarks" / f"{name}.py").exists()
