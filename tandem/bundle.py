"""A bundle: a set of components with an id that depends only on its components."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

ID_LENGTH = 16
LEVELS = ("segment", "region", "global", "category", "content", "popular")
"""Where evidence may come from, the most telling first: orders of the segment, of the region, of all regions; of the
most alike products, if all are of the same category or not; of everything in the region."""


class Substitute(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A product that may stand in for a component that ran out."""

    sku: str
    floor: int | None = None
    """Lowest unit price in minor units; None where no cost and no advertised minimum is known."""


class Component(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A product with its quantity inside a bundle."""

    sku: str
    quantity: int = 1
    floor: int | None = None
    """Lowest unit price in minor units; None where no cost and no advertised minimum is known."""
    substitutes: tuple[Substitute, ...] = ()


class Bundle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the edge keeps of a bundle: enough to price it, and inside knowledge (floors) that it never tells."""

    id: str
    components: tuple[Component, ...]
    discount_bps: int
    orders_together: int
    lift: float
    why: tuple[int, ...] = ()
    """See `tandem.why.encode`."""


class Story(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one segment's orders say of a bundle, where it is not what the bundle's body says."""

    orders_together: int
    lift: float
    discount_bps: int
    why: tuple[int, ...] = ()
    """See `tandem.why.encode`."""


class Listed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One place in the ranked list of an anchor."""

    bundle_id: str
    confidence: float
    """Share of the anchor's orders that hold the whole bundle."""
    matched: str
    """Where the evidence comes from: one of LEVELS."""
    own: Story | None = None

    def tell(self, bundle: Bundle) -> Bundle:
        """`bundle`, the one that is listed here, with the evidence and the discount that hold at this place."""
        if self.own is None:
            return bundle
        own = self.own
        return Bundle(bundle.id, bundle.components, own.discount_bps, own.orders_together, own.lift, own.why)


class AnchorList(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The ranked bundles of one anchor for one segment (`*`: the whole region)."""

    segment: str
    anchor: str
    bundles: tuple[Listed, ...]


def bundle_id(components: Iterable[tuple[str, int]]) -> str:
    """16 hexadecimal digits of SHA-256 over the (sku, quantity) pairs, whatever their order."""
    text = "\n".join(f"{sku}\t{quantity}" for sku, quantity in sorted(components))
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]
