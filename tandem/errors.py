"""The errors a person sees. Each message names what is wrong and what to do next."""

from __future__ import annotations

import re


class TandemError(Exception):
    """Something a person can mend; its message is printed as one line, without a traceback."""


class ConfigError(TandemError):
    """A setting or a configuration file is wrong: the message names the file, the key and the mend."""


class InputError(TandemError):
    """Data that was brought is wrong as a whole (a single bad row goes to `rejected_rows` instead)."""


class Unavailable(TandemError):
    """A server that is needed right now cannot be reached."""


def field_and_detail(error: Exception) -> tuple[str, str]:
    """msgspec's message as field and detail: `Expected … - at `$.cart[3].sku`` → `cart[3].sku`; empty: the whole."""
    detail, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    if named := re.search(r"(?:required|unknown) field `(\w+)`", detail):
        field = f"{field}.{named.group(1)}" if field else named.group(1)
    return field, detail[:1].lower() + detail[1:]
