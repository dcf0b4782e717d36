"""From Kafka into one region's Redis, each change once: `tandem project --region R`.

What is read goes to Redis with the place it was read up to, in one script that refuses a place that is not the next
one. Whoever is refused, be it a projector that slept through a rebalance, reads the places anew.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams import broker
from streams.dead_letters import DeadLetters
from streams.messages import Refused
from streams.observed import Observed
from streams.places import Part, Partition, Place, begin
from streams.reading import TOPICS, Reading
from streams.region_end import Batch, Moved, RegionEnd, Snapshot, name_of
from streams.topics import INVENTORY, PRICES
from tandem import regions as regions_file
from tandem.errors import TandemError, Unavailable
from tandem.regions import Region
from tandem.settings import Settings

Say = Callable[[str], object]

KIND = {INVENTORY.name: "stock", PRICES.name: "prices"}
"""What of a snapshot a topic's messages go over."""
TAKEN = 2_000
"""Records taken from the client at once."""
BATCH = 500
"""Changes in one script: Redis does nothing else for 3 ms."""
AHEAD = 8
"""Batches on their way to Redis at once."""
WAIT_SECONDS = 0.1
GATHER_SECONDS = 0.004
"""A batch waits so long for more, where fewer than TAKEN are there: one of ten costs hardly more than one of one."""
TICK_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
MARGIN_MS = 300_000
"""A replay begins so much before the snapshot's time: clocks differ, and a change takes a while to be told."""


