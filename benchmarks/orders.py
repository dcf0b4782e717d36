"""What checkout and relay carry: orders a second over real PostgreSQL, against a transaction that only takes stock.

`make bench-orders`, or `python -m benchmarks.orders --orders 2000 --rounds 3 --json FILE`.

Each side sells bundles of two products over eight connections: Tandem as POST checkout does (idempotency key, quotes
verified, stock locked, order, lines, used quote, outbox), the rival with SELECT … FOR UPDATE, two UPDATEs and one
INSERT. After each round what was sold is counted and compared with the stock that is left. Then a relay tells all that
waits to a listener in this process. fsync is on.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from uuid import uuid4

import psycopg
from psycopg_pool import AsyncConnectionPool

from benchmarks import _told
from benchmarks._told import Row
from deploy import services
from deploy.postgres import postgres_server
from edge_service.log import logger
from orders import basket, checkout, goods
from orders.checkout import Buyer
from orders.database import Session, connect
from orders.migrate import migrate
from orders.once import Asked, once
from orders.relay import Relay
from orders.relay import Row as Message
from tandem.bundle import bundle_id
from tandem.quote import Quote, QuotedComponent, Signer, nonce
from tandem.settings import Settings

PRODUCTS = 1_000
STOCK = 10_000_000
CONNECTIONS = 8
SIGNER = Signer.from_text("k1:0123456789abcdef0123")
SHOPPER = Buyer(None, None, [])
Pool = AsyncConnectionPool[Session]
Sell = Callable[[Pool, Sequence[str]], Awaitable[None]]


def quote(skus: Sequence[str]) -> str:
    """A quote of one shopper's own."""
    parts = tuple(QuotedComponent(sku, 1, 500) for sku in skus)
    name = bundle_id((sku, 1) for sku in skus)
    until = int(time.time()) + 600
    return SIGNER.sign(Quote("k1", "east", "*", "r1", name, "USD", parts, 500 * len(parts), until, nonce()))


async def tandem(pool: Pool, skus: Sequence[str]) -> None:
    token = quote(skus)

    async def do(session: Session) -> object:
        found = basket.of([token], SIGNER, "east", time.time())
        return await checkout.place(session, "east", found, SHOPPER)

    await once(pool, Asked("/v1/east/checkout", str(uuid4()), token.encode()), do)  # type: ignore[arg-type]


async def plain(pool: Pool, skus: Sequence[str]) -> None:
    """Takes the stock and notes the sale down: no quote, no second try, nobody is told."""
    async with pool.connection() as session, session.transaction():
        lock = "SELECT sku FROM stock WHERE region = 'east' AND sku = ANY(%s) ORDER BY sku FOR UPDATE"
        await session.execute(lock, [sorted(skus)])
        for sku in skus:
            take = "UPDATE stock SET on_hand = on_hand - 1 WHERE region = 'east' AND sku = %s"
            await session.execute(take, [sku])
        await session.execute("INSERT INTO plain_sales (skus) VALUES (%s)", [list(skus)])


async def sell(dsn: str, orders: int, way: Sell, products: Sequence[str], seed: int) -> float:
    """Orders a second."""
    chance = random.Random(seed)
    carts = iter([chance.sample(products, 2) for _ in range(orders)])
    async with AsyncConnectionPool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS, open=False) as pool:

        async def shopper() -> None:
            for cart in carts:
                await way(pool, cart)

        before = time.perf_counter()
        await asyncio.gather(*(shopper() for _ in range(CONNECTIONS)))
        return orders / (time.perf_counter() - before)


class Listener:
    """Takes all it is told."""

    def tell(self, rows: Sequence[Message]) -> tuple[str, ...]:
        return ()


def relayed(dsn: str) -> float:
    """Messages a second of one relay."""
    relay = Relay(dsn, Listener(), 7, logger())
    with connect(dsn) as connection:
        before = time.perf_counter()
        while relay.turn(connection):
            pass
        return relay.told / (time.perf_counter() - before)


def check(dsn: str) -> None:
    """Raises ValueError unless stock and sales add up."""
    with psycopg.connect(dsn) as connection:
        asked = """
            SELECT (SELECT sum(%s - on_hand) FROM stock),
                   (SELECT coalesce(sum(quantity), 0) FROM order_lines)
                   + (SELECT coalesce(sum(cardinality(skus)), 0) FROM plain_sales)
        """
        ((taken, sold),) = connection.execute(asked, [STOCK]).fetchall()
    if taken != sold:
        raise ValueError(f"{sold} units were sold and {taken} taken")


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a database with much of each product."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        settings = Settings(home=Path(folder), postgres_port=services.free_ports(1)[0])
        server = postgres_server(settings)
        server.start()
        try:
            migrate(settings.orders_dsn)
            rows = [{"region": "east", "sku": f"p{number}", "on_hand": STOCK} for number in range(PRODUCTS)]
            goods.seed(settings.orders_dsn, rows)
            with psycopg.connect(settings.orders_dsn) as connection:
                connection.execute("CREATE TABLE plain_sales (id bigint GENERATED ALWAYS AS IDENTITY, skus text[])")
            yield settings.orders_dsn
        finally:
            server.stop()


WAYS: tuple[tuple[str, Sell], ...] = (("checkouts", tandem), ("plain transactions", plain))
KINDS = {"2 of 1,000 products": [f"p{number}" for number in range(PRODUCTS)], "the same 2 products": ["p0", "p1"]}


def measured(orders: int, rounds: int) -> dict[str, list[float]]:
    """Orders, or messages, a second in each round, by what was done."""
    found: dict[str, list[float]] = {}
    with postgres() as dsn:
        for turn in range(rounds):
            for kind, products in KINDS.items():
                for way, done in WAYS:
                    rate = asyncio.run(sell(dsn, orders, done, products, turn))
                    found.setdefault(f"{way} of {kind}", []).append(rate)
            found.setdefault("messages told by one relay", []).append(relayed(dsn))
            check(dsn)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=2_000, help="in each round, of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = measured(options.orders, options.rounds)
    rows = [Row(name, rates, "a second") for name, rates in found.items()]
    ratios = {
        f"checkout/plain, {kind}": median(found[f"checkouts of {kind}"])
        / median(found[f"plain transactions of {kind}"])
        for kind in KINDS
    }
    print(_told.table(rows, ratios, {}))
    if options.json:
        _told.write_json(options.json, rows, ratios)


if __name__ == "__main__":
    main()
