"""Load on one core and servers on the other, and what their processes' CPU says afterwards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
CONNECTIONS = 32
READY_SECONDS = 60.0
EMPTY: Mapping[str, str] = MappingProxyType({})
MARK = b"\n--next--\n"
"""Between two requests in the file that load generators read."""
SCRIPT = """
local wanted, at = {}, 0
function init(args)
  local file = io.open(args[1], "rb")
  local text = file:read("*a")
  file:close()
  local from = 1
  while true do
    local start, finish = string.find(text, "\\n--next--\\n", from, true)
    if not start then break end
    wanted[#wanted + 1] = string.sub(text, from, start - 1)
    from = finish + 1
  end
  local pause = tonumber(args[2])
  if pause > 0 then
    delay = function() return pause end
  end
end
function request()
  at = at % #wanted + 1
  return wanted[at]
end
function done(summary, latency, requests)
  io.write(string.format("requests %d seconds %f failed %d p50 %f p99 %f\\n", summary.requests,
    summary.duration / 1e6, summary.errors.status + summary.errors.connect + summary.errors.read
    + summary.errors.write + summary.errors.timeout, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


class Load:
    """Sends the requests of one file again and again, over keep-alive connections."""

    def __init__(self, folder: Path, name: str, requests: Sequence[bytes]) -> None:
        self._file = folder / f"{name}.requests"
        self._file.write_bytes(b"".join(each + MARK for each in requests))
        self._script = folder / "requests.lua"
        self._script.write_text(SCRIPT, encoding="utf-8")

    def run(
        self, port: int, seconds: float, connections: int = CONNECTIONS, a_second: float = 0.0, pause_ms: float = 0.0
    ) -> dict[str, float]:
        """`requests`, `seconds`, `failed`, latencies `p50` and `p99` in ms; at full speed, so many `a_second`, or (wrk
        alone) with a pause after each answer.
        """
        with self.running(port, seconds, connections, a_second, pause_ms) as process:
            told = process.communicate()[0]
        found = re.search(r"^requests .*", told, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"the load generator said: {told}")
        words = found[0].split()
        return {name: float(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    @contextmanager
    def running(
        self, port: int, seconds: float, connections: int, a_second: float = 0.0, pause_ms: float = 0.0
    ) -> Iterator[subprocess.Popen[str]]:
        """The load as a process, ended at the end if it is not through by then."""
        url = f"http://127.0.0.1:{port}"
        if shutil.which("wrk") and not a_second:
            given = [
                "wrk",
                "-t1",
                f"-c{connections}",
                f"-d{max(1, round(seconds))}s",
                "-s",
                str(self._script),
                url,
                "--",
            ]
            command = [*given, str(self._file), str(pause_ms)]
        else:
            given = [sys.executable, "-m", "benchmarks._edge_client", url, str(connections), str(seconds)]
            command = [*given, str(self._file), str(a_second)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, preexec_fn=on_load_core)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def generator() -> str:
    """Which load generator is used here."""
    return "wrk" if shutil.which("wrk") else "benchmarks/_edge_client.py (wrk is not installed)"


def on_load_core() -> None:
    os.sched_setaffinity(0, {LOAD_CORE})


def on_server_core() -> None:
    os.sched_setaffinity(0, {SERVER_CORE})


@contextmanager
def here_on(core: int) -> Iterator[None]:
    """What is started inside runs on `core`."""
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


@contextmanager
def served(
    *arguments: str, port: int, log: Path, path: str = "/", variables: Mapping[str, str] = EMPTY
) -> Iterator[int]:
    """A server process (`python -m …`) on its core, up; gives its process id."""
    command = [sys.executable, "-m", *arguments]
    environment = {**variables, **os.environ}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, preexec_fn=on_server_core)
    try:
        _until_ready(port, path, process, log)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _until_ready(port: int, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while status(port, path) != 200:
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the server did not come up: {log.read_text()}")
        time.sleep(0.01)


def status(port: int, path: str) -> int:
    """HTTP status of a GET; 0 where nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n".encode())
            answer = connection.recv(64)
    except OSError:
        return 0
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0


def processes(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(parent) == pid:
                found += processes(int(folder.name))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and its descendants, from /proc/PID/stat."""
    ticks = 0
    for each in processes(pid):
        fields = Path(f"/proc/{each}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory of the largest of the process and its descendants."""
    pages = [int(Path(f"/proc/{each}/statm").read_text(encoding="utf-8").split()[1]) for each in processes(pid)]
    return max(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def own_resident_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def ask(connection: socket.socket, request: bytes) -> bytes:
    """The answer with bundles to one request, read to its end."""
    connection.sendall(request)
    answer = connection.recv(65_536)
    while not answer.endswith(b"]}"):
        answer += connection.recv(65_536)
    return answer