class Projector:
    """One of a region's projectors; those of one region share its partitions among them."""

    def __init__(self, settings: Settings, region: Region, names: Iterable[str], member: str, say: Say) -> None:
        """`names`: all regions. `member`: who it is among the region's projectors, the same after a restart."""
        self._settings, self._say = settings, say
        self.observed = Observed(region.name)
        self._reading = Reading(region.name, list(names), time.time, settings.topic_prefix)
        self._end = RegionEnd(region)
        self._dead = DeadLetters(settings)
        self._consumer: Consumer = broker.consumer(
            settings,
            f"project-{region.name}",
            **{"group.instance.id": member, "fetch.wait.max.ms": 100},
        )
        self._stop = threading.Event()
        self._wanted: list[Part] = []
        """Partitions that are ours."""
        self._placed = True
        """Whether reading began at the places of all of them."""
        self._accept_gap = False
        self._stored: dict[Part, str] = {}
        """What stands in Redis when all that was sent is done."""
        self._places: dict[Part, Place] = {}
        self._snapshot = Snapshot()
        self._batch = Batch()
        self._kept_ms: dict[str, int] = {}
        """For how long each topic keeps its messages, -1: for ever; empty before the broker was reached."""
        self._newest_ms = 0
        self._tick = 0.0

    def stop(self) -> None:
        """End soon, with all that was read in Redis."""
        self._stop.set()

    def run(self, *, accept_gap: bool = False) -> None:
        """Project until `stop`. Raises TandemError for what a person has to mend; waits for what comes back."""
        self._accept_gap = accept_gap
        pause = FIRST_PAUSE_SECONDS
        try:
            while not self._stop.is_set():
                try:
                    self._turn() if self._kept_ms else self._subscribe()
                    pause = FIRST_PAUSE_SECONDS
                except Moved as error:
                    self.observed.moved.inc()
                    self._anew(str(error))
                except (Unavailable, KafkaException) as error:
                    self._anew(_said(error))
                    self._wait(pause)
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._settle(0)
        finally:
            self._end.close()
            self._consumer.close()

    # One turn

    def _subscribe(self) -> None:
        """The first one: see that the broker keeps enough, and ask for partitions."""
        self._kept_ms = broker.check_kept(self._settings, TOPICS)
        names = [broker.called(self._settings, topic) for topic in TOPICS]
        self._consumer.subscribe(names, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def _turn(self) -> None:
        if not self._placed:
            self._place()
        records = self._taken()
        self._take(records)
        self._flush()
        self._settle(AHEAD if len(records) >= BATCH else 0)
        if time.monotonic() > self._tick:
            self._tick = time.monotonic() + TICK_SECONDS
            self._look()

    def _taken(self) -> list[Any]:
        """What comes first, if it comes soon, and what is there within a moment then."""
        first = self._consumer.poll(WAIT_SECONDS)
        found: list[Any] = [] if first is None else [first, *self._consumer.consume(TAKEN, GATHER_SECONDS)]
        return found if self._placed else []

    def _take(self, records: list[Any]) -> None:
        batch, places = self._batch, self._places
        for record in records:
            if (error := record.error()) is not None:
                self._odd(error)
                continue
            part, offset = (record.topic(), record.partition()), record.offset()
            place = places.get(part)
            if place is None or offset < batch.ends.get(part, place.offset):
                continue
            if (offset < place.again) is not batch.again or len(batch.changes.skus) >= BATCH:
                self._flush()
                batch = self._batch
                batch.again = offset < place.again
            self._read(record, batch)
            batch.ends[part] = offset + 1

    def _read(self, record: Any, batch: Batch) -> None:
        try:
            if self._reading.take(record, batch.changes):
                batch.newest_ms = record.timestamp()[1]
            else:
                batch.elsewhere += 1
        except Refused as error:
            self._dead.send(record, str(error))
            self.observed.refused.inc()

    def _flush(self) -> None:
        """Send what was read; what nobody could read is safe among the dead letters before."""
        batch, self._batch = self._batch, Batch()
        if not batch.ends:
            return
        self._dead.settle()
        for part, end in batch.ends.items():
            self._places[part] = self._places[part]._replace(offset=end)
            before, after = self._stored[part], str(self._places[part])
            batch.moves.append((name_of(part), before, after))
            self._stored[part] = after
        self._settle(AHEAD)
        self._end.send(batch)

    def _settle(self, at_most: int) -> None:
        for done in self._end.settle(at_most):
            self.observed.applied.inc(done.applied)
            self.observed.stale.inc(len(done.batch.changes) - done.applied)
            self.observed.elsewhere.inc(done.batch.elsewhere)
            if done.batch.newest_ms:
                self._newest_ms = done.batch.newest_ms
                self.observed.age.observe(max(0.0, time.time() - done.batch.newest_ms / 1000))

    def _odd(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise Moved(f"a place is not on the broker: {error.str()}")
        if error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)

    # Places

    def _assigned(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        self._wanted = [(part.topic, part.partition) for part in parts]
        self._placed = False
        consumer.assign([])

    def _revoked(self, _: Consumer, __: list[TopicPartition]) -> None:
        self._wanted, self._places = [], {}
        self.observed.forget_lags()

    def _anew(self, why: str) -> None:
        """Forget where reading stood: Redis says it."""
        self._say(why)
        self._end.forget()
        self._placed, self._batch = not self._kept_ms, Batch()

    def _place(self) -> None:
        """Begin at the places that Redis has for our partitions."""
        stored, self._snapshot = self._end.places(), self._end.snapshot()
        self._stored = {part: stored.get(name_of(part), "") for part in self._wanted}
        self._places = {found.part: self._begin(found) for found in self._found()}
        self._consumer.assign([TopicPartition(*part, place.offset) for part, place in self._places.items()])
        moved = {part: place.offset for part, place in self._places.items() if str(place) != self._stored[part]}
        self._batch.ends.update(moved)  # known to Redis even where no message follows
        self._placed, self._accept_gap = True, False
        if self._places:
            again = sum(max(0, place.again - place.offset) for place in self._places.values())
            self._say(
                f"reads {len(self._places)} partitions" + (f", {again} records of them once more" if again else "")
            )

    def _begin(self, found: Partition) -> Place:
        text = self._stored[found.part]
        mark = self._snapshot.mark if self._true_at(found.part) is not None else 0
        return begin(Place.parse(text) if text else None, found, mark, accept_gap=self._accept_gap)

    def _found(self) -> list[Partition]:
        """What the broker says of our partitions."""
        since = {part: at - MARGIN_MS for part in self._wanted if (at := self._true_at(part)) is not None}
        asked = [TopicPartition(*part, max(0, at)) for part, at in since.items()]
        answers = self._consumer.offsets_for_times(asked, broker.TIMEOUT_SECONDS) if asked else []
        at_snapshot = {(each.topic, each.partition): each.offset for each in answers}
        found = []
        for part in self._wanted:
            first, end = self._consumer.get_watermark_offsets(TopicPartition(*part), broker.TIMEOUT_SECONDS)
            offset = at_snapshot.get(part, -1)
            kept = part not in since or self._is_kept(part, since[part])
            found.append(Partition(part, first, end, end if offset < 0 else max(offset, first), kept))
        return found

    def _is_kept(self, part: Part, since: int) -> bool:
        kept = self._kept_ms[part[0]]
        return kept < 0 or since > time.time() * 1000 - kept

    def _true_at(self, part: Part) -> int | None:
        """The time (ms since 1970) that the snapshot of what a topic changes is true for; None without one."""
        return self._snapshot.times.get(KIND[part[0].removeprefix(self._settings.topic_prefix)])

    # Looking around

    def _look(self) -> None:
        """Once a second: how far behind, and whether a new snapshot came."""
        behind = 0
        for part, place in self._places.items():
            _, end = self._consumer.get_watermark_offsets(TopicPartition(*part), cached=True)
            self.observed.lag(*part, max(0, end - place.offset))
            behind = max(behind, end - place.offset)
        now = time.time() * 1000
        self.observed.behind.set(max(0.0, now - self._newest_ms) / 1000 if behind and self._newest_ms else 0.0)
        self.observed.snapshot.set((now - min(times)) / 1000 if (times := self._snapshot.times.values()) else -1)
        if self._placed and self._end.snapshot() != self._snapshot:
            self._settle(0)
            self._anew("a new snapshot is there: what came since is told once more")

    def _wait(self, seconds: float) -> None:
        """A pause in which the group still hears from us."""
        self._stop.wait(seconds)
        self._consumer.poll(0)


def _said(error: Unavailable | KafkaException) -> str:
    """What a person is told. Raises TandemError where waiting does not help."""
    if isinstance(error, Unavailable):
        return str(error)
    found: KafkaError = error.args[0]
    if found.fatal() or found.code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
        raise TandemError(
            f"Kafka ends this projector: {found.str()}; where another one has its name, give each its own with --member"
        )
    return f"Kafka: {found.str()}"


def project(
    settings: Settings, region_name: str, member: str, metrics_port: int | None, say: Say, *, accept_gap: bool
) -> None:
    """Project into one region until TERM or Ctrl-C."""
    regions = regions_file.load(settings.config_folder)
    region: Region = regions.get(region_name)
    projector = Projector(settings, region, regions.names, member, lambda line: say(f"{region_name}: {line}"))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: projector.stop())
    if metrics_port is not None:
        projector.observed.serve(metrics_port)
    projector.run(accept_gap=accept_gap)
    say(f"{region_name}: stopped; all that was read is in Redis")
