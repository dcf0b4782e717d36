"""Stock, reservations, orders, returns, idempotency keys, and the outbox with its lanes."""

from alembic import op

revision = "0001"
down_revision = None

STOCK = (
    """
    CREATE TABLE stock (
        region text NOT NULL,
        sku text COLLATE "C" NOT NULL CHECK (length(sku) BETWEEN 1 AND 128),
        on_hand bigint NOT NULL CHECK (on_hand BETWEEN 0 AND 1000000000000),
        reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
        sequence bigint NOT NULL CHECK (sequence BETWEEN 0 AND 9007199254740991),
        changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (region, sku),
        CONSTRAINT reserved_is_on_hand CHECK (reserved <= on_hand)
    )
    """,
    """COMMENT ON COLUMN stock.sequence IS
    'Microseconds since 1970 of the last change, and always more than before: what is told carries it'""",
    """
    CREATE TABLE stock_movements (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        region text NOT NULL,
        sku text COLLATE "C" NOT NULL,
        change bigint NOT NULL CHECK (change <> 0),
        reason text NOT NULL CHECK (reason IN ('seed', 'receipt', 'sale', 'loss', 'count')),
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        FOREIGN KEY (region, sku) REFERENCES stock
    )
    """,
    """COMMENT ON TABLE stock_movements IS
    'Every change of on_hand that is no order and no return: all of them together are what is on hand'""",
    """
    CREATE TABLE reservations (
        reservation_id uuid PRIMARY KEY,
        region text NOT NULL,
        made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        expires_at timestamptz NOT NULL,
        CHECK (expires_at > made_at)
    )
    """,
    "CREATE INDEX reservations_by_expiry ON reservations (expires_at)",
    """
    CREATE TABLE reservation_lines (
        reservation_id uuid NOT NULL REFERENCES reservations ON DELETE CASCADE,
        region text NOT NULL,
        sku text COLLATE "C" NOT NULL,
        quantity bigint NOT NULL CHECK (quantity > 0),
        PRIMARY KEY (reservation_id, sku),
        FOREIGN KEY (region, sku) REFERENCES stock
    )
    """,
)
ORDERS = (
    """
    CREATE TABLE orders (
        order_id uuid PRIMARY KEY,
        region text NOT NULL,
        currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
        total bigint NOT NULL CHECK (total >= 0),
        customer_id text,
        session_id text,
        consents text[] NOT NULL DEFAULT '{}',
        placed_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX orders_by_time ON orders (placed_at)",
    """
    CREATE TABLE order_lines (
        order_id uuid NOT NULL REFERENCES orders,
        line integer NOT NULL CHECK (line >= 1),
        region text NOT NULL,
        sku text COLLATE "C" NOT NULL,
        quantity bigint NOT NULL CHECK (quantity > 0),
        offer_total bigint NOT NULL CHECK (offer_total >= 0),
        bundle_id text NOT NULL,
        quote_id text NOT NULL,
        release text NOT NULL,
        returned bigint NOT NULL DEFAULT 0,
        refunded bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (order_id, line),
        FOREIGN KEY (region, sku) REFERENCES stock,
        CONSTRAINT no_more_returned_than_bought CHECK (returned BETWEEN 0 AND quantity),
        CONSTRAINT no_more_refunded_than_paid CHECK (refunded BETWEEN 0 AND offer_total),
        CONSTRAINT all_returned_is_all_refunded CHECK (returned < quantity OR refunded = offer_total)
    )
    """,
    """COMMENT ON COLUMN order_lines.offer_total IS
    'What all units of the line cost, minor units: the part that the quote allocates to it'""",
    """
    CREATE TABLE used_quotes (
        nonce text PRIMARY KEY,
        order_id uuid NOT NULL REFERENCES orders,
        expires_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX used_quotes_by_expiry ON used_quotes (expires_at)",
    """
    CREATE TABLE returns (
        return_id uuid PRIMARY KEY,
        order_id uuid NOT NULL REFERENCES orders,
        at timestamptz NOT NULL,
        refunded bigint NOT NULL CHECK (refunded >= 0)
    )
    """,
    "CREATE INDEX returns_by_order ON returns (order_id)",
    """
    CREATE TABLE return_lines (
        return_id uuid NOT NULL REFERENCES returns,
        order_id uuid NOT NULL,
        line integer NOT NULL,
        quantity bigint NOT NULL CHECK (quantity > 0),
        refunded bigint NOT NULL CHECK (refunded >= 0),
        restocked boolean NOT NULL,
        PRIMARY KEY (return_id, line),
        FOREIGN KEY (order_id, line) REFERENCES order_lines
    )
    """,
)
TELLING = (
    """
    CREATE TABLE idempotency_keys (
        scope text NOT NULL,
        key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
        asked bytea NOT NULL,
        answer bytea,
        made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (scope, key)
    )
    """,
    "CREATE INDEX idempotency_keys_by_time ON idempotency_keys (made_at)",
    "COMMENT ON COLUMN idempotency_keys.asked IS 'SHA-256 of the body'",
    "CREATE TABLE outbox_lanes (lane smallint PRIMARY KEY)",
    "INSERT INTO outbox_lanes SELECT generate_series(0, 15)",
    "COMMENT ON TABLE outbox_lanes IS 'A relay locks a lane while it tells its rows: so order per key is kept'",
    """
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        event_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
        lane smallint NOT NULL CHECK (lane BETWEEN 0 AND 15),
        topic text NOT NULL,
        kind text NOT NULL,
        region text NOT NULL,
        key text NOT NULL,
        value bytea NOT NULL,
        made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        told_at timestamptz
    )
    """,
    "CREATE INDEX outbox_untold ON outbox (lane, id) WHERE told_at IS NULL",
    "CREATE INDEX outbox_told ON outbox (told_at) WHERE told_at IS NOT NULL",
)


def upgrade() -> None:
    for statement in (*STOCK, *ORDERS, *TELLING):
        op.execute(statement)
