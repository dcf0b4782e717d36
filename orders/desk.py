"""What all routes of the orders' service share: regions, keys, the database, and what is done now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import psycopg
from psycopg_pool import PoolTimeout

from edge_service import problems
from edge_service.admission import Admission
from edge_service.bodies import Bodies
from edge_service.keyring import Keyring
from edge_service.log import logger
from edge_service.pulse import Pulse
from edge_service.rates import Addresses
from orders import database, reservations
from orders.metrics import Metrics
from tandem import clients
from tandem.quote import Signer
from tandem.regions import Region
from tandem.settings import Settings

WATCH_SECONDS = 1.0
"""How often reservations are looked through, and `clients.toml`."""
AWAY = (psycopg.OperationalError, PoolTimeout)
"""The database can't be reached, or hangs: nothing was done, or it is not known whether it was."""


class Desk:
    """One process's share of the service."""

    def __init__(self, settings: Settings, regions: Sequence[Region], clock: Callable[[], float] = time.time) -> None:
        self.settings, self.clock = settings, clock
        self.regions = {region.name: region for region in regions}
        self.log = logger()
        self.signer = Signer.from_text(settings.signing_keys)
        self.pool = database.pool(settings)
        self.metrics = Metrics()
        self.pulse, self.bodies = Pulse(), Bodies(settings.body_seconds, settings.bodies_bytes)
        addresses = Addresses(settings.trusted_proxies)
        given = [
            clients.from_keys("TANDEM_DELTA_KEYS", settings.feed_keys, ["deltas"]),
            clients.from_keys("TANDEM_ORDER_KEYS", settings.order_keys or settings.secret("orders"), ["orders"]),
        ]
        open_to_all = clients.open_scopes(settings.open_scopes)
        self.keyring = Keyring(given, settings.config_folder, open_to_all, addresses, self.log)
        self.admission = Admission(settings, self.pulse, addresses, self.keyring)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside, the database is connected as soon as it answers."""
        self.pulse.start()
        await self.pool.open()
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await self.pool.close()
            self.pulse.stop()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self.keyring.reload()
            try:
                await self.expire()
            except AWAY as error:
                self.log.warning("database_away", reason=str(error).strip())

    async def expire(self) -> int:
        """Put back the goods of reservations whose time has run out, each in a transaction; gives how many."""
        ended = 0
        while await self._expire_one():
            ended += 1
        return ended

    async def _expire_one(self) -> bool:
        async with self.pool.connection() as session, session.transaction():
            return await reservations.expire_one(session)

    def failed(self, route: str, error: Exception) -> None:
        self.log.error("failed", route=route, reason=repr(error), exc_type=type(error).__name__)

    def region(self, name: str) -> Region:
        """Raises a 404 problem that lists the regions served here."""
        found = self.regions.get(name)
        if found is None:
            detail = f"no region {name[:64]!r} is served here; served are {', '.join(self.regions)}"
            raise problems.wrong("region", detail, 404)
        return found
