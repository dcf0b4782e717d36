"""Read a TOML file into a typed object; say file, key and mend in one line where it is wrong."""

from __future__ import annotations

import hashlib
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import TypeVar

import msgspec

from tandem.errors import ConfigError

Shape = TypeVar("Shape")

FILES = ("regions.toml", "segments.toml", "rules.toml", "gates.toml")


def path_of(folder: Path | None, name: str) -> Path:
    """Where `name` is read from: the configuration folder, or the default that ships with Tandem."""
    if folder is not None and (folder / name).is_file():
        return folder / name
    return Path(str(resources.files("tandem") / "defaults" / name))


def load(path: Path, shape: type[Shape]) -> Shape:
    """Parse `path` as `shape` (a msgspec struct that forbids unknown keys).

    Raises ConfigError with one line naming the file, the key and what it must be.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(tables, shape)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a UTF-8 TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}; mend that line") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_mend(str(error), shape)}") from error


def digest(folder: Path | None) -> str:
    """SHA-256 over the four configuration files in force, in the order of `FILES`."""
    total = hashlib.sha256()
    for name in FILES:
        content = path_of(folder, name).read_bytes()
        total.update(f"{name} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def _mend(message: str, shape: type) -> str:
    """Turn msgspec's message into key first, then what is wrong, then what would be right."""
    what, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".") or "top level"
    what = what.replace("Object ", "").strip()
    if "unknown field" in what or "missing required field" in what:
        return f"key {key}: {what}; the keys here are {', '.join(_keys_at(shape, key))}"
    return f"key {key}: {what}"


def _keys_at(shape: object, key: str) -> list[str]:
    for part in re.findall(r"[A-Za-z_]\w*|\[(?:\d+|\.\.\.)\]", "" if key == "top level" else key):
        if part.startswith("["):
            shape = shape.__args__[0] if hasattr(shape, "__args__") else shape
        else:
            fields = {field.encode_name: field.type for field in msgspec.structs.fields(shape)}  # type: ignore[arg-type]
            shape = fields.get(part, shape)
    return [field.encode_name for field in msgspec.structs.fields(shape)]  # type: ignore[arg-type]
