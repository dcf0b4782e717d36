"""Topics, two regions with a Redis each, and projectors as processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks._streams_world import World
from tandem.settings import Settings


@pytest.fixture
def world(kafka: Settings, redis_url: str, tmp_path: Path) -> Iterator[World]:
    found = World(kafka, {"north": redis_url, "south": f"{redis_url[:-1]}1"}, tmp_path)
    yield found
    found.close()
