"""Processes in groups: started, told about, ended with all their children."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from deploy import processes

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def test_a_group_is_ended_with_its_children_even_those_that_ignore_term(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STUBBORN!r}])"
    pid = processes.start([sys.executable, "-c", code], log := tmp_path / "log")
    processes.wait_until(lambda: "up" in log.read_text(encoding="ascii"), pid, log, "stubborn", 10)
    assert len(processes.members(pid)) == 2
    processes.stop(pid, grace_seconds=0.2)
    assert processes.members(pid) == []
    assert processes.started_at(pid) is None


def test_stopping_what_has_ended_is_no_error(tmp_path: Path) -> None:
    pid = processes.start(["true"], tmp_path / "log")
    processes.stop(pid)
    processes.stop(pid)


def test_a_process_that_ends_before_it_is_ready_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = processes.start([sys.executable, "-c", "print('the port is on fire'); raise SystemExit(3)"], log)
    with pytest.raises(processes.Failed, match=r"(?s)stove ended with code 3.*the port is on fire"):
        processes.wait_until(lambda: False, pid, log, "stove", 10)


def test_a_process_that_never_gets_ready_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = processes.start(["sleep", "60"], log)
    with pytest.raises(processes.Failed, match="sleeper was not ready after 0 s"):
        processes.wait_until(lambda: False, pid, log, "sleeper", 0.2)
    processes.stop(pid)


def test_what_a_command_writes_is_said_line_by_line_as_it_comes(tmp_path: Path) -> None:
    said: list[tuple[str, float]] = []
    code = "import time\nfor n in range(3): print('line', n, flush=True); time.sleep(0.4)"
    processes.run(
        [sys.executable, "-c", code], tmp_path / "log", say=lambda line: said.append((line, time.monotonic()))
    )
    assert [line.strip() for line, _ in said] == ["line 0", "line 1", "line 2"]
    assert said[2][1] - said[0][1] > 0.5


def test_a_command_that_fails_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(processes.Failed, match=r"(?s)ended with code 1.*no such shop"):
        processes.run([sys.executable, "-c", "raise SystemExit('no such shop')"], tmp_path / "log")


def test_an_interrupt_ends_the_command_that_runs(tmp_path: Path) -> None:
    seen: list[int] = []

    def interrupt(line: str) -> None:
        seen.append(int(line))
        raise KeyboardInterrupt

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        processes.run([sys.executable, "-c", code], tmp_path / "log", say=interrupt)
    assert processes.started_at(seen[0]) is None


def test_a_ctrl_c_in_the_terminal_does_not_reach_what_was_started(tmp_path: Path) -> None:
    pid = processes.start(["sleep", "60"], tmp_path / "log")
    assert os.getpgid(pid) == pid != os.getpgrp()
    assert os.getsid(pid) == pid
    processes.stop(pid)


def test_a_process_that_was_killed_has_its_signal_as_code(tmp_path: Path) -> None:
    pid = processes.start(["sleep", "60"], tmp_path / "log")
    os.kill(pid, signal.SIGKILL)
    while (code := processes.exit_code(pid)) is None:
        time.sleep(0.01)
    assert code == -signal.SIGKILL
