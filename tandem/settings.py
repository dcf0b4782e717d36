"""Every setting, read once from the environment (prefix `TANDEM_`) into one typed object."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from tandem.errors import ConfigError

PREFIX = "TANDEM_"
ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
BOUNDS: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (
        (
            "quote_ttl_seconds",
            "stock_limit_seconds",
            "price_limit_seconds",
            "shuffle_partitions",
            "live_seconds",
            "kafka_replication",
            "rewind_hours",
            "orders_connections",
            "reservation_seconds",
            "outbox_days",
        ),
        lambda value: value >= 1,
        "be at least 1",
    ),
    (("longest_wait_ms", "body_seconds", "bodies_bytes", "connections"), lambda value: value > 0, "be above 0"),
    (
        (
            "price_expiry_seconds",
            "release_limit_seconds",
            "canary_seconds",
            "address_rate",
            "address_burst",
            "drain_seconds",
        ),
        lambda value: value >= 0,
        "not be negative",
    ),
    (("log_share", "trace_share"), lambda value: 0 <= value <= 1, "be between 0 and 1"),
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between a laptop and many regions. Each field is `TANDEM_` + its name in capitals."""

    home: Path = Path(".tandem")
    lake: str = ""
    """A folder or an `s3a://` address with one Delta table per folder; default `$TANDEM_HOME/lake`."""
    config: Path | None = None
    """A folder with regions.toml, segments.toml, rules.toml, gates.toml; default `$TANDEM_HOME/config`."""

    s3_endpoint: str = ""
    """Where the lake's `s3a://` addresses live; empty for AWS itself."""
    s3_region: str = "us-east-1"
    s3_access_key: str = "tandem"
    """With the secret: for the lake and the object stores behind the CDN."""
    s3_secret_key: str = ""
    """Default: one made in `$TANDEM_HOME`, which the embedded object store uses too."""

    kafka: str = ""
    """`host:port` of brokers, separated by commas; empty: there is none, and changes come to the edge's webhook."""
    kafka_options: str = ""
    """Further settings of Kafka's client (librdkafka), `key=value` separated by `;`: security, compression."""
    kafka_jars: Path = Path("~/.cache/tandem/kafka")
    """A folder that the jars of a broker for this machine are fetched into, once."""
    kafka_replication: int = 1
    """Copies of each partition when a topic is made; 3 where there are three brokers."""
    topic_prefix: str = ""
    """Before every topic's name: several Tandems may share brokers."""
    rewind_hours: int = 72
    """How far back the projector must be able to replay: the age that a nightly snapshot may get, and time to mend."""

    spark_master: str = "local[2]"
    spark_connect: str = ""
    """`sc://host:port` of a running Spark Connect server; a job then uses it and starts no Spark of its own."""
    spark_conf: str = ""
    """Further Spark settings, `key=value` separated by `;`."""
    spark_jars: Path = Path("~/.cache/tandem/spark")
    """A folder that Spark's packages are fetched into, once."""
    spark_streams: bool = False
    """Spark's packages also hold what reads Kafka and PostgreSQL; `tandem live` sees to it by itself."""
    spark_packages: bool = True
    """False where the cluster's own image already holds Delta's jars."""
    spark_driver_memory: str = "2g"
    shuffle_partitions: int = 2

    quote_keys: str = ""
    """`id:secret` separated by commas; the first signs, all verify. Default: one made in `$TANDEM_HOME`."""
    delta_keys: str = ""
    """Keys (comma separated) that may post stock and price deltas. Default: one made in `$TANDEM_HOME`.
    Keys of single clients, each with its scopes, stand in `clients.toml`."""
    admin_key: str = ""
    """A key with the scope admin that the canary reads the edges' `/metrics` with, where they ask for one."""
    open_scopes: str = "read,verify,admin,checkout"
    """Scopes (comma separated) that need no key: of read, verify, admin, checkout. Events belong to read."""
    quote_ttl_seconds: int = 600
    stock_limit_seconds: int = 900
    price_limit_seconds: int = 3600
    """Past either of these two an answer is stale, and nothing is discounted."""
    price_expiry_seconds: int = 0
    """Past this age no price is shown, and no bundle; 0: never. A region with a feed should have a limit."""
    release_limit_seconds: int = 0
    """Past this age of the release an answer is stale, and nothing is discounted; 0: never."""
    answers_kept_bytes: int = 320 * 1024 * 1024
    """What encoded answers may take in each edge process and region, about; those asked for lately stay."""
    log_share: float = 0.01
    """Of the requests, those with a line in the edge's log; failures (5xx) always have one."""
    count_requests: bool = True
    """False: `/metrics` tells of releases, feed and load, not of requests; a canary then has nothing to judge by."""
    trace_endpoint: str = ""
    """Where the edge sends spans (OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`); empty: none."""
    trace_share: float = 0.01
    """Of the requests without a `traceparent`, those with a span; with one, its caller decides."""
    longest_wait_ms: int = 250
    """A request that waited longer for its turn is answered 503 at once."""
    address_rate: float = 0.0
    """Requests a second from one address in the long run, in each edge process; 0: no limit."""
    address_burst: int = 0
    """And at once; 0: those of two seconds."""
    trusted_proxies: str = ""
    """Addresses or networks (comma separated) whose `X-Forwarded-For` is believed."""
    body_seconds: float = 10.0
    """What the body of a request may take to come."""
    bodies_bytes: int = 64 * 1024 * 1024
    """What bodies on their way may take together, in each edge process."""
    connections: int = 1024
    """Open connections in each edge process; more wait until one is free."""
    drain_seconds: float = 0.0
    """How long the edge goes on answering after TERM, with /readyz at 503, before it stops."""
    cors_origins: str = "*"
    edge_host: str = "127.0.0.1"
    edge_port: int = 8080

    orders: str = ""
    """Where the orders' PostgreSQL is (`postgresql://user:password@host/database`, or `host=… dbname=…`); empty: the
    embedded server of this machine."""
    postgres_port: int = 5433
    """Of the embedded PostgreSQL."""
    orders_host: str = "127.0.0.1"
    orders_port: int = 8081
    """Where `tandem orders serve` answers: checkout, returns, stock."""
    orders_connections: int = 8
    """To PostgreSQL, of each process that serves orders."""
    order_keys: str = ""
    """Keys (comma separated) that may read orders and take goods back. Default: one made in `$TANDEM_HOME`."""
    reservation_seconds: int = 900
    """How long goods are held for a shopper who pays elsewhere."""
    outbox_days: int = 7
    """How long what was told stays in the outbox, and an idempotency key is known."""
    live_seconds: int = 5
    """How often `tandem live` takes in what has come."""
    canary_seconds: float = 300.0
    """How long a release's health is read in its first region before the others get it."""

    def __post_init__(self) -> None:
        for names, fits, said in BOUNDS:
            for name in names:
                value = getattr(self, name)
                if not fits(value):
                    raise ConfigError(f"{PREFIX}{name.upper()} must {said}, not {value}")
        if self.spark_connect and not self.spark_connect.startswith("sc://"):
            raise ConfigError(f"{PREFIX}SPARK_CONNECT must be sc://host:port, not {self.spark_connect!r}")

    @property
    def lake_root(self) -> str:
        """The lake's address without a slash at its end."""
        return (self.lake or str(self.home.absolute() / "lake")).rstrip("/")

    @property
    def spark_is_local(self) -> bool:
        """Whether Spark is a job's own process, on this machine alone."""
        return self.spark_master.split("[")[0] == "local"

    @property
    def local_edge(self) -> str:
        """The edge's address as a browser on this machine finds it."""
        return _address(self.edge_host, self.edge_port)

    @property
    def local_orders(self) -> str:
        """The address of the orders' service as a browser on this machine finds it."""
        return _address(self.orders_host, self.orders_port)

    @property
    def orders_dsn(self) -> str:
        """Where the orders' PostgreSQL is: the one named, or the embedded one of this machine."""
        embedded = f"host=127.0.0.1 port={self.postgres_port} user=tandem dbname=postgres"
        return self.orders or f"{embedded} password={self.secret('postgres')}"

    @property
    def signing_keys(self) -> str:
        """Keys of quotes, `id:secret,id:secret`: those named, or one of this machine."""
        return self.quote_keys or f"k1:{self.secret('quote')}"

    @property
    def feed_keys(self) -> str:
        """Keys that may post deltas, separated by commas: those named, or one of this machine."""
        return self.delta_keys or self.secret("deltas")

    @property
    def feed_key(self) -> str:
        """One of them, for whoever posts deltas."""
        return self.delta_keys.split(",")[0].strip() or self.secret("deltas")

    @property
    def origins(self) -> list[str]:
        """Pages of which origins may read answers."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]

    @property
    def s3_secret(self) -> str:
        return self.s3_secret_key or self.secret("s3")

    @property
    def config_folder(self) -> Path:
        return self.config or self.home / "config"

    def secret(self, name: str) -> str:
        """The secret kept in `$TANDEM_HOME/secrets/NAME`; made (mode 0600) where there is none.

        It appears whole or not at all: of several processes that start at once, all get the same.
        """
        path = self.home / "secrets" / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            draft = path.with_name(f"{name}.{secrets.token_hex(8)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        return path.read_text(encoding="ascii").strip()


def _address(host: str, port: int) -> str:
    return f"http://{'127.0.0.1' if host in ANY_ADDRESS else host}:{port}"


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from `TANDEM_…` variables. Raises ConfigError for an unknown or unusable one."""
    known = {PREFIX + field.name.upper(): field for field in msgspec.structs.fields(Settings)}
    given = {key: value for key, value in environment.items() if key.startswith(PREFIX)}
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise ConfigError(f"environment: {key} is no setting of Tandem; {hint}")
    values = {known[key].name: value for key, value in given.items()}
    try:
        return msgspec.convert(values, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        key = re.sub(r".*`\$\.(\w+)`.*", lambda found: PREFIX + found.group(1).upper(), str(error))
        raise ConfigError(f"environment: {key}: {str(error).partition(' - at')[0]}") from error


def _decode(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value)).expanduser()
    raise NotImplementedError(kind)
