"""The whole path on this machine: `python -m deploy.demo [--check]`, or `make demo`.

Every step says what it did and its seconds; what is there already is used again. Ctrl-C stops everything that this
started. With `--check` the edge and the CDN are asked a few real questions, then everything is stopped; exit 0 or 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cached_property

import msgspec

from deploy import airflow, asking, buying, kafka, live, orders, processes, questions, services
from deploy.feed import PRODUCTS, Feed
from tandem import regions as regions_file
from tandem import settings as settings_file
from tandem.errors import TandemError, Unavailable
from tandem.regions import Regions
from tandem.settings import Settings

AS_OF = date(2017, 12, 31)
"""Business day of the demo: the last of the Complete Journey's year."""
STEPS = 8
READY_SECONDS = 60.0
ANCHORS_ASKED = 40

Say = Callable[[str], object]


class Demo:
    """One run of the demo; what it started is stopped by the stack that it was given."""

    def __init__(self, settings: Settings, as_of: date, stack: contextlib.ExitStack, say: Say) -> None:
        self.settings = settings
        self.regions: Regions = regions_file.load(settings.config_folder)
        self.as_of = as_of
        self._stack = stack
        self._say = say
        self._step = 0

    def up(self) -> dict[str, list[str]]:
        """All steps up to a running edge with a live feed; gives each region's popular products."""
        start = time.monotonic()
        with self._timed("Spark's packages, compiled kernels"):
            self._run(["python", "-m", "spark_jobs.session", "--fetch"], "spark-packages")
        with ThreadPoolExecutor(1) as beside:
            # Where there is certainly something to build, Airflow and Spark get ready while servers start.
            ready = None if asking.versions(self.settings).get("sales_lines") else beside.submit(self._prepare)
            with self._timed("Servers: a Redis per region, the object store, PostgreSQL"):
                started = services.start(self.settings, self.regions, self._detail)
                self._stack.callback(services.stop, started, self._say)
                self._broker()
            with self._timed("Facts: one year of baskets of the Complete Journey"):
                self._import()
            with self._timed(f"Airflow: the DAG bundles for {self.as_of}"):
                if ready is None and asking.published(self.settings, self.regions, self.as_of):
                    self._detail("published to every region already, from these facts and this configuration")
                else:
                    self._build((ready or beside.submit(self._prepare)).result())
        with self._timed("Shop page: uploaded to the CDN's bucket"):
            self._run(["tandem", "shop"], "shop")
        with self._timed("Edge: all regions"):
            self._serve()
        self._project()
        with self._timed("Orders: PostgreSQL knows the stock, checkout, relay to the edges"):
            self._sell()
        with self._timed("Live feed: stock goes down with sales and up with deliveries"):
            popular = self._feed()
        if self.settings.kafka:
            with self._timed("Streams: orders and events into the lake, and what takes off to the edges"):
                self._follow()
        self._say(f"up after {time.monotonic() - start:.0f} s")
        return popular

    def check(self, popular: dict[str, list[str]]) -> None:
        """Ask every region. Raises TandemError where an answer is not what it has to be."""
        for region in self.regions.region:
            self._say(f"{region.name}:")
            anchors = popular.get(region.name, [])[:ANCHORS_ASKED]
            best = questions.check(self.settings, region, anchors, self._say)
            order_id = buying.check(self.settings, region, best, self._say)
            if self.settings.kafka:
                live.check(self.settings, region, anchors, order_id, self._say)

    def links(self) -> None:
        edge, shop = self.settings.local_edge, self.regions.region[0].object_store.public_url
        self._say(
            f"""
  Shop page   {shop}/shop/index.html#key={self.settings.feed_key}
              (the key lets the page's panel change stock and prices)
  Edge API    {edge}/docs   {edge}/v1/{self.regions.names[0]}/live?skus=…
  Orders      {self.settings.local_orders} (docs/orders.md); the shop page's cart has the button
  Tables      tandem tables
              tandem sql "SELECT * FROM bundles LIMIT 5"
              tandem releases
              (with .venv/bin on the PATH and TANDEM_HOME={self.settings.home.absolute()})
  Logs        {services.run_folder(self.settings)}

Ctrl-C stops everything that this started."""  # noqa: S608 - an example for a person
        )

    def wait(self) -> None:
        """Until Ctrl-C. Raises Failed where the edge ends by itself."""
        edge = self._edge()
        while edge.pid is not None:
            time.sleep(0.5)
        raise processes.Failed(f"the edge has ended; the end of {edge.log}:\n{processes.tail(edge.log)}")

    def _import(self) -> None:
        held = asking.versions(self.settings).get("sales_lines", 0)
        lines = asking.sql(self.settings, "SELECT count(*) AS n FROM sales_lines")[0]["n"] if held else 0
        if lines:
            self._detail(f"the lake holds {lines:,} lines already")
        else:
            self._run(["tandem", "import", "completejourney"], "import")

    @cached_property
    def _spark(self) -> services.Server:
        return services.spark(self.settings)

    def _prepare(self) -> Settings:
        """Airflow's database, and one Spark for the tasks of a run: each would spend most of its time on its own."""
        settings = self.settings
        if settings.spark_is_local and not settings.spark_connect:
            start = time.monotonic()
            self._spark.stop()  # one that a killed demo left behind
            os.environ[services.SPARK_TOKEN] = settings.secret("spark-connect")  # for the server and the tasks
            self._stack.callback(self._spark.stop)
            self._spark.start()
            self._detail(f"Spark for all tasks ({time.monotonic() - start:.1f} s)")
            address = f"sc://localhost:{self._spark.port}/;session_id={uuid.uuid4()}"
            settings = msgspec.structs.replace(settings, spark_connect=address)
        airflow.setup(settings, self._detail)
        return settings

    def _build(self, settings: Settings) -> None:
        try:
            airflow.test(settings, self.as_of, self._detail)
        finally:
            self._spark.stop()

    def _edge(self) -> services.Server:
        return services.Server(
            name="edge",
            port=self.settings.edge_port,
            state=services.run_folder(self.settings) / "edge.json",
            command=lambda: [services.binary("tandem"), "serve"],
            ping=lambda: asking.answers(f"{self.settings.local_edge}/healthz"),
            environment=asking.environment(self.settings),
            mend="set TANDEM_EDGE_PORT",
        )

    def _serve(self) -> None:
        """A new edge; one that a killed demo left behind would know neither new code nor new settings."""
        edge = self._edge()
        edge.stop()
        self._stack.callback(services.stop, [edge], self._say)
        edge.start()
        url, end = f"{self.settings.local_edge}/readyz", time.monotonic() + READY_SECONDS
        while (answer := asking.ask(url)).status != 200:
            if time.monotonic() > end:
                lacking = answer.json.get("missing", answer.json)
                raise Unavailable(
                    f"the edge lacks {lacking}; `tandem publish --as-of {self.as_of} --region REGION` brings it. "
                    f"The end of {edge.log}:\n{processes.tail(edge.log)}"
                )
            time.sleep(0.1)

    def _broker(self) -> None:
        """A broker on this machine, where TANDEM_KAFKA names one, and its topics."""
        if self.settings.kafka:
            kafka.fetch(self.settings, self._detail)
            started = services.start_all(self.settings, kafka.brokers(self.settings), self._detail)
            self._stack.callback(services.stop, started, self._say)
            self._run(["tandem", "streams", "topics"], "topics")

    def _project(self) -> None:
        """A projector for each region, anew as the edge."""
        for server in kafka.projectors(self.settings, self.regions.names) if self.settings.kafka else ():
            server.stop()
            self._stack.callback(services.stop, [server], self._say)
            server.start()

    def _sell(self) -> None:
        """Checkout and relay anew, as the edge; stock that PostgreSQL does not know yet comes from the lake."""
        self._run(["tandem", "orders", "seed"], "seed")
        for server in (orders.service(self.settings), orders.relay(self.settings)):
            server.stop()
            self._stack.callback(services.stop, [server], self._say)
            server.start()

    def _feed(self) -> dict[str, list[str]]:
        popular = asking.popular(self.settings, self.as_of, PRODUCTS)
        feed, stop = Feed(self.settings, popular), threading.Event()
        self._detail(f"{feed.tick()} changes told, then some every second")
        thread = threading.Thread(target=feed.run, args=(stop, self._say), name="feed")
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(stop.set)
        return popular

    def _follow(self) -> None:
        """The streaming jobs, anew as the edge."""
        services.stop(live.servers(self.settings), self._detail)
        self._run(["python", "-m", "spark_jobs.session", "--fetch", "--streams"], "stream-packages")
        started = services.start_all(self.settings, live.servers(self.settings), self._detail)
        self._stack.callback(services.stop, started, self._say)

    def _run(self, command: list[str], name: str) -> None:
        log = services.run_folder(self.settings) / f"{name}.log"
        first = services.binary(command[0])
        processes.run([first, *command[1:]], log, asking.environment(self.settings), self._say)

    def _detail(self, line: str) -> None:
        self._say(f"    {line}")

    @contextlib.contextmanager
    def _timed(self, title: str) -> Iterator[None]:
        self._step += 1
        self._say(f"{self._step}/{STEPS + bool(self.settings.kafka)} {title}")
        start = time.monotonic()
        yield
        self._detail(f"{time.monotonic() - start:.1f} s")


def run(settings: Settings, as_of: date, say: Say, *, check: bool) -> None:
    """The demo from start to end. Raises TandemError where a step fails; everything started is stopped in any case."""
    stack = contextlib.ExitStack()
    try:
        demo = Demo(settings, as_of, stack, say)
        popular = demo.up()
        if check:
            demo.check(popular)
        else:
            demo.links()
            demo.wait()
    finally:
        processes.ignore_signals()  # what is being stopped is stopped to the end
        stack.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="ask edge and CDN a few questions, then stop; exit 0 or 1")
    parser.add_argument("--as-of", type=date.fromisoformat, default=AS_OF, help="business day (default: %(default)s)")
    options = parser.parse_args(arguments)
    processes.interrupt_on_signals()
    try:
        run(settings_file.from_environment(), options.as_of, _say, check=options.check)
    except TandemError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130 if options.check else 0
    print("every answer is right")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
