"""Ask what runs: the edge and the CDN over HTTP, the lake and the ledger through the `tandem` command."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from deploy.services import binary
from tandem import config, release
from tandem.errors import TandemError, Unavailable
from tandem.regions import Region, Regions
from tandem.settings import Settings

PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """GET `url`, or POST `body` to it; an error status is an answer too. Raises Unavailable where nobody answers."""
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}))  # noqa: S310 - http, from settings
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as got:  # noqa: S310
            return _answer(got.status, got.headers, got.read())
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.headers, error.read())
    except (OSError, ValueError) as error:
        raise Unavailable(f"{url} does not answer: {error}") from error


def answers(url: str) -> bool:
    """Whether `url` says that all is well."""
    with contextlib.suppress(Unavailable):
        return ask(url).status == 200
    return False


def post(url: str, value: object, headers: Mapping[str, str] | None = None) -> Answer:
    return ask(url, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def once(key: str = "") -> dict[str, str]:
    """The header of a request that is done once however often it is sent, and of one that needs `key`."""
    return {"Idempotency-Key": uuid.uuid4().hex} | ({"Authorization": f"Bearer {key}"} if key else {})


def order_key(settings: Settings) -> str:
    """A key that may read orders and take goods back."""
    return settings.order_keys.split(",")[0].strip() or settings.secret("orders")


def tandem(settings: Settings, *arguments: str) -> str:
    """What the `tandem` command prints. Raises TandemError with its own message."""
    command = [binary("tandem"), *arguments]
    done = subprocess.run(command, env=environment(settings), capture_output=True, check=False, encoding="utf-8")
    if done.returncode:
        raise TandemError(f"tandem {arguments[0]}: {done.stderr.strip().removeprefix('Error: ')}")
    return done.stdout


def environment(settings: Settings) -> dict[str, str]:
    """The variables of a process that works on the same folder, wherever it is started."""
    return {**os.environ, "TANDEM_HOME": str(settings.home.absolute())}


def sql(settings: Settings, statement: str) -> list[dict[str, Any]]:
    """Rows of the Delta tables."""
    rows: list[dict[str, Any]] = json.loads(tandem(settings, "sql", "--json", statement))
    return rows


def versions(settings: Settings) -> dict[str, int]:
    """The newest Delta version of every table that exists."""
    lines = [line.split() for line in tandem(settings, "tables").splitlines()]
    return {parts[0]: int(parts[1]) for parts in lines if len(parts) > 1 and parts[1].isdigit()}


def published(settings: Settings, regions: Regions, as_of: date) -> bool:
    """Every region shows, in ledger and CDN, the release that a build of `as_of` would make now."""
    newest = versions(settings)
    current = {
        row["region"]: row["release_id"]
        for row in json.loads(tandem(settings, "releases", "--json"))
        if row["state"] == "current" and row["as_of"] == as_of.isoformat()
    }
    if not set(regions.names) <= set(current):
        return False
    rows = sql(settings, "SELECT DISTINCT release_id, inputs FROM releases WHERE inputs IS NOT NULL")
    read = {row["release_id"]: json.loads(row["inputs"]) for row in rows}
    return all(
        _is_newest(settings, as_of, current[region.name], read.get(current[region.name], {}), newest)
        and _shown(region) == current[region.name]
        for region in regions.region
    )


def _is_newest(
    settings: Settings, as_of: date, release_id: str, inputs: Mapping[str, int], newest: Mapping[str, int]
) -> bool:
    """The release was made from the newest version of each fact and from the configuration in force."""
    unchanged = bool(inputs) and all(newest.get(table) == version for table, version in inputs.items())
    return unchanged and release_id == release.release_id(as_of, inputs, config.digest(settings.config_folder))


def _shown(region: Region) -> str | None:
    """The release that the CDN shows; None where it shows none."""
    answer = ask(f"{region.object_store.public_url}/{region.name}/current.json")
    return str(answer.json["release"]) if answer.status == 200 else None


def popular(settings: Settings, as_of: date, count: int) -> dict[str, list[str]]:
    """Each region's products with bundles of their own, by the number of orders, most first."""
    rows = sql(
        settings,
        f"""
        SELECT b.region, b.anchor FROM bundle_sets b JOIN sales_lines s ON s.region = b.region AND s.sku = b.anchor
        WHERE b.as_of = DATE '{as_of}' AND b.segment = '*' GROUP BY b.region, b.anchor
        QUALIFY row_number() OVER (PARTITION BY b.region ORDER BY count(*) DESC, b.anchor) <= {count:d}
        ORDER BY b.region, count(*) DESC, b.anchor
        """,  # noqa: S608 - a date and a number
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["region"], []).append(row["anchor"])
    return found


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    plain = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
    return Answer(status, {key.lower(): value for key, value in headers.items()}, plain)
