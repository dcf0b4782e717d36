"""Who may ask the edge for what: `clients.toml` names them, with hashes of their keys and never a key."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path
from typing import Literal, get_args

import msgspec

from tandem import config
from tandem.errors import ConfigError

FILE = "clients.toml"
Scope = Literal["read", "deltas", "verify", "admin", "checkout", "orders"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
NEVER_OPEN = frozenset({"deltas", "orders"})
"""What changes stock or prices, and what reads orders and takes goods back, always needs a key."""
OPENABLE = tuple(scope for scope in SCOPES if scope not in NEVER_OPEN)
LEAST_LENGTH = 16
"""Characters of a key that somebody thought up; `tandem key` makes longer ones."""
HASH = re.compile(r"[0-9a-f]{64}")


class Client(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    sha256: list[str]
    """Hashes of its keys, in hexadecimal digits; two while one is replaced by the other."""
    scopes: list[Scope]
    rate: float = 0.0
    """Requests a second in the long run, in each edge process; 0: no limit."""
    burst: int = 0
    """Requests at once; 0: those of two seconds."""

    def __post_init__(self) -> None:
        if not self.name or not self.sha256 or not self.scopes:
            raise ValueError("a client needs a name, a hash and a scope")
        if wrong := [each for each in self.sha256 if not HASH.fullmatch(each)]:
            raise ValueError(f"{wrong[0][:16]!r} is no SHA-256 in hexadecimal digits; `tandem key` makes one")
        if self.rate < 0 or self.burst < 0:
            raise ValueError("rate and burst must not be negative")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    client: list[Client] = []


def load(folder: Path) -> list[Client]:
    """The clients of `clients.toml` in the configuration folder; none where there is no such file.

    Raises ConfigError, also where two clients share a name or a key.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    found = config.load(path, _File).client
    for what in ([each.name for each in found], [key for each in found for key in each.sha256]):
        if twice := {each for each in what if what.count(each) > 1}:
            raise ConfigError(f"{path}: {min(twice)} stands there twice; names and keys are one client's alone")
    return found


def open_scopes(text: str) -> list[Scope]:
    """The scopes that need no key, from TANDEM_OPEN_SCOPES. Raises ConfigError; those of NEVER_OPEN can't be."""
    named = [each.strip() for each in text.split(",") if each.strip()]
    if wrong := [each for each in named if each not in SCOPES or each in NEVER_OPEN]:
        raise ConfigError(f"TANDEM_OPEN_SCOPES: {wrong[0]!r} can't be open; name some of {', '.join(OPENABLE)}")
    return [scope for scope in SCOPES if scope in named]


def from_keys(name: str, keys: str, scopes: list[Scope]) -> Client:
    """The client of a setting that holds keys, separated by commas. Raises ConfigError for one that can be guessed."""
    given = [key.strip() for key in keys.split(",") if key.strip()]
    if not given or min(map(len, given)) < LEAST_LENGTH:
        raise ConfigError(f"each key in {name} needs {LEAST_LENGTH} characters or more; `tandem key` makes one")
    return Client(name=name, sha256=[hash_of(key) for key in given], scopes=scopes)


def hash_of(key: str) -> str:
    """SHA-256 in hexadecimal digits. No slow hash is needed: a key of 256 random bits can't be guessed."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(32)


def written(client: Client) -> str:
    """As `clients.toml` has it."""
    hashes, scopes = (", ".join(f'"{each}"' for each in some) for some in (client.sha256, client.scopes))
    lines = ["[[client]]", f'name = "{client.name}"', f"sha256 = [{hashes}]", f"scopes = [{scopes}]"]
    lines += [f"{name} = {value:g}" for name, value in (("rate", client.rate), ("burst", client.burst)) if value]
    return "\n".join(lines) + "\n"
