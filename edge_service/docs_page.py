"""`/docs`: the OpenAPI document as a page without a script, so that nothing has to be let in from elsewhere."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font-family:ui-monospace,monospace;font-size:13px}pre{background:#f4f5f6;padding:.7rem;overflow:auto}"
    "td,th{text-align:left;vertical-align:top;padding:.1rem 1rem .1rem 0}summary{cursor:pointer}"
)
_HASH = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

router = APIRouter()


@router.get("/docs", include_in_schema=False)
async def get_docs(request: Request) -> HTMLResponse:
    return HTMLResponse(page(request.app.openapi()), headers=HEADERS)


def page(document: dict[str, Any]) -> str:
    """The document as HTML."""
    told = document["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(told['title'])}</title>",
        f"<style>{STYLE}</style><h1>{escape(told['title'])} {escape(told['version'])}</h1>",
        f"<p>{escape(told['description'])} As a document for machines: <a href=/openapi.json>/openapi.json</a></p>",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(f"{method.upper()} {path}", operation)
    parts.append("<h2>Shapes</h2>")
    for name, shape in document["components"]["schemas"].items():
        parts.append(
            f"<details id={escape(name)}><summary><code>{escape(name)}</code></summary>{_json(shape)}</details>"
        )
    return "\n".join(parts)


def _operation(name: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{escape(name)}</code></h2><p><b>{escape(operation.get('summary', ''))}</b>. "
    yield f"{escape(operation.get('description', ''))}</p>"
    if scope := operation.get("x-scope"):
        needed = "needs" if len(operation["security"]) == 2 else "may need"
        yield f"<p>It {needed} a key with the scope <code>{escape(scope)}</code>.</p>"
    if parameters := operation.get("parameters"):
        yield _table((each["name"], f"{each['in']}; {json.dumps(each['schema'])}") for each in parameters)
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body, <code>{escape(media)}</code>:</p>{_json(content.get('example'))}"
    yield _table((status, f"{each['description']} {_shapes(each)}") for status, each in operation["responses"].items())


def _shapes(response: dict[str, Any]) -> str:
    schemas = [content.get("schema", {}).get("$ref", "") for content in response.get("content", {}).values()]
    return " ".join(each.rpartition("/")[2] for each in schemas)


def _table(rows: Iterator[tuple[str, str]]) -> str:
    cells = [f"<tr><th><code>{escape(name)}</code><td>{escape(text)}" for name, text in rows]
    return f"<table>{''.join(cells)}</table>"


def _json(value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, indent=1)
    return f"<pre>{escape(shown)}</pre>"
