"""A wrong configuration file gets one line that names file, key and mend."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tandem import config, gates, regions, rules, segments
from tandem.errors import ConfigError

REGION = """
[[region]]
name = "{name}"
currency = "{currency}"
time_zone = "{zone}"
redis_url = "redis://127.0.0.1:6401/0"
{more}
[region.object_store]
endpoint = "http://127.0.0.1:8333"
bucket = "tandem"
public_url = "http://127.0.0.1:8333/tandem"
"""


def region(name: str = "north", currency: str = "EUR", zone: str = "Europe/Berlin", more: str = "") -> str:
    return REGION.format(name=name, currency=currency, zone=zone, more=more)


def written(folder: Path, name: str, text: str | bytes) -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize("module", [regions, segments, rules, gates])
def test_the_defaults_that_ship_are_right(module: object, tmp_path: Path) -> None:
    assert module.load(None) == module.load(tmp_path)  # type: ignore[attr-defined]


def test_a_file_in_the_folder_wins_and_the_others_stay(tmp_path: Path) -> None:
    folder = written(tmp_path, "regions.toml", region())
    assert regions.load(folder).names == ["north"]
    assert segments.load(folder) == segments.load(None)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("regions.toml", "[[region", "is not TOML"),
        ("regions.toml", b"\xff\xfe[", "cannot be read"),
        ("regions.toml", "", r"key top level: missing required field `region`; the keys here are region"),
        ("regions.toml", "region = []", "at least one"),
        ("regions.toml", region(more='colour = "red"'), r"colour.*the keys here are name, currency, time_zone"),
        ("regions.toml", region(currency="XYZ"), "currency 'XYZ' is no ISO 4217 code"),
        ("regions.toml", region(zone="Mars/Base"), "time_zone 'Mars/Base' is no IANA time zone"),
        ("regions.toml", region(name="North Pole"), "name 'North Pole' must be 1 to 32 of"),
        ("regions.toml", region(more="k = 0"), "k must be at least 1"),
        ("regions.toml", region(more="push_per_second = -1"), "push_per_second must not be negative"),
        ("regions.toml", region(more='k = "five"'), r"region\[.*k: "),
        ("regions.toml", region() + region(), "region named twice: north"),
        ("regions.toml", region().replace('bucket = "tandem"', ""), r"object_store.*`bucket`.*endpoint, bucket"),
        ("segments.toml", '[[segment]]\nname = "a"', r"missing required field `where`; the keys here are name, where"),
        ("segments.toml", '[[segment]]\nname = "everyone"\nwhere = "true"', "not 'everyone'"),
        ("segments.toml", '[[segment]]\nname = "a"\nwhere = " "', "where of segment 'a' must be one SQL predicate"),
        ("segments.toml", '[[segment]]\nname = "a"\nwhere = "1; drop"', "must be one SQL predicate"),
        ("segments.toml", '[[segment]]\nname = "a"\nwhere = "x"\n' * 2, "segment named twice: a"),
        ("segments.toml", "window_days = 0", "window_days must be at least 1"),
        ("segments.toml", "[learned]\ncount = -1", "key learned.count: "),
        ("segments.toml", "[learned]\nlevel = 'dairy'", "key learned.level: "),
        ("segments.toml", "[learned]\nstickiness = 2", "key learned.stickiness: "),
        ("segments.toml", "[learned]\nclusters = 3", r"key learned: .*`clusters`; the keys here are count, level"),
        ("segments.toml", '[learned]\npublish = "maybe"', "key learned.publish: "),
        ("segments.toml", 'first = "both"', "key first: "),
        ("rules.toml", "[pricing]\nmax_discount_bps = 10000", r"key pricing.max_discount_bps: "),
        ("rules.toml", "[bundling]\nmax_components = 5", r"key bundling.max_components: "),
        ("rules.toml", "[learning]\ntopp = 1", r"key learning: .*`topp`; the keys here are window_days"),
        ("rules.toml", "[prices]", r"`prices`; the keys here are learning, ranking, bundling, cold, pricing"),
        ("gates.toml", "max_orphan_share = 1.5", "key max_orphan_share: "),
        ("gates.toml", "min_anchors = 0", "key min_anchors: "),
    ],
)  # fmt: skip
def test_one_line_names_file_key_and_mend(tmp_path: Path, name: str, text: str, said: str) -> None:
    module = {"regions": regions, "segments": segments, "rules": rules, "gates": gates}[name.removesuffix(".toml")]
    with pytest.raises(ConfigError, match=said) as error:
        module.load(written(tmp_path, name, text))
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(error.value)


def test_a_region_that_is_not_known_is_answered_with_those_that_are(tmp_path: Path) -> None:
    known = regions.load(written(tmp_path, "regions.toml", region() + region("south")))
    assert known.get("south").name == "south"
    with pytest.raises(ConfigError, match=r"no region 'west' in regions\.toml; known are north, south"):
        known.get("west")


def test_an_edge_reads_the_replica_where_there_is_one(tmp_path: Path) -> None:
    first = regions.load(written(tmp_path, "regions.toml", region())).region[0]
    assert first.read_url == first.redis_url
    near = msgspec.structs.replace(first, redis_replica_url="redis://127.0.0.1:6499/0")
    assert near.read_url == "redis://127.0.0.1:6499/0"


def test_everyone_is_the_last_segment(tmp_path: Path) -> None:
    text = '[[segment]]\nname = "b"\nwhere = "x"\n[[segment]]\nname = "a"\nwhere = "y"\n'
    assert segments.load(written(tmp_path, "segments.toml", text)).names == ["b", "a", "everyone"]


def test_the_digest_changes_with_any_file_and_with_nothing_else(tmp_path: Path) -> None:
    before = config.digest(None)
    assert config.digest(tmp_path) == before
    written(tmp_path, "unrelated.toml", "x = 1")
    assert config.digest(tmp_path) == before
    seen = {before}
    for name in config.FILES:
        written(tmp_path, name, config.path_of(None, name).read_bytes() + b"\n# another\n")
        seen.add(config.digest(tmp_path))
    assert len(seen) == 1 + len(config.FILES)
