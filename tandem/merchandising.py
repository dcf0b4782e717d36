"""What a merchandiser's rules mean for products and bundles: which hold, which are possible, which contradict."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tandem.rules import Rule, Selector

LEVEL = " > "
"""Between the levels of a category."""
FORBIDS = ("exclude", "never_together")


class Product(NamedTuple):
    """What a rule may know a product by."""

    sku: str
    brand: str
    category: str
    """All levels, coarsest first."""


@dataclass(frozen=True)
class Resolved:
    """A rule that holds, with the products that it names in a catalogue."""

    rule: Rule
    line: int
    """Where it begins in rules.toml, from 1."""
    products: frozenset[str]
    companions: frozenset[str] = frozenset()

    @property
    def action(self) -> str:
        """The rule's action; an `exclude` of products with others is the same as `never_together`."""
        return "never_together" if self.rule.action == "exclude" and self.rule.companions else self.rule.action

    def covers(self, region: str, segment: str) -> bool:
        """Whether it holds in the lists of `segment` in `region`."""
        return region in (self.rule.regions or [region]) and segment in (self.rule.segments or [segment])

    def meets(self, other: Resolved) -> bool:
        """Whether there is a list in which both hold."""
        return _share(self.rule.regions, other.rule.regions) and _share(self.rule.segments, other.rule.segments)


class Pin(NamedTuple):
    """A bundle that stands first in the list of its anchor."""

    anchor: str
    skus: tuple[str, ...]
    """All components, sorted, the anchor among them."""
    rule: int
    """Place of the rule among those that hold."""


class Finding(NamedTuple):
    """Something about the rules that a merchandiser should know."""

    lines: tuple[int, ...]
    text: str

    def __str__(self) -> str:
        where = " and ".join(f"line {line}" for line in self.lines)
        return f"rules.toml, {where}: {self.text}"


def holding(rules: Sequence[Rule], lines: Sequence[int], day: dt.date) -> list[tuple[Rule, int]]:
    """The rules that hold on `day` (UTC), each with its line, in the order of the file."""
    return [(rule, lines[place] if place < len(lines) else 0) for place, rule in enumerate(rules) if rule.holds_on(day)]


def resolve(rules: Sequence[Rule], lines: Sequence[int], catalogue: Iterable[Product], day: dt.date) -> list[Resolved]:
    """The rules that hold on `day` (UTC), with their products, in the order of the file.

    `lines` gives each rule's line; 0 where it is not known.
    """
    held = [(rule, lines[place] if place < len(lines) else 0) for place, rule in enumerate(rules) if rule.holds_on(day)]
    selectors = {id(part): part for rule, _ in held for part in (rule.products, rule.companions) if part}
    named: dict[int, set[str]] = {key: set() for key in selectors}
    for product in catalogue if held else ():
        for key, selector in selectors.items():
            if names(selector, product):
                named[key].add(product.sku)
    return [
        Resolved(rule, line, frozenset(named[id(rule.products)]), frozenset(named.get(id(rule.companions), ())))
        for rule, line in held
    ]


def names(selector: Selector, product: Product) -> bool:
    """Whether `selector` means `product`."""
    return (
        product.sku in selector.sku
        or product.brand in selector.brand
        or any(level in selector.category for level in product.category.split(LEVEL))
    )


def possible(skus: Iterable[str], rules: Iterable[Resolved]) -> bool:
    """Whether no rule forbids the bundle of `skus`: nothing excluded, nothing that never goes together, and each with
    what it is always with.
    """
    held = frozenset(skus)
    return not any(_forbids(rule, held) for rule in rules)


def _forbids(rule: Resolved, held: frozenset[str]) -> bool:
    if rule.action == "exclude":
        return bool(held & rule.products)
    if rule.action == "never_together":
        return _both(held, rule)
    if rule.action == "always_with":
        return any(not (held - {sku}) & rule.companions for sku in held & rule.products)
    return False


def _both(held: frozenset[str], rule: Resolved) -> bool:
    """Whether two different products of `held` stand on the two sides of `rule`."""
    return any((held - {sku}) & rule.companions for sku in held & rule.products)


