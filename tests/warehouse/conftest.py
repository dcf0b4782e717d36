"""A lake of its own for each test, and one with the Complete Journey for all that only read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tandem.settings import Settings
from warehouse import completejourney, import_files, query

Ask = Callable[[str], list[dict[str, Any]]]
REGIONS = """
[[region]]
name = "{name}"
currency = "{currency}"
time_zone = "UTC"
redis_url = "redis://127.0.0.1:{port}/0"
[region.object_store]
endpoint = "http://127.0.0.1:8333"
bucket = "tandem"
public_url = "http://127.0.0.1:8333/tandem"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A lake, and one region: `shop`, in euros."""
    settings = Settings(home=tmp_path / "home")
    regions(settings, {"shop": "EUR"})
    return settings


@pytest.fixture
def ask(settings: Settings) -> Ask:
    return lambda statement: json.loads(query.as_json(settings, statement))


@pytest.fixture
def bring(settings: Settings, tmp_path: Path) -> Callable[..., list[str]]:
    """Import files given as text or bytes; gives what was said."""

    def bring(
        *, mapping: str | None = None, regions_from_data: bool = False, **contents: str | bytes | Path
    ) -> list[str]:
        files = {}
        for kind, content in contents.items():
            path = content if isinstance(content, Path) else tmp_path / f"{kind}.csv"
            if isinstance(content, str | bytes):
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            files[kind] = str(path)
        mapping_file = None
        if mapping is not None:
            mapping_file = tmp_path / "mapping.toml"
            mapping_file.write_text(mapping, encoding="utf-8")
        said: list[str] = []
        import_files.run(settings, files, mapping_file, said.append, regions_from_data=regions_from_data)
        return said

    return bring


@pytest.fixture(scope="session")
def journey(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, list[str]]:
    """The whole Complete Journey, imported once, and what was said."""
    settings, said = Settings(home=tmp_path_factory.mktemp("journey")), []
    completejourney.run(settings, said.append)
    return settings, said


def regions(settings: Settings, currencies: dict[str, str]) -> None:
    settings.config_folder.mkdir(parents=True, exist_ok=True)
    text = "".join(
        REGIONS.format(name=name, currency=currency, port=6420 + place)
        for place, (name, currency) in enumerate(currencies.items())
    )
    (settings.config_folder / "regions.toml").write_text(text, encoding="utf-8")
