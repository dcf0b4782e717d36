"""What a build must reach before any region sees it: `gates.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from tandem import config

Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Canary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a release on trial in one region is healthy; read from /metrics of that region's edge over a window."""

    region: str = ""
    """Where a release is tried first; empty: the first region of regions.toml."""
    needs_traffic: bool = False
    """True: without an edge to ask, or with fewer than `min_answers`, the trial goes on until a person says so."""
    min_answers: Annotated[int, msgspec.Meta(ge=1)] = 20
    """Answers in the window, below which their shares are not judged."""
    max_error_share: Ratio = 0.01
    """Requests answered with 5xx."""
    max_empty_rise: Ratio = 0.1
    """Share of answers without a bundle, above what it was before the trial."""
    max_stale_rise: Ratio = 0.1
    """Share of answers that say stale, above what it was before the trial."""
    max_p99_seconds: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    min_exposures: Annotated[int, msgspec.Meta(ge=1)] = 200
    """Bundles shown of either release, below which conversion is not judged."""
    min_conversion_share: Ratio = 0.5
    """Purchases an exposure, over those of the release that is current."""


class Gates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `gates.toml`. Each is checked per region."""

    min_anchors: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Products with at least one bundle."""
    min_anchor_share_of_current: Ratio = 0.5
    """Anchors, against the release that is current there."""
    min_hits_share_of_current: Ratio = 0.9
    """Hits on later orders (`hit@5/ranker` of evaluations), against those of the build that is current there."""
    max_churn: Ratio = 0.95
    """Anchors whose best bundle is another one than in the release that is current there, of those that both have."""
    max_emptied_segment_share: Ratio = 0.5
    """Segments without a list of their own, of those that have one in the release that is current there."""
    max_orphan_share: Ratio = 0.0
    """Bundles with a component that the catalogue does not hold or that is not active."""
    max_unpriced_share: Ratio = 0.2
    """Bundles that orders speak for, with a component that has no price."""
    max_uncosted_share: Ratio = 1.0
    """Bundles with a component whose cost is not known, so that its floor rests on `assumed_margin_bps`."""
    max_list_bytes: Annotated[int, msgspec.Meta(ge=1)] = 65_536
    """The largest list with all of its bundles, as JSON: what one answer carries."""
    max_below_floor: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bundles whose discount would take a component below its floor, or is not one from the lowest price of the days
    before where the region's law asks for that."""
    max_below_k: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bundles that rest on fewer than k customers."""
    canary: Canary = Canary()


def load(folder: Path | None) -> Gates:
    """The gates in force: `gates.toml` in `folder`, or Tandem's defaults."""
    return config.load(config.path_of(folder, "gates.toml"), Gates)
