"""Regions as the data names them: checked against `regions.toml`, or added to it."""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tandem import regions as regions_file
from tandem.errors import ConfigError, InputError
from tandem.money import EXPONENTS
from tandem.regions import Region, Regions
from tandem.settings import Settings
from warehouse.reading import Raw, Say
from warehouse.views import first, quoted

DEFAULT = "default"
"""The region of data that names none."""
FIRST_PORT = 6411


def name_in(column: str) -> str:
    """SQL for a region's name as regions.toml may write it: lower case, anything but a-z 0-9 _ as `-`."""
    return f"nullif(left(trim(regexp_replace(lower({column}), '[^a-z0-9_]+', '-', 'g'), '-_'), 32), '')"


def settle(connection: Any, settings: Settings, raws: list[Raw], say: Say, *, from_data: bool) -> Regions:
    """The regions in force once every region that the data names is known.

    Raises InputError that lists the unknown ones, unless `from_data`: then they are added to regions.toml in the
    configuration folder, the first time in the place of the defaults.
    """
    named = _named(connection, raws)
    if from_data:
        return _added(connection, settings, raws, named, say)
    known = regions_file.load(settings.config_folder)
    if unknown := [name for name in named if name not in known.names]:
        raise InputError(
            f"regions.toml does not name {', '.join(unknown)} (it names {', '.join(known.names)}); "
            "add them there, or run again with --regions-from-data"
        )
    return known


def home_of_rows(raw: Raw, regions: Regions) -> str:
    """SQL for the region of an order's row; where the data names none, the only region there is.

    Raises InputError where there are several and the data has no column for them.
    """
    if DEFAULT in regions.names:
        return f"coalesce({name_in('region')}, '{DEFAULT}')"
    if len(regions.names) == 1:
        return f"coalesce({name_in('region')}, {quoted(regions.names[0])})"
    if "region" not in raw.columns:
        raise InputError(
            f"{raw.kind}: no column region, and regions.toml names several ({', '.join(regions.names)}); name it "
            f'in the mapping, [{raw.kind}] region = "…", or one for all, '
            f'[{raw.kind}.constant] region = "{regions.names[0]}"'
        )
    return name_in("region")


def _named(connection: Any, raws: list[Raw]) -> list[str]:
    """Every region that any file names. Raises InputError where two different names come to the same."""
    sources = [
        f"SELECT DISTINCT region FROM {raw.table} WHERE region IS NOT NULL" for raw in raws if "region" in raw.columns
    ]
    if not sources:
        return []
    rows = connection.sql(f"""
        SELECT {name_in("region")} AS name, list(DISTINCT lower(region) ORDER BY lower(region)) AS written
        FROM ({" UNION ALL ".join(sources)}) GROUP BY ALL ORDER BY ALL
    """).fetchall()
    for name, written in rows:
        if name is None or len(written) > 1:
            raise InputError(
                f"regions are written {', '.join(map(repr, written))} in the data, which gives the name {name!r}; "
                "a region's name is 1 to 32 of a-z 0-9 _ -: rename them in the data"
            )
    return [name for name, _ in rows]


def _added(connection: Any, settings: Settings, raws: list[Raw], named: list[str], say: Say) -> Regions:
    path = settings.config_folder / "regions.toml"
    held = regions_file.load(settings.config_folder).region if path.is_file() else []
    needed = named or ([] if held else [DEFAULT])
    if _rows_without_region(connection, raws) and not (len(held) == 1 and not named):
        needed = [*needed, DEFAULT]
    new = [name for name in dict.fromkeys(needed) if name not in [region.name for region in held]]
    if new:
        text = path.read_text(encoding="utf-8").rstrip("\n") + "\n\n" if held else "# Made by tandem import csv.\n\n"
        text += "\n".join(_entries(connection, settings, raws, new, held))
        _write(path, text)
        say(
            f"regions: {', '.join(new)} added to {path.name} with defaults; "
            "look at currency, time zone and addresses there"
        )
    return regions_file.load(settings.config_folder)


def _rows_without_region(connection: Any, raws: list[Raw]) -> bool:
    orders = [raw for raw in raws if raw.kind == "orders"]
    return any(first(connection, f"SELECT count(*) FROM {raw.table} WHERE region IS NULL")[0] for raw in orders)


def _entries(connection: Any, settings: Settings, raws: list[Raw], new: list[str], held: list[Region]) -> list[str]:
    store = regions_file.load(None).region[0].object_store
    taken = {int(found[1]) for region in held if (found := re.search(r":(\d+)(?:/|$)", region.redis_url))}
    free = (port for port in range(FIRST_PORT, 65_536) if port not in taken)
    return [
        f"""[[region]]
name = "{name}"
title = "{name.replace("-", " ").replace("_", " ").title()}"
currency = "{_currency(connection, raws, name)}"
time_zone = "UTC"
redis_url = "redis://127.0.0.1:{port}/0"
k = 5

[region.object_store]
endpoint = "{store.endpoint}"
bucket = "{store.bucket}"
public_url = "{store.public_url}"
"""
        for name, port in zip(new, free, strict=False)
    ]


def _currency(connection: Any, raws: list[Raw], region: str) -> str:
    """The currency that most rows of a region have. Raises InputError naming the mapping key where none has one."""
    for raw in raws:
        if "currency" not in raw.columns or raw.kind not in ("orders", "prices"):
            continue
        rows = connection.sql(f"""
            SELECT currency FROM {raw.table}
            WHERE coalesce({name_in("region")}, '{DEFAULT}') = {quoted(region)} AND currency IS NOT NULL
            GROUP BY currency ORDER BY count(*) DESC, currency
        """).fetchall()
        if usable := [row[0].upper() for row in rows if row[0].upper() in EXPONENTS]:
            return str(usable[0])
    raise InputError(
        f"the data names no currency for region {region}; say it in the mapping, "
        '[orders.constant] currency = "EUR" (or what it is)'
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error}); set TANDEM_CONFIG to a folder that can") from error
