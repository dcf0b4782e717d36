"""A million quotes that no checkout may honour: altered, forged, expired, of another region, used up. None is accepted.

`make bench-quotes`, or `python -m benchmarks.quotes --count 1000000 --json FILE`.

Every quote is first honoured as it was given, so that what is refused is refused for what was done to it; then the same
function that answers POST quotes/verify judges the bad ones, with a real Redis that notes down which quotes are used.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import string
import tempfile
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from benchmarks import _edge_world, _told
from benchmarks._told import Row
from benchmarks.edge import redis_up
from edge_service.checkout import verified
from edge_service.questions import VerifyQuestion
from edge_service.region_reader import RegionReader
from edge_service.region_store import batches
from tandem.quote import Quote, QuotedComponent, QuoteFault, Signer, nonce

KEYS = "k2:fedcba9876543210fedc,k1:0123456789abcdef0123"
BASE64 = string.ascii_letters + string.digits + "-_."
FOR_EACH_GIVEN = 100
"""Bad quotes made of each good one."""
AT_ONCE = 200
LIFE_SECONDS = 600

Bad = tuple[str, VerifyQuestion, float]
"""What was done to a quote, what checkout asks, and at what time."""


class Wrong(Exception):
    """A quote that should have been honoured was not."""


class Forger:
    """Makes bad quotes of good ones."""

    def __init__(self, seed: int, now: float) -> None:
        self._chance, self._now = random.Random(seed), now
        self._other = Signer.from_text("k2:a-secret-of-someone-else")
        self._signer = Signer.from_text(KEYS)
        self.ways: dict[str, Callable[[str], Bad]] = {
            "one character changed": self._changed,
            "cut short": self._cut,
            "fields changed, old signature": self._cheaper,
            "signed with another secret": self._forged,
            "signature of another quote": self._swapped,
            "of another region": self._abroad,
            "expired": self._expired,
            "used before": self._replayed,
        }

    def given(self, region: str = "north") -> Quote:
        """A good quote of random contents."""
        parts = tuple(
            QuotedComponent(_edge_world.sku(self._chance.randrange(10_000)), self._chance.randint(1, 4), price)
            for price in self._chance.choices(range(99, 9_999), k=self._chance.randint(2, 4))
        )
        total, until = sum(part.offer_price for part in parts), int(self._now) + LIFE_SECONDS
        return Quote("k2", region, "*", _edge_world.RELEASE, "b" * 16, "USD", parts, total, until, nonce())

    def bad(self, good: list[str], count: int) -> Iterator[Bad]:
        """`count` bad quotes of tokens that were used already, each way in turn."""
        ways = list(self.ways.values())
        for number in range(count):
            yield ways[number % len(ways)](good[number // len(ways) % len(good)])

    def _asked(self, way: str, token: str, later: float = 0.0) -> Bad:
        return way, VerifyQuestion(token, once=True), self._now + later

    def _changed(self, token: str) -> Bad:
        place = self._chance.randrange(len(token))
        other = self._chance.choice([char for char in BASE64 if char != token[place]])
        return self._asked("one character changed", token[:place] + other + token[place + 1 :])

    def _cut(self, token: str) -> Bad:
        return self._asked("cut short", token[: self._chance.randrange(1, len(token))])

    def _cheaper(self, token: str) -> Bad:
        body, _, mac = token.partition(".")
        fields = msgspec.json.decode(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        place = self._chance.choice([1, 2, 3, 4, 5, 7, 8])
        fields[place] = "JPY" if isinstance(fields[place], str) else fields[place] + self._chance.choice([-9, 9, 10**6])
        told = urlsafe_b64encode(msgspec.json.encode(fields)).rstrip(b"=").decode()
        return self._asked("fields changed, old signature", f"{told}.{mac}")

    def _forged(self, _: str) -> Bad:
        return self._asked("signed with another secret", self._other.sign(self.given()))

    def _swapped(self, token: str) -> Bad:
        body = self._signer.sign(self.given()).partition(".")[0]
        return self._asked("signature of another quote", f"{body}.{token.partition('.')[2]}")

    def _abroad(self, _: str) -> Bad:
        return self._asked("of another region", self._signer.sign(self.given("south")))

    def _expired(self, token: str) -> Bad:
        return self._asked("expired", token, LIFE_SECONDS + self._chance.randrange(10**7))

    def _replayed(self, token: str) -> Bad:
        return self._asked("used before", token, self._chance.randrange(LIFE_SECONDS - 60))


class Checkout:
    """Judges quotes at one region's edge; counts what was accepted and the faults of the rest, each by way."""

    def __init__(self, url: str) -> None:
        self._signer, self._reader = Signer.from_text(KEYS), RegionReader(_edge_world.region_at(url))
        self.judged: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.faults: dict[str, Counter[str]] = {}

    async def honour(self, tokens: list[str], now: float) -> None:
        """Use up good quotes. Raises Wrong where one is refused."""
        for token in tokens:
            try:
                await verified(VerifyQuestion(token, once=True), self._signer, self._reader, now)
            except QuoteFault as error:
                raise Wrong(f"a good quote was refused as {error.fault}") from error

    async def judge(self, bad: Iterator[Bad]) -> None:
        for some in batches(bad, AT_ONCE):
            await asyncio.gather(*[self._one(*each) for each in some])
        self._reader.close()

    async def _one(self, way: str, question: VerifyQuestion, now: float) -> None:
        self.judged[way] += 1
        try:
            await verified(question, self._signer, self._reader, now)
        except QuoteFault as error:
            self.faults.setdefault(way, Counter())[error.fault] += 1
        else:
            self.accepted[way] += 1


async def judged(url: str, count: int, seed: int = _edge_world.SEED) -> Checkout:
    """`count` bad quotes, judged with the Redis at `url`. Raises Wrong."""
    now, signer, checkout = time.time(), Signer.from_text(KEYS), Checkout(url)
    forger = Forger(seed, now)
    good = [signer.sign(forger.given()) for _ in range(max(1, count // FOR_EACH_GIVEN))]
    await checkout.honour(good, now)
    await checkout.judge(forger.bad(good, count))
    return checkout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as made, redis_up(Path(made)) as url:
        checkout = asyncio.run(judged(url, options.count))
    rows = [Row(way, [float(number)], "quotes") for way, number in checkout.judged.items()]
    rows.append(Row("judged a second, one process", [options.count / (time.perf_counter() - started)], "quotes"))
    accepted = {"accepted": float(checkout.accepted.total())}
    print(_told.table(rows, accepted, {}, {"accepted": 0.0}))
    for way, faults in checkout.faults.items():
        print(f"{way}: {', '.join(f'{fault} {number:,}' for fault, number in faults.most_common())}")
    if options.json:
        _told.write_json(options.json, rows, accepted)


if __name__ == "__main__":
    main()
