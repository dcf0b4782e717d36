"""Who asks, by the key that a request carries, and what that client may ask for."""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.types import Scope as Asked

from edge_service.problems import Problem
from edge_service.rates import Addresses, Rates, Taken
from tandem import clients
from tandem.clients import Client, Scope
from tandem.errors import ConfigError

WRONG_A_SECOND, WRONG_AT_ONCE = 1.0, 20
"""Wrong keys from one address that are answered as such."""
TAKEN = "tandem.taken"
"""In an ASGI scope: what the rate limits said of the request."""


class Keyring:
    """All clients and their keys. `open_to_all` are the scopes that need no key."""

    def __init__(
        self, given: Sequence[Client], folder: Path, open_to_all: Sequence[Scope], addresses: Addresses, log: Any
    ) -> None:
        self._given, self._folder, self._addresses, self._log = given, folder, addresses, log
        self._open = frozenset(open_to_all)
        self._wrong = Rates("wrong-keys", WRONG_A_SECOND, WRONG_AT_ONCE)
        self._stamp = _stamp(folder)
        self._use(clients.load(folder))

    def _use(self, found: Sequence[Client]) -> None:
        self._clients = [(bytes.fromhex(key), client) for client in [*self._given, *found] for key in client.sha256]
        self._rates: Mapping[str, Rates] = {
            client.name: Rates(client.name, client.rate, client.burst or int(2 * client.rate))
            for client in found
            if client.rate
        }

    @property
    def limits(self) -> bool:
        """Whether any client's requests are limited."""
        return bool(self._rates)

    def reload(self) -> None:
        """Take in `clients.toml` where it has changed; one that can't be read is reported, and changes nothing."""
        stamp = _stamp(self._folder)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._use(clients.load(self._folder))
        except ConfigError as error:
            self._log.error("clients_not_read", reason=str(error))
        else:
            self._log.info("clients", number=len({client.name for _, client in self._clients}))

    def check(self, asked: Asked, scope: Scope) -> None:
        """Raises a problem unless the request may use `scope`: 401 without a right key, 403 with one that is for
        something else, 429 for a client past its limit or an address that tries keys.
        """
        if scope in self._open:
            return
        client = self._client(_given(asked))
        now = time.monotonic()
        if client is None:
            raise self._refused(asked, scope, now)
        if scope not in client.scopes:
            raise Problem(403, f"this key is not for {scope}; its scopes are {', '.join(client.scopes)}", kind="scope")
        rates = self._rates.get(client.name)
        if rates is not None:
            asked[TAKEN] = taken = rates.take(client.name, now)
            if taken.wait_seconds:
                raise too_many(taken)

    def _client(self, key: str) -> Client | None:
        given = bytes.fromhex(clients.hash_of(key))
        found = None
        for held, client in self._clients:  # all of them, for constant time
            if hmac.compare_digest(given, held):
                found = client
        return found

    def _refused(self, asked: Asked, scope: Scope, now: float) -> Problem:
        taken = self._wrong.take(self._addresses.of(asked), now)
        if taken.wait_seconds:
            return too_many(taken)
        detail = f"a key with the scope {scope} is needed: `Authorization: Bearer KEY` or `X-Tandem-Key: KEY`"
        return Problem(401, detail, kind="key", headers={"WWW-Authenticate": "Bearer"})


def too_many(taken: Taken) -> Problem:
    """The 429 problem for what a limit refused."""
    headers = {name.decode(): value.decode() for name, value in taken.headers}
    return Problem(429, f"too many requests; wait {headers['retry-after']} s", kind="rate", headers=headers)


def _given(asked: Asked) -> str:
    """The key that a request carries, of `Authorization: Bearer` before `X-Tandem-Key`; empty: none."""
    held: dict[bytes, bytes] = dict(asked["headers"])
    scheme, _, bearer = held.get(b"authorization", b"").decode("latin-1").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else held.get(b"x-tandem-key", b"").decode("latin-1")


def _stamp(folder: Path) -> tuple[int, int] | None:
    try:
        told = (folder / clients.FILE).stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size
