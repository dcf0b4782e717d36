"""The schema comes into being once, whoever asks for it, and holds what it promises by itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from deploy.services import free_ports
from orders.migrate import migrate, newest
from tandem.errors import ConfigError, Unavailable
from tests.orders.conftest import Postgres

pytestmark = pytest.mark.servers


def test_of_several_that_migrate_at_once_one_does_and_the_others_find_it_done(postgres: Postgres) -> None:
    empty = postgres.made()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(migrate, [empty] * 4))
    assert sorted(before for before, _ in done) == ["", newest(), newest(), newest()]
    assert {now for _, now in done} == {newest()}


def test_a_database_of_a_newer_program_is_refused(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="step 9999, which is newer than this program"):
        migrate(dsn)


def test_a_server_that_is_away_is_said_to_be(postgres: Postgres) -> None:
    away = f"host=127.0.0.1 port={free_ports(1)[0]} dbname=none"
    with pytest.raises(Unavailable, match="the orders' database does not answer"):
        migrate(away)


STOCK = "INSERT INTO stock (region, sku, on_hand, reserved, sequence) VALUES ('east', 'tea', {on_hand}, {reserved}, 1)"
ORDER = (
    "INSERT INTO orders (order_id, region, currency, total, placed_at) "
    "VALUES ('00000000-0000-0000-0000-000000000001', 'east', 'USD', {total}, now())"
)
LINE = (
    "INSERT INTO order_lines (order_id, line, region, sku, quantity, offer_total, bundle_id, quote_id, release, "
    "returned, refunded) "
    "VALUES ('00000000-0000-0000-0000-000000000001', 1, 'east', '{sku}', 3, 100, 'b', 'q', 'r', {returned}, {refunded})"
)


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (STOCK.format(on_hand=-1, reserved=-1), "stock_on_hand_check"),
        (STOCK.format(on_hand=3, reserved=4), "reserved_is_on_hand"),
        (ORDER.format(total=-1), "orders_total_check"),
        (LINE.format(sku="unknown", returned=0, refunded=0), "order_lines_region_sku_fkey"),
        (LINE.format(sku="cup", returned=4, refunded=100), "no_more_returned_than_bought"),
        (LINE.format(sku="cup", returned=2, refunded=101), "no_more_refunded_than_paid"),
        (LINE.format(sku="cup", returned=3, refunded=99), "all_returned_is_all_refunded"),
    ],
)
def test_the_database_itself_refuses_what_must_never_be(dsn: str, broken: str, named: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(STOCK.format(on_hand=3, reserved=0).replace("tea", "cup"))
        if "order_lines" in broken:
            connection.execute(ORDER.format(total=100))
        with pytest.raises(psycopg.errors.IntegrityError) as refused:
            connection.execute(broken)
    assert refused.value.diag.constraint_name == named


def test_a_quote_is_used_once(dsn: str) -> None:
    used = "INSERT INTO used_quotes VALUES ('n', '00000000-0000-0000-0000-000000000001', now())"
    with psycopg.connect(dsn) as connection:
        connection.execute(ORDER.format(total=100))
        connection.execute(used)
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(used)