def factor(skus: Iterable[str], rules: Iterable[Resolved]) -> float:
    """What the score of the bundle of `skus` is multiplied by: the product over all boosts and buries that mean it.

    A rule without `with` means bundles that hold one of its products, a rule with it those that hold both sides.
    """
    held = frozenset(skus)
    total = 1.0
    for rule in rules:
        meant = _both(held, rule) if rule.rule.companions else bool(held & rule.products)
        if meant and rule.action in ("boost", "bury"):
            total *= rule.rule.factor if rule.action == "boost" else 1 / rule.rule.factor
    return total


def pinned(rules: Sequence[Resolved]) -> Iterator[Pin]:
    """The pins, in the order of the file: those of which every product is in the catalogue and that no rule forbids."""
    for place, rule in enumerate(rules):
        if rule.action != "pin" or not rule.rule.companions or set(rule.rule.companions.sku) - rule.companions:
            continue
        for anchor in (sku for sku in rule.rule.products.sku if sku in rule.products):
            skus = tuple(sorted({anchor, *rule.rule.companions.sku}))
            if len(skus) > 1 and possible(skus, (other for other in rules if other.meets(rule))):
                yield Pin(anchor, skus, place)


def findings(rules: Sequence[Resolved], regions: Iterable[str] = ()) -> list[Finding]:
    """What matches nothing, and what contradicts, by line; each says which of the two wins.

    What forbids wins over what demands: exclude and never_together, then always_with, then pin, then boost and bury.
    """
    found = [Finding((rule.line,), text) for rule in rules for text in _empty(rule, list(regions))]
    for place, rule in enumerate(rules):
        for other in rules[place + 1 :]:
            if rule.meets(other):
                found += [Finding((rule.line, other.line), text) for text in _contradiction(rule, other)]
    return sorted(set(found))


def _empty(rule: Resolved, regions: list[str]) -> Iterator[str]:
    for side, selector, matched in (
        ("products", rule.rule.products, rule.products),
        ("with", rule.rule.companions, rule.companions),
    ):
        if selector is not None and not matched:
            yield f"{rule.rule.action}: {side} = {_written(selector)} matches no product that may be bundled"
        elif selector is not None and (unknown := sorted(set(selector.sku) - matched)):
            yield f"{rule.rule.action}: {side} names {_some(unknown)}, no product that may be bundled"
    if unknown := sorted(set(rule.rule.regions) - set(regions or rule.rule.regions)):
        yield f"{rule.rule.action}: no region {_some(unknown)} in regions.toml"


def _contradiction(rule: Resolved, other: Resolved) -> Iterator[str]:
    actions = (rule.action, other.action)
    if actions in (("boost", "bury"), ("bury", "boost")) and (both := rule.products & other.products):
        yield f"{_some(both)} boosted and buried; both factors apply"
    first, second = sorted((rule, other), key=lambda each: _strength(each.action))
    if second.action == "pin" and first.action in (*FORBIDS, "always_with"):
        broken = [pin.skus for pin in pinned([second]) if not possible(pin.skus, [first])]
        if broken:
            yield f"{first.rule.action} and pin contradict on {_some(broken[0])}; {first.rule.action} wins, no pin"
    if second.action == "always_with" and first.action in FORBIDS:
        lost = [sku for sku in second.products if not _can_stand(sku, second, first)]
        if lost:
            yield (
                f"{first.rule.action} and always_with contradict on {_some(lost)}; "
                f"{first.rule.action} wins, no bundle holds {'it' if len(lost) == 1 else 'them'}"
            )
    if actions == ("pin", "pin") and set(pinned([rule])) & set(pinned([other])):
        yield "the same bundle is pinned twice; the first place counts"


def _can_stand(sku: str, always: Resolved, forbids: Resolved) -> bool:
    """Whether `sku` has a companion that `always` accepts and `forbids` lets stand with it."""
    return any(possible((sku, companion), [forbids]) for companion in always.companions - {sku})


def _strength(action: str) -> int:
    return (*FORBIDS, "always_with", "pin", "boost", "bury").index(action)


def _share(left: list[str], right: list[str]) -> bool:
    return not left or not right or bool(set(left) & set(right))


def _written(selector: Selector) -> str:
    kinds = (("sku", selector.sku), ("brand", selector.brand), ("category", selector.category))
    return ", ".join(f"{kind} {_some(values)}" for kind, values in kinds if values)


def _some(values: Iterable[str]) -> str:
    """The first three of `values`, quoted."""
    listed = sorted(values)
    return ", ".join(map(repr, listed[:3])) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
