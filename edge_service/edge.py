"""What all routes share: the served regions, the keys, the metrics, and the parts that every answer has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Query, Request
from starlette.responses import Response
from starlette.types import Scope

from edge_service import load_metrics, observe, problems, questions
from edge_service.admission import Admission
from edge_service.ages import as_fields
from edge_service.bodies import Bodies
from edge_service.bundle_answers import JSON, BundlesBook, Key, Question
from edge_service.cart_answers import OffersAnswer
from edge_service.keyring import Keyring
from edge_service.live import Clock
from edge_service.log import logger
from edge_service.offering import Signing
from edge_service.pulse import Pulse
from edge_service.questions import MAX_LIMIT
from edge_service.rates import Addresses
from edge_service.replies import Reply, lines
from edge_service.served import Moment, ServedRegion
from edge_service.workers import LEAVE
from tandem import clients
from tandem.quote import Signer
from tandem.regions import Region
from tandem.settings import Settings

encode = msgspec.json.Encoder().encode
WATCH_SECONDS = 2.0
"""How often `clients.toml` is looked at, and those who were refused are told of."""
UNKEPT = lines([JSON, (b"cache-control", b"no-store")])
"""Headers of an answer that is its asker's alone."""


class Edge:
    """What all routes share: the served regions, the keys, the metrics."""

    def __init__(self, settings: Settings, regions: Sequence[Region], clock: Clock) -> None:
        self.log = logger()
        self.clock = clock
        self.signer = Signer.from_text(settings.signing_keys)
        self.signing = Signing(self.signer, settings.quote_ttl_seconds)
        self.served = {region.name: ServedRegion(region, settings, clock, self.log) for region in regions}
        self._books = {name: BundlesBook(self.signing, settings.answers_kept_bytes) for name in self.served}
        self.metrics = observe.Metrics(self.served, self._books, self.log, settings)
        self.pulse, self.bodies = Pulse(), Bodies(settings.body_seconds, settings.bodies_bytes)
        addresses = Addresses(settings.trusted_proxies)
        feed = clients.from_keys("TANDEM_DELTA_KEYS", settings.feed_keys, ["deltas"])
        open_to_all = clients.open_scopes(settings.open_scopes)
        self.keyring = Keyring([feed], settings.config_folder, open_to_all, addresses, self.log)
        self.admission = Admission(settings, self.pulse, addresses, self.keyring)
        self.metrics.collected.append(partial(load_metrics.collected, self.admission, self.pulse, self.bodies))
        self.leaving = False
        """Told to stop: goes on answering for a while, and is not ready any more."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside, every region's Redis is followed."""
        self.pulse.start()
        asyncio.get_running_loop().add_signal_handler(LEAVE, self._leave)
        watching = asyncio.create_task(self._watch())
        for served in self.served.values():
            served.start()
        try:
            yield
        finally:
            watching.cancel()
            for served in self.served.values():
                await served.stop()
            self.pulse.stop()
            await asyncio.to_thread(self.metrics.close)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self.keyring.reload()
            if refused := self.admission.newly_refused():
                self.log.warning("refused", **refused)

    def _leave(self) -> None:
        self.leaving = True

    def region(self, name: str) -> ServedRegion:
        """Raises a 404 problem that lists the regions served here."""
        found = self.served.get(name)
        if found is None:
            detail = f"no region {name[:64]!r} is served here; served are {', '.join(self.served)}"
            raise problems.wrong("region", detail, 404)
        return found

    def bundles(
        self, served: ServedRegion, key: Key, read: Callable[[], Question | None], known: bytes | None
    ) -> Reply | None:
        """The reply to GET bundles; None where `read` gives no question. Raises Problem.

        The answer is kept under `key`, and the question read only where there is none. `known` is If-None-Match.
        """
        moment, book = served.moment(), self._books[served.name]
        answer = book.known(moment, key)
        if answer is None:
            question = read()
            if question is None:
                return None
            answer = book.made(moment, key, question)
            self.metrics.made += 1
        self.metrics.answers[answer.counted] += 1
        if known is not None and answer.etag in known:
            return 304, answer.headers_alone, ()
        return 200, answer.headers, answer.body(moment)

    def offers(self, served: ServedRegion, body: bytes) -> Reply:
        """The reply to POST offers. Raises Problem."""
        question = questions.offers_question(body)
        moment = served.moment()
        used = served.segment(question.segment, question.consents)
        answer = OffersAnswer(moment, question, used, self._books[served.name])
        self.metrics.answers[(*answer.labels, str(moment.told.freshness.stale).lower())] += 1
        return 200, UNKEPT, answer.body()


def header(scope: Scope, wanted: bytes) -> bytes | None:
    """The value of a request's header; its name in lower case."""
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return None


def _edge(request: Request) -> Edge:
    return request.app.state.edge  # type: ignore[no-any-return]


def _served(request: Request, region: str) -> ServedRegion:
    return _edge(request).region(region)


Shared = Annotated[Edge, Depends(_edge)]


def needs(scope: clients.Scope) -> Any:
    """A dependency of routes that only clients with this scope may ask."""

    async def checked(edge: Shared, request: Request) -> None:
        edge.keyring.check(request.scope, scope)

    checked.needs = scope  # type: ignore[attr-defined]  # the OpenAPI document tells it
    return Depends(checked)


Served = Annotated[ServedRegion, Depends(_served)]
SegmentQuery = Annotated[str, Query(min_length=1, max_length=64, description="Unknown: as for the whole region")]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Bundles at most")]
ConsentsQuery = Annotated[list[str], Query(description="Purposes consented to, comma-separated or repeated")]


def as_json(answer: Any, status: int = 200, cache: str = "no-store") -> Response:
    return Response(encode(answer), status, {"Cache-Control": cache}, "application/json")


def ages(region: Region, moment: Moment | None, served: ServedRegion) -> dict[str, Any]:
    """The fields of every answer that say where it comes from and how old it is."""
    fresh = moment.freshness if moment else served.freshness()
    return {
        "region": region.name,
        "release": moment.release.meta.release_id if moment else None,
        "computed_at": moment.release.meta.computed_at if moment else None,
        **as_fields(fresh),
    }


def ages_now(served: ServedRegion) -> dict[str, Any]:
    """As `ages`, also before the first release is here."""
    return ages(served.region, None if served.current.release is None else served.moment(), served)
