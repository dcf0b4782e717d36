"""Merchandising rules: what they mean, which are possible, what contradicts is said with its line."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem import merchandising, rules
from tandem.errors import ConfigError
from tandem.merchandising import Product, Resolved

DAY = dt.date(2024, 3, 1)
CATALOGUE = [
    Product("pasta", "Bella", "Food > Pasta"),
    Product("sauce", "Bella", "Food > Sauce"),
    Product("cheese", "Alp", "Food > Cheese"),
    Product("wine", "Alp", "Drinks > Wine"),
    Product("aspirin", "Pharma", "Health > Medicine"),
    Product("plain", "", ""),
]
SKUS = [product.sku for product in CATALOGUE]
SIDES = st.sets(st.sampled_from(SKUS), min_size=1, max_size=3).map(sorted)
BUNDLES = st.sets(st.sampled_from(SKUS), min_size=2, max_size=4)
WHERE = st.sampled_from([[], ["north"], ["south"], ["north", "south"]])


@st.composite
def a_rule(draw: st.DrawFn) -> rules.Rule:
    action = draw(st.sampled_from(["pin", "boost", "bury", "exclude", "never_together", "always_with"]))
    needs = action in ("pin", "never_together", "always_with")
    other = draw(SIDES) if needs else draw(st.one_of(st.none(), SIDES))
    return rules.Rule(
        action=action,
        products=rules.Selector(sku=draw(SIDES)),
        companions=rules.Selector(sku=other) if other else None,
        regions=draw(WHERE),
    )


RULES = st.lists(a_rule(), max_size=6)


def resolved(*held: rules.Rule) -> list[Resolved]:
    return merchandising.resolve(held, list(range(10, 10 + len(held))), CATALOGUE, DAY)


def rule(action: str, products: list[str], companions: list[str] | None = None, **more: object) -> rules.Rule:
    found = {"action": action, "products": {"sku": products}} | more
    return msgspec.convert(found | ({"with": {"sku": companions}} if companions else {}), rules.Rule)


@given(RULES, BUNDLES)
def test_a_possible_bundle_holds_nothing_excluded_nothing_apart_and_all_that_is_always_with(
    held: list[rules.Rule], skus: set[str]
) -> None:
    found = resolved(*held)
    wrong = any(
        (each.action == "exclude" and skus & each.products)
        or (each.action == "never_together"
            and any(a != b for a in skus & each.products for b in skus & each.companions))
        or (each.action == "always_with"
            and any(not (each.companions & skus) - {sku} for sku in skus & each.products))
        for each in found
    )  # fmt: skip
    assert merchandising.possible(skus, found) == (not wrong)


@given(RULES, BUNDLES)
def test_more_rules_never_allow_more_except_by_their_absence(held: list[rules.Rule], skus: set[str]) -> None:
    found = resolved(*held)
    if merchandising.possible(skus, found):
        assert all(merchandising.possible(skus, found[:count]) for count in range(len(found)))


@given(RULES)
def test_a_pin_stands_unless_a_rule_forbids_it_and_then_that_is_said(held: list[rules.Rule]) -> None:
    found = resolved(*held)
    pins = list(merchandising.pinned(found))
    assert all(
        merchandising.possible(pin.skus, [each for each in found if each.meets(found[pin.rule])]) for pin in pins
    )
    said = merchandising.findings(found)
    alone = [pin for place, each in enumerate(found) for pin in merchandising.pinned([each]) if each.action == "pin"]
    lost = {pin.skus for pin in alone} - {pin.skus for pin in pins}
    assert not lost or any("pin contradict" in finding.text for finding in said)


@given(RULES, BUNDLES)
def test_boost_and_bury_of_one_factor_cancel(held: list[rules.Rule], skus: set[str]) -> None:
    boosts = [each for each in held if each.action == "boost"]
    buries = [msgspec.structs.replace(each, action="bury") for each in boosts]
    assert merchandising.factor(skus, resolved(*boosts, *buries)) == pytest.approx(1.0)
    assert merchandising.factor(skus, resolved(*boosts)) >= 1.0


def test_products_are_named_by_sku_brand_or_any_level_of_the_category() -> None:
    selector = rules.Selector(sku=["plain"], brand=["Alp"], category=["Sauce", "Health"])
    named = {product.sku for product in CATALOGUE if merchandising.names(selector, product)}
    assert named == {"plain", "cheese", "wine", "sauce", "aspirin"}


@pytest.mark.parametrize(
    ("start", "end", "holds"),
    [(None, None, True), (DAY, DAY, True), ("2024-03-02", None, False), (None, "2024-02-29", False)],
)
def test_dates_are_the_first_and_the_last_day_a_rule_holds_for(start: object, end: object, holds: bool) -> None:
    held = rule("exclude", ["pasta"], start=start, end=end)
    assert held.holds_on(DAY) == holds
    assert bool(resolved(held)) == holds


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (rule("pin", ["pasta"], ["sauce"]), rule("exclude", ["sauce"]), "exclude wins, no pin"),
        (rule("never_together", ["pasta"], ["sauce"]), rule("pin", ["sauce"], ["pasta"]), "never_together wins"),
        (rule("exclude", ["pasta"], ["sauce"]), rule("pin", ["sauce"], ["pasta"]), "exclude wins, no pin"),
        (rule("always_with", ["pasta"], ["cheese"]), rule("pin", ["pasta"], ["sauce"]), "always_with wins, no pin"),
        (rule("always_with", ["wine"], ["aspirin"]), rule("never_together", ["aspirin"], ["wine"]),
         "contradict on 'wine'; never_together wins, no bundle holds it"),
        (rule("always_with", ["wine"], ["cheese"]), rule("exclude", ["cheese"]), "exclude wins, no bundle holds it"),
        (rule("boost", ["pasta"]), rule("bury", ["pasta", "sauce"]), "'pasta' boosted and buried"),
        (rule("pin", ["pasta"], ["sauce"]), rule("pin", ["pasta"], ["sauce"]), "pinned twice"),
    ],
)  # fmt: skip
def test_what_contradicts_is_said_with_both_lines(first: rules.Rule, second: rules.Rule, said: str) -> None:
    (finding,) = merchandising.findings(resolved(first, second))
    assert finding.lines == (10, 11)
    assert said in finding.text
    assert str(finding).startswith("rules.toml, line 10 and line 11: ")


def test_rules_of_different_regions_do_not_contradict() -> None:
    north, south = rule("pin", ["pasta"], ["sauce"], regions=["north"]), rule("exclude", ["sauce"], regions=["south"])
    found = resolved(north, south)
    assert not merchandising.findings(found, ["north", "south"])
    assert [pin.skus for pin in merchandising.pinned(found)] == [("pasta", "sauce")]


def test_what_matches_nothing_is_said() -> None:
    said = [
        finding.text
        for finding in merchandising.findings(
            resolved(rule("exclude", ["pizza"]), rule("boost", ["pasta", "pizza"], regions=["west"])), ["north"]
        )
    ]
    assert said == [
        "exclude: products = sku 'pizza' matches no product that may be bundled",
        "boost: no region 'west' in regions.toml",
        "boost: products names 'pizza', no product that may be bundled",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('action = "pin"\nproducts = { sku = ["a"] }', r"rule 2 \(line 6\): pin needs `with`"),
        ('action = "hide"\nproducts = { sku = ["a"] }', r"key rule 2 \(line 6\)\.action: "),
        ('action = "exclude"\nproducts = { skus = ["a"] }', "`skus`; the keys here are sku, brand, category"),
        ('action = "exclude"\nproducts = {}', "name at least one sku, brand or category"),
        ('action = "exclude"\nproducts = { sku = ["a"] }\nuntil = 1', "`until`; the keys here are action, products"),
        ('action = "exclude"\nproducts = { sku = ["a"] }\nend = "soon"', r"rule 2 \(line 6\)\.end: "),
        ('action = "exclude"\nproducts = { sku = ["a"] }\nstart = 2024-02-01\nend = 2024-01-01', "before start"),
        ('action = "pin"\nproducts = { brand = ["a"] }\nwith = { sku = ["b"] }', "by sku alone"),
        ('action = "boost"\nproducts = { sku = ["a"] }\nfactor = 0.5', r"factor: "),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_one_line_that_names_file_line_key_and_mend(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(f"""# rules
[[rule]]
action = "exclude"
products = {{ sku = ["b"] }}

[[rule]]
{text}
""")
    with pytest.raises(ConfigError, match=said) as error:
        rules.load(tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_the_lines_of_rules_are_those_of_their_headers(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('note = """\n[[rule]]\n"""\n[[rule]]\na = 1\n  [[ rule ]] # second\n')
    assert rules.lines(path) == [4, 6]
