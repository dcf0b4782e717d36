"""A publisher that is killed, wherever it is: readers see all of a release or of the one before, and a rerun heals."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import redis

from benchmarks import _releases
from benchmarks._publisher import Publisher
from benchmarks._reader import Reader
from benchmarks._serving import Serving
from benchmarks.killed import held
from tandem.settings import Settings
from tests.conftest import RunningStore

pytestmark = [pytest.mark.servers, pytest.mark.e2e]
ANCHORS = 40
READS = 10_000
PAUSE_SECONDS = 0.2
RANDOM_KILLS = 100


@pytest.fixture
def shop(tmp_path: Path, redis_url: str, object_store: RunningStore) -> Settings:
    """The builds of days that may all be published."""
    settings = Settings(home=tmp_path, s3_access_key=object_store.access_key, s3_secret_key=object_store.secret_key)
    return _releases.made(settings, redis_url, object_store.store, range(1, RANDOM_KILLS + 4), ANCHORS)


class Bucket:
    """All objects of the region."""

    def __init__(self, running: RunningStore) -> None:
        keys = {"aws_access_key_id": running.access_key, "aws_secret_access_key": running.secret_key}
        self._client = boto3.client("s3", endpoint_url=running.store.endpoint, region_name="us-east-1", **keys)

    def keys(self) -> Iterator[dict[str, str]]:
        for found in self._client.list_objects_v2(Bucket="tandem", Prefix=f"{_releases.REGION}/")["Contents"]:
            yield {"Bucket": "tandem", "Key": found["Key"]}

    def content(self, release: str) -> dict[str, bytes]:
        return {
            each["Key"]: self._client.get_object(**each)["Body"].read()
            for each in self.keys()
            if release in each["Key"]
        }

    def empty(self) -> None:
        for each in list(self.keys()):
            self._client.delete_object(**each)


def test_readers_never_see_a_mix_and_the_rerun_ends_as_if_nothing_had_happened(
    shop: Settings, redis_url: str, object_store: RunningStore
) -> None:
    chance = random.Random(7)
    with Publisher(shop) as publisher:
        publisher.publish(1)
        whole = publisher.publish(2).seconds
        public_url = object_store.store.public_url
        with Serving(shop) as edge, Reader(edge.port, ANCHORS, public_url, READS, PAUSE_SECONDS) as reader:
            writes = publisher.killed_at_every_write(3)
            day, killed = 4, 0
            while killed < RANDOM_KILLS:
                ended = publisher.publish(day, after_seconds=chance.uniform(0, whole))
                killed += ended.code != 0
                day += ended.code == 0
            assert publisher.publish(day).said == ""
        counts = reader.counts
        print(f"killed before each of {writes} writes and at {killed} random moments; {counts}")
        assert writes > 20
        assert counts.answers >= READS
        assert counts.releases > 1
        assert counts.manifests > 1
        assert (counts.mixed, counts.refused, counts.damaged) == (0, 0, 0)

        bucket = Bucket(object_store)
        before = held(redis_url), bucket.content(_releases.release_id(day))
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        bucket.empty()
        assert publisher.rebuild().said == ""
        after = held(redis_url), bucket.content(_releases.release_id(day))
        assert after == before
