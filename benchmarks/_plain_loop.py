"""The rival: a consumer that writes one HSET for each message, as tutorials have it.

`python -m benchmarks._plain_loop BROKERS TOPIC REDIS_URL MESSAGES` prints the seconds from the first to the last.
"""

from __future__ import annotations

import json
import sys
import time
import uuid

import redis
from confluent_kafka import Consumer

KEY = "plain"


def loop(brokers: str, topic: str, url: str, count: int) -> float:
    """Seconds from the first message to the last."""
    told = {"bootstrap.servers": brokers, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer, client, done, started = Consumer(told), redis.Redis.from_url(url), 0, 0.0
    consumer.subscribe([topic])
    while done < count:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        started = started or time.perf_counter()
        change = json.loads(message.value())
        client.hset(KEY, change["sku"], change["stock"])
        done += 1
    seconds = time.perf_counter() - started
    consumer.close()
    return seconds


if __name__ == "__main__":
    print(loop(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
