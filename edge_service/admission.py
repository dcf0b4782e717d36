"""Who is let in: no one who has waited too long already, and of one address no more than its share."""

from __future__ import annotations

from collections import Counter

from starlette.types import Message, Scope, Send

from edge_service.keyring import TAKEN, Keyring, too_many
from edge_service.problems import unavailable
from edge_service.pulse import Pulse
from edge_service.rates import Addresses, Headers, Rates, Taken
from edge_service.replies import Reply
from tandem.settings import Settings

SPARED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Whoever watches over the process gets through, or it would be ended for being busy."""


class Admission:
    """Asked before anything else, for every request; costs a comparison where nobody is refused and no limit is set."""

    def __init__(self, settings: Settings, pulse: Pulse, addresses: Addresses, keyring: Keyring) -> None:
        self._pulse, self._addresses, self._keyring = pulse, addresses, keyring
        self._longest_wait = settings.longest_wait_ms / 1000
        self._rates = _rates(settings)
        self.refused: Counter[str] = Counter()
        """Requests refused, by reason: late, rate."""
        self._told: Counter[str] = Counter()
        self._late = unavailable("too many requests at once; send it again").reply()

    def refusal(self, scope: Scope, now: float) -> Reply | None:
        """What to answer instead; None: come in. `now` on the clock of time.perf_counter."""
        if now - self._pulse.at > self._longest_wait and scope["path"] not in SPARED:
            self.refused["late"] += 1
            return self._late
        return None if self._rates is None else self._limited(self._rates, scope, now)

    def _limited(self, rates: Rates, scope: Scope, now: float) -> Reply | None:
        if scope["path"] in SPARED:
            return None
        scope[TAKEN] = taken = rates.take(self._addresses.of(scope), now)
        if not taken.wait_seconds:
            return None
        self.refused["rate"] += 1
        return too_many(taken).reply()

    def newly_refused(self) -> dict[str, int]:
        """How many were refused since this was asked last, by reason; empty: none."""
        found = self.refused - self._told
        self._told = self.refused.copy()
        return dict(found)

    def telling(self, scope: Scope, send: Send) -> Send:
        """`send`, adding what limits say of the request to its answer; as it is where there is no limit."""
        if self._rates is None and not self._keyring.limits:
            return send

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *limits_of(scope)]}
            await send(message)

        return told


def _rates(settings: Settings) -> Rates | None:
    a_second = settings.address_rate
    return Rates("address", a_second, settings.address_burst or int(2 * a_second)) if a_second else None


def limits_of(scope: Scope) -> Headers:
    """Headers with what limits said of the request, unless its answer tells them already."""
    taken: Taken | None = scope.get(TAKEN)
    return [] if taken is None or taken.wait_seconds else taken.headers
