"""The drawn symbol of a department, for products that come without a picture."""

from __future__ import annotations

import re


def department_symbol(department: str | None) -> str:
    """The slug of a department, as its symbol's file is called: `DRUG GM` gives `drug-gm`, None gives `other`."""
    return re.sub(r"[^a-z0-9]+", "-", (department or "").lower()).strip("-") or "other"


def image_url(department: str | None) -> str:
    """Where the symbol lies, relative to the CDN's root."""
    return f"symbols/{department_symbol(department)}.svg"
