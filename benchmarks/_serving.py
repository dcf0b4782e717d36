"""An edge as `tandem serve` starts it, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from deploy import services
from tandem.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 60.0


def environment(settings: Settings) -> dict[str, str]:
    """What a command of `settings` needs to be told."""
    return {
        **os.environ,
        "TANDEM_HOME": str(settings.home),
        "TANDEM_CONFIG": str(settings.config_folder),
        "TANDEM_S3_ACCESS_KEY": settings.s3_access_key,
        "TANDEM_S3_SECRET_KEY": settings.s3_secret,
        "TANDEM_KAFKA": settings.kafka,
        "TANDEM_KAFKA_OPTIONS": settings.kafka_options,
        "TANDEM_TOPIC_PREFIX": settings.topic_prefix,
        "TANDEM_REWIND_HOURS": str(settings.rewind_hours),
    }


class Serving:
    """An edge that serves all regions of `settings` on `port` while the body runs; ready when it begins.

    It refuses nobody: a reader that sends hundreds of questions at once may find it waiting for a core.
    """

    def __init__(self, settings: Settings, workers: int = 1) -> None:
        (self.port,) = services.free_ports(1)
        command = [sys.executable, "-m", "tandem.cli", "serve", "--port", str(self.port), "--workers", str(workers)]
        self.address = f"http://127.0.0.1:{self.port}"
        patient = {**environment(settings), "TANDEM_LONGEST_WAIT_MS": "60000"}
        self._process = subprocess.Popen(command, cwd=ROOT, env=patient, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Serving:
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.address}/readyz", timeout=5):
                    return self
            except OSError:
                if time.monotonic() > end or self._process.poll() is not None:
                    self._stop()
                    raise
                time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
