"""The apps that the edge is compared with, each on the very server that Tandem runs on.

`python -m benchmarks._edge_rivals NAME --port N [--redis URL] [--workers N]`
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import orjson
import redis.asyncio
from fastapi import FastAPI, Response
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels
from pydantic import BaseModel
from redis._parsers import _AsyncRESP2Parser

from edge_service import server


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """The least that an ASGI app can do."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"Hello, world!"})


class Bodies:
    """As `hello`, but each address has a text of its own, as long as an answer of Tandem."""

    LENGTH = 4_800

    def __init__(self) -> None:
        self._texts: dict[str, bytes] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            text = self._texts.get(scope["path"])
            if text is None:
                text = self._texts[scope["path"]] = scope["path"].encode().ljust(self.LENGTH)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": text})


class Component(BaseModel):
    sku: str
    price: int
    stock: int


class Bundle(BaseModel):
    components: list[Component]
    list_total: int
    sellable: int


class Answer(BaseModel):
    sku: str
    bundles: list[Bundle]


async def asked(client: redis.asyncio.Redis, sku: str) -> dict[str, Any]:
    """GET the list, then MGET price and stock of its 18 products."""
    names = json.loads(await client.get(f"list:{sku}") or "[]")
    flat = [name for bundle in names for name in bundle]
    found = await client.mget([f"price:{name}" for name in flat] + [f"stock:{name}" for name in flat])
    prices, stocks = [int(each) for each in found[: len(flat)]], [int(each) for each in found[len(flat) :]]
    bundles, at = [], 0
    for bundle in names:
        here = slice(at, at + len(bundle))
        parts = zip(bundle, prices[here], stocks[here], strict=True)
        bundles.append(
            {
                "components": [{"sku": name, "price": price, "stock": stock} for name, price, stock in parts],
                "list_total": sum(prices[here]),
                "sellable": min(stocks[here]),
            }
        )
        at += len(bundle)
    return {"sku": sku, "bundles": bundles}


def plain_client(url: str) -> redis.asyncio.Redis:
    """redis-py as `pip install redis` brings it: its own parser, and not hiredis, which it takes where it finds it."""
    return redis.asyncio.Redis.from_url(url, protocol=2, parser_class=_AsyncRESP2Parser)


def reference_a(client: redis.asyncio.Redis) -> FastAPI:
    """What most would write: a dict from the handler."""
    app = FastAPI()

    @app.get("/v1/{region}/bundles/{sku}")
    async def bundles(region: str, sku: str) -> dict[str, Any]:
        return await asked(client, sku)

    return app


def reference_b(client: redis.asyncio.Redis) -> FastAPI:
    """The same with a response model, and orjson as the encoder."""
    app = FastAPI()

    @app.get("/v1/{region}/bundles/{sku}", response_model=Answer)
    async def bundles(region: str, sku: str) -> Response:
        answer = Answer.model_validate(await asked(client, sku))
        return Response(orjson.dumps(answer.model_dump()), media_type="application/json")

    return app


def made(name: str, url: str) -> Any:
    """The app called `name`."""
    apps: dict[str, Any] = {
        "hello": lambda: hello,
        "bodies": Bodies,
        "a": lambda: reference_a(plain_client(url)),
        "a-hiredis": lambda: reference_a(redis.asyncio.Redis.from_url(url)),
        "b": lambda: reference_b(plain_client(url)),
    }
    return apps[name]()


def on_granian(port: int) -> None:
    """`hello` on a server in Rust."""
    granian: Any = Granian(
        "hello", port=port, interface=Interfaces.ASGI, websockets=False, backpressure=1_024, log_level=LogLevels.warning
    )
    granian.serve(target_loader=lambda: hello, wrap_loader=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["hello", "hello-granian", "bodies", "a", "a-hiredis", "b"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redis", default="")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    if options.name == "hello-granian":
        on_granian(options.port)
        return
    server.serve(partial(made, options.name, options.redis), "127.0.0.1", options.port, options.workers)


if __name__ == "__main__":
    main()
