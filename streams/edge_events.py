"""What shoppers saw and did: from each region's Redis to Kafka, in the order in which it was told.

Events leave Redis only after the broker has them all; killed in between, some are told twice, and count once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
from confluent_kafka import KafkaError, Producer

from edge_service.region_store import RegionStore
from streams import broker
from streams.messages import of_edge
from tandem import regions as regions_file
from tandem.errors import Unavailable
from tandem.regions import Region
from tandem.settings import Settings

BATCH = 10_000
FLUSH_SECONDS = 30.0
PAUSE_SECONDS = 1.0

Say = Callable[[str], object]


def run(settings: Settings, say: Say, stop: threading.Event | None) -> None:
    """Tell every region's events to Kafka, again and again until `stop` (None: once). Who is away is named."""
    producer = broker.producer(settings)
    regions = regions_file.load(settings.config_folder).region
    while True:
        for region in regions:
            try:
                count = forward(settings, region, producer)
            except Unavailable as error:
                say(f"{region.name}: its events stay there until the next time: {error}")
            else:
                if count or stop is None:
                    say(f"{region.name}: {count} events told to Kafka")
        if stop is None or stop.wait(PAUSE_SECONDS):
            return


def forward(settings: Settings, region: Region, producer: Producer) -> int:
    """Tell one region's events; gives how many. Raises Unavailable where Redis or the broker is away."""
    told = 0
    with RegionStore(region) as store:
        while batch := store.events(BATCH):
            _tell(settings, region, producer, [text for _, text in batch])
            store.forget_events([place for place, _ in batch])
            told += len(batch)
    return told


def _tell(settings: Settings, region: Region, producer: Producer, texts: list[bytes]) -> None:
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            failed.append(error)

    for text in texts:
        message = of_edge(msgspec.json.decode(text), region.name, region.consent_purposes)
        broker.send(producer, settings, message, delivered)
    left = producer.flush(FLUSH_SECONDS)
    if left or failed:
        reason = failed[0].str() if failed else f"{left} events were not taken in {FLUSH_SECONDS:.0f} s"
        raise Unavailable(f"Kafka at {settings.kafka} can't serve ({reason}); start it, or mend TANDEM_KAFKA")
