"""Processes in groups of their own: start one, see whether it lives, end it with all its children."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tandem.errors import TandemError

GRACE_SECONDS = 15.0
"""How long a group may take to end by itself before it is killed."""


WIDTH = 300
"""Of a line that an error message shows."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failed(TandemError):
    """A process ended, or did not get ready; the message ends with the last lines it wrote."""


def start(command: Sequence[str], log: Path, environment: Mapping[str, str] = os.environ) -> int:
    """Start `command` as the leader of a new session, so that a Ctrl-C in the terminal does not reach it.

    What it writes is added to `log`. Gives back its process number, which is also its group's. It may outlive us, which
    is why this is no `subprocess.Popen`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    signals = (signal.SIGINT, signal.SIGPIPE)
    return os.posix_spawnp(command[0], list(command), environment, file_actions=actions, setsid=True, setsigdef=signals)


def run(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] = os.environ,
    say: Callable[[str], object] | None = None,
) -> None:
    """Run `command` in a group of its own to its end; what it writes goes to `log`, and as it comes to `say`.

    Raises Failed, with the log's tail, where it ends with another code than 0. On Ctrl-C the group is ended.
    """
    log.unlink(missing_ok=True)
    pid, told = start(command, log, environment), 0
    try:
        while (code := exit_code(pid)) is None:
            time.sleep(0.1)
            told = _relay(log, told, say)
        _relay(log, told, say)
    finally:
        stop(pid)
    if code:
        raise Failed(f"{' '.join(command)} ended with code {code}; the end of {log}:\n{tail(log)}")


def wait_until(ready: Callable[[], bool], pid: int, log: Path, name: str, seconds: float) -> None:
    """Return once `ready()` holds. Raises Failed, with the log's tail, where our child ends or time runs out before."""
    end = time.monotonic() + seconds
    while not ready():
        if (code := exit_code(pid)) is not None:
            raise Failed(f"{name} ended with code {code}; the end of {log}:\n{tail(log)}")
        if time.monotonic() > end:
            raise Failed(f"{name} was not ready after {seconds:.0f} s; the end of {log}:\n{tail(log)}")
        time.sleep(0.05)


def exit_code(pid: int) -> int | None:
    """How a child of ours ended (negative: the signal's number); None while it lives."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None if started_at(pid) is not None else -1
    return None if found == 0 else os.waitstatus_to_exitcode(status)


def stop(group: int, grace_seconds: float = GRACE_SECONDS, first: signal.Signals = signal.SIGTERM) -> None:
    """End every process of `group`: `first`, and KILL for what is left after `grace_seconds`."""
    for number, seconds in ((first, grace_seconds), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            exit_code(group)
            if not members(group):
                return
            time.sleep(0.02)
    raise Failed(f"processes {members(group)} do not end, not even by SIGKILL")


def members(group: int) -> list[int]:
    """The living processes of a group."""
    numbers = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return [pid for pid in numbers if (stat := _stat(pid)) and int(stat[2]) == group]


def started_at(pid: int) -> int | None:
    """When a living process started, in clock ticks since boot: with its number, its identity. None: it is gone."""
    stat = _stat(pid)
    return None if stat is None else int(stat[19])


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, indented."""
    if not log.is_file():
        return "    (nothing was written)"
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line[:WIDTH]}" for line in text) or "    (nothing was written)"


def interrupt_on_signals() -> None:
    """From now on a TERM, and a terminal that is closed, is what Ctrl-C is: a KeyboardInterrupt."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in _ENDING:
        signal.signal(number, interrupt)


def ignore_signals() -> None:
    """From now on nothing breaks off what is being ended."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def _relay(log: Path, told: int, say: Callable[[str], object] | None) -> int:
    """Say the whole lines of `log` after byte `told`; gives how far that is."""
    if say is None or not log.is_file():
        return told
    with log.open("rb") as file:
        file.seek(told)
        whole = file.read().rpartition(b"\n")[0]
    for line in whole.decode(errors="replace").splitlines():
        say(f"    {line}")
    return told + (len(whole) + 1 if whole else 0)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: state, parent, group, …; None where it has ended.

    A zombie has ended once its last thread has: until then it still holds its ports.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" and int(fields[17]) < 2 else fields


def command(main: Callable[[list[str]], int]) -> NoReturn:
    """Be the command `main`: its exit code, one line for an error of ours, 130 after Ctrl-C."""
    try:
        sys.exit(main(sys.argv[1:]))
    except TandemError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
