"""nginx in front of an edge, as deploy/images/gateway.conf sets it up."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _edge_load
from deploy import services

SITE = Path(__file__).resolve().parents[1] / "deploy" / "images" / "gateway.conf"
FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
AROUND = """
worker_processes 1;
error_log {folder}/error.log crit;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    {temporary}
    include {folder}/site.conf;
}}
"""


def configured(folder: Path, edge_port: int, port: int, *, limits: bool, orders_port: int = 8081) -> Path:
    """A whole configuration with the documented one inside; only ports change, and limits of one address where all
    load comes from one.
    """
    site = SITE.read_text(encoding="utf-8")
    site = site.replace("127.0.0.1:8080", f"127.0.0.1:{edge_port}").replace("listen 80;", f"listen 127.0.0.1:{port};")
    site = site.replace("127.0.0.1:8081", f"127.0.0.1:{orders_port}")
    if not limits:
        site = re.sub(r"^\s*limit_(req|conn) .*$", "", site, flags=re.MULTILINE)
    (folder / "site.conf").write_text(site, encoding="utf-8")
    temporary = "\n    ".join(f"{name}_temp_path {folder}/{name};" for name in FOLDERS)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, temporary=temporary), encoding="utf-8")
    return folder / "nginx.conf"


@contextmanager
def up(
    folder: Path,
    edge_port: int,
    *,
    limits: bool = True,
    start_as: Callable[[], None] | None = None,
    orders_port: int = 8081,
) -> Iterator[int]:
    """The gateway's port while the body runs. Raises RuntimeError where nginx is not installed or does not start."""
    binary = shutil.which("nginx")
    if binary is None:
        raise RuntimeError("nginx is not installed (make system-deps)")
    (port,) = services.free_ports(1)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    configuration = configured(folder, edge_port, port, limits=limits, orders_port=orders_port)
    command = [binary, "-p", str(folder), "-c", str(configuration), "-g", "daemon off;"]
    process = subprocess.Popen(command, preexec_fn=start_as, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while not _edge_load.status(port, "/healthz"):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"nginx did not start: {(folder / 'error.log').read_text(encoding='utf-8')}")
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(20)
