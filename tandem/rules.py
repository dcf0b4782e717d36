"""What a merchandiser may set about bundles and their prices: `rules.toml`."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from tandem import config
from tandem.errors import ConfigError
from tandem.money import EXPONENTS

Share = Annotated[int, msgspec.Meta(ge=0, le=9_999)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Learning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is learned from."""

    window_days: Positive = 365
    """Orders of this many days before as_of."""
    min_orders_together: Positive = 10
    """From so many common orders on, counts stand by themselves; below, the factors must agree."""
    popularity_damping: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    """score = orders_both / (orders_anchor * orders_companion ^ damping)."""
    max_basket: Positive = 200
    """Orders with more different products are left out of pair counting, and their number is reported."""
    max_item_orders: Positive = 5_000_000
    """Products in more orders of the window are left out of pair counting, and their number is reported."""
    top: Positive = 50
    """Companions kept per anchor."""
    half_life_days: Positive = 90
    """Decayed counts: an order so many days old counts half."""

    def __post_init__(self) -> None:
        if self.window_days > 20 * self.half_life_days:
            least = -(-self.window_days // 20)
            raise ValueError(f"half_life_days {self.half_life_days} must be at least {least}: window_days / 20")


class Bundling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How sets are made."""

    max_components: Annotated[int, msgspec.Meta(ge=2, le=4)] = 4
    per_anchor: Positive = 8
    """Bundles kept per anchor."""
    substitutes: Annotated[int, msgspec.Meta(ge=0, le=10)] = 3
    """Substitutes kept per component."""
    exclude_categories: list[str] = []
    """Categories (any level, as written in the catalogue) that are never bundled."""
    exclude_skus: list[str] = []
    variety_lift: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    """Two products of one category are varieties that shoppers take together, not substitutes, from this lift on; 0:
    never."""
    varieties_per_anchor: Annotated[int, msgspec.Meta(ge=0)] = 2
    """Bundles of two varieties kept per anchor."""
    max_price_ratio: Annotated[float, msgspec.Meta(ge=1)] = 30.0
    """The dearest component costs at most so many times the cheapest."""
    larger_sets: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.4
    """What an anchor's best set of 3 or 4 is worth in its list, against its best pair at 1."""
    diversity: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.25
    """How much a list prefers offers for different needs: 0 not at all."""
    reach: Annotated[float, msgspec.Meta(ge=0)] = 0.1
    """What bringing a product to a shopper for the first time is worth, against an anchor's best offer at 1."""


class Selector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Products: those that any of the lists names."""

    sku: list[str] = []
    brand: list[str] = []
    category: list[str] = []
    """Any level, as written in the catalogue."""

    def __post_init__(self) -> None:
        if not (self.sku or self.brand or self.category):
            raise ValueError("name at least one sku, brand or category")


Action = Literal["pin", "boost", "bury", "exclude", "never_together", "always_with"]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"companions": "with"}):
    """What a merchandiser asks for; see docs/merchandising.md."""

    action: Action
    products: Selector
    companions: Selector | None = None
    """`with` in the file."""
    factor: Annotated[float, msgspec.Meta(gt=1)] = 2.0
    """boost multiplies the score by it, bury divides."""
    start: dt.date | None = None
    """First as_of it holds for, UTC."""
    end: dt.date | None = None
    """Last as_of it holds for, UTC."""
    regions: list[str] = []
    """Where it holds; empty: everywhere."""
    segments: list[str] = []
    """For whom it holds (`*`: those without a segment of their own); empty: for all."""
    because: str = ""

    def __post_init__(self) -> None:
        if self.companions is None and self.action in ("pin", "never_together", "always_with"):
            raise ValueError(f"{self.action} needs `with`: the products on the other side")
        if self.action == "pin" and (self._wide(self.products) or self._wide(self.companions)):
            raise ValueError("pin names products by sku alone, not by brand or category")
        if self.action == "pin" and self.companions and len(self.companions.sku) > 3:
            raise ValueError("pin takes at most 3 companions")
        if self.start and self.end and self.end < self.start:
            raise ValueError(f"end {self.end} is before start {self.start}")

    @staticmethod
    def _wide(selector: Selector | None) -> bool:
        return selector is not None and bool(selector.brand or selector.category)

    def holds_on(self, day: dt.date) -> bool:
        return (self.start is None or self.start <= day) and (self.end is None or day <= self.end)


class Cold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers for products that no counts speak for."""

    per_anchor: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    """Bundles for each of them."""


class PricePoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a price has to end, in minor units: 2.99 and 7.49 are `step = 50, ending = 49`."""

    step: Positive
    ending: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.ending >= self.step:
            raise ValueError(f"ending must be below step ({self.step}), not {self.ending}")


class Pricing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How deep a discount goes. All shares in basis points, all money in minor units."""

    strategy: Literal["none", "fixed", "profit", "clear_stock"] = "profit"
    """none · fixed: `fixed_discount_bps` for every bundle · profit: the depth that is expected to earn most, where it
    earns more than no discount · clear_stock: as profit, but goods that lie too long count at less than their cost."""
    max_discount_bps: Share = 1_000
    fixed_discount_bps: Share = 500
    min_margin_bps: Share = 500
    """Of the unit cost, added to it for the floor."""
    assumed_margin_bps: Share = 2_500
    """Of the price, where no unit cost is known; the floor is then the price less this margin."""
    assumed_margins_bps: dict[str, Share] = {}
    """The same for a category (its path, `A > B`) and all below it; the finest that is named counts."""
    min_probability: Annotated[float, msgspec.Meta(ge=0.5, le=1)] = 0.8
    """A discount is given only if it earns more than none with at least this probability."""
    switching_bps: Share = 3_333
    """Of the further sales that a discount wins, the share that another product of the shop loses."""
    price_points: dict[str, PricePoint] = {}
    """By currency: how the price of a whole bundle ends."""
    daily_budget: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    """By region: the discounts a build may be expected to give away in a day, best profit for each unit first."""
    clear_stock_days: Positive = 60
    """With clear_stock: what would take longer than this to sell is to go."""
    salvage_bps: Share = 5_000
    """With clear_stock: of its unit cost, what goods that lie too long would still bring."""
    min_lift: Annotated[float, msgspec.Meta(ge=1)] = 1.0
    """Below this lift a bundle is not offered at all."""

    def __post_init__(self) -> None:
        for currency in self.price_points:
            if currency not in EXPONENTS:
                raise ValueError(f"price_points: {currency!r} is no ISO 4217 code")


class Ranking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What companions of an anchor are ranked for."""

    objective: Literal["hits", "discovery", "revenue", "profit"] = "hits"
    """hits: that one of the five is wanted; discovery: that it is not one of the products everybody knows; revenue and
    profit: what the wanted ones bring."""
    tail_weight: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.25
    """The point on the frontier: what a hit outside the 100 most popular products is worth beside any hit."""
    discovery_tail_weight: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.6
    """The same, where the objective is discovery."""
    kept: Annotated[int, msgspec.Meta(ge=5, le=50)] = 10
    """Companions kept per anchor."""
    retrain_days: Annotated[int, msgspec.Meta(ge=0, le=90)] = 7
    """A model is used again for so many days, as long as orders did not grow or shrink by more than 5 %."""

    @property
    def weight_of_tail(self) -> float:
        return self.discovery_tail_weight if self.objective == "discovery" else self.tail_weight


class Live(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the last minutes may add to a release: see docs/live.md."""

    window_minutes: Positive = 30
    """Signals older than this say nothing."""
    half_life_minutes: Positive = 10
    """A signal so many minutes old counts half."""
    min_actors: Positive = 1
    """Distinct shoppers behind a product or a pair; never less than the region's k."""
    min_surge: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    """A product takes off from so many times the signals that its share of orders would give."""
    prior: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """Shoppers that the last build's confidence weighs against those of the window."""
    per_anchor: Annotated[int, msgspec.Meta(ge=1, le=4)] = 2
    """Candidates for one product."""
    anchors: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    """Products with candidates in one region, those with most signals first."""
    ttl_seconds: Positive = 300
    """No edge offers a candidate that is older."""


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `rules.toml`."""

    learning: Learning = Learning()
    ranking: Ranking = Ranking()
    bundling: Bundling = Bundling()
    cold: Cold = Cold()
    pricing: Pricing = Pricing()
    live: Live = Live()
    rule: list[Rule] = []


def load(folder: Path | None) -> Rules:
    """The rules in force: `rules.toml` in `folder`, or Tandem's defaults."""
    path = config.path_of(folder, "rules.toml")
    try:
        return config.load(path, Rules)
    except ConfigError as error:
        raise ConfigError(_with_line(str(error), path)) from error


def lines(path: Path) -> list[int]:
    """The line in the file at `path` at which each `[[rule]]` begins, from 1, in their order."""
    found, inside = [], None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if inside is None and line.strip().replace(" ", "").startswith("[[rule]]"):
            found.append(number)
        for quotes in ('"""', "'''"):
            if inside in (None, quotes) and line.count(quotes) % 2:
                inside = None if inside else quotes
    return found


def _with_line(message: str, path: Path) -> str:
    """`message` with the line of the rule that it is about."""
    if not (key := re.search(r"key rule\[(\d+|\.\.\.)\]", message)):
        return message
    wrong = next(place for place, rule in enumerate(_raw(path)) if not _right(rule))
    places = lines(path)
    where = f"rule {wrong + 1}" + (f" (line {places[wrong]})" if wrong < len(places) else "")
    return message.replace(key[0], f"key {where}", 1)


def _raw(path: Path) -> list[Any]:
    return list(tomllib.loads(path.read_text(encoding="utf-8"))["rule"])


def _right(rule: Any) -> bool:
    try:
        msgspec.convert(rule, Rule)
    except msgspec.ValidationError:
        return False
    return True
