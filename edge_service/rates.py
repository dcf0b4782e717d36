"""How much one asker may ask: a token bucket each, told in the headers that the IETF's draft names.

The bucket is kept as one number, the time at which it will be full again (GCRA; ITU-T I.371, annex A).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

from starlette.types import Scope

from tandem.errors import ConfigError

ASKERS = 65_536
"""Askers that are remembered at most; of those who did not ask lately, the bucket is full."""
IPV6_BITS = 64
"""What one household or attacker has of IPv6 is a network, and counts as one address."""
Headers = list[tuple[bytes, bytes]]


class Taken(NamedTuple):
    """What became of one request."""

    wait_seconds: float
    """0: it may go on."""
    headers: Headers
    """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), and `Retry-After` where it may not."""


class Rates:
    """`a_second` requests for each asker in the long run, and up to `burst` at once."""

    def __init__(self, name: str, a_second: float, burst: int) -> None:
        self._interval, self._burst = 1 / a_second, max(burst, 1)
        self._name, self._room = name.encode(), self._burst * self._interval
        self._policy = b'"%b";q=%d;w=%d' % (self._name, self._burst, math.ceil(self._room))
        self._full_at: dict[Hashable, float] = {}
        self._before: dict[Hashable, float] = {}

    def take(self, asker: Hashable, now: float) -> Taken:
        """Take a token of the asker's; `now` in seconds on any clock that only goes on."""
        full_at = self._full_at.get(asker)
        if full_at is None:
            full_at = self._before.get(asker, 0.0)
        after = max(full_at, now) + self._interval - now
        if after > self._room + 1e-9:
            return Taken(after - self._room, self._refused(after))
        if len(self._full_at) >= ASKERS // 2:
            self._before, self._full_at = self._full_at, {}
        self._full_at[asker] = now + after
        return Taken(0.0, self._told(int((self._room - after) / self._interval + 1e-9), after))

    def _told(self, left: int, full_in: float) -> Headers:
        state = b'"%b";r=%d;t=%d' % (self._name, left, math.ceil(full_in))
        return [(b"ratelimit-policy", self._policy), (b"ratelimit", state)]

    def _refused(self, after: float) -> Headers:
        wait = max(1, math.ceil(after - self._room))
        return [*self._told(0, after), (b"retry-after", b"%d" % wait)]


class Addresses:
    """Where a request comes from; what a trusted proxy in front says counts, what anyone else says does not."""

    def __init__(self, trusted: str) -> None:
        try:
            self._trusted = [ip_network(each.strip()) for each in trusted.split(",") if each.strip()]
        except ValueError as error:
            raise ConfigError(f"TANDEM_TRUSTED_PROXIES: {error}; give addresses or networks") from error

    def of(self, scope: Scope) -> str:
        """The asker's address, or its network of IPV6_BITS."""
        peer = (scope.get("client") or ("",))[0]
        if self._trusted and self._is_trusted(peer):
            told = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
            hops = [hop.strip() for hop in b",".join(told).decode("latin-1").split(",") if hop.strip()]
            peer = next((hop for hop in reversed(hops) if not self._is_trusted(hop)), peer)
        return _network(peer) if ":" in peer else peer

    def _is_trusted(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def _network(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(ip_network((address, IPV6_BITS), strict=False))
    return text
