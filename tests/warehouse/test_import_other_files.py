from __future__ import annotations

import pytest

from tandem import regions as regions_file
from tandem.errors import InputError
from tandem.settings import Settings

from .conftest import regions

ORDERS = "order_id,ordered_at,sku,quantity,unit_price\no1,2024-05-31,tea,1,1.99\no2,2024-06-01,tea,1,1.79\n"
WITH_REGION = "order_id,ordered_at,sku,quantity,unit_price,region\n"


def test_what_is_not_brought_is_derived_and_said(bring, ask) -> None:
    said = bring(orders=ORDERS)
    assert ask("select sku, title, active from products") == [{"sku": "tea", "title": "tea", "active": True}]
    assert ask("select list_price_cents, sale_price_cents, prices_as_of from prices") == [
        {"list_price_cents": 179, "sale_price_cents": None, "prices_as_of": "2024-06-01T00:00:00Z"}
    ]
    assert ask("select * from stock") == []
    told = "\n".join(said)
    assert "1 that no catalogue names derived" in told
    assert "1 that no price list names derived" in told
    assert "nothing can be offered until it is known" in told


def test_a_list_price_above_what_was_paid_is_the_derived_price(bring, ask) -> None:
    bring(orders="order_id,ordered_at,sku,quantity,unit_price,list_price\no1,2024-05-31,tea,1,1.99,2.49\n")
    assert ask("select list_price_cents from prices") == [{"list_price_cents": 249}]


def test_what_was_brought_is_never_derived_over(bring, ask) -> None:
    bring(orders=ORDERS, catalog="sku,title\ntea,Fine tea\n", prices="sku,list_price,sale_price\ntea,2.5,2\n")
    bring(orders=ORDERS + "o3,2024-07-01,jam,1,3\n")
    assert ask("select sku, title from products order by sku") == [
        {"sku": "jam", "title": "jam"},
        {"sku": "tea", "title": "Fine tea"},
    ]
    assert ask("select sku, list_price_cents, sale_price_cents from prices order by sku") == [
        {"sku": "jam", "list_price_cents": 300, "sale_price_cents": None},
        {"sku": "tea", "list_price_cents": 250, "sale_price_cents": 200},
    ]


def test_a_catalogue_brings_costs_in_the_regions_currency(bring, ask) -> None:
    bring(
        orders=ORDERS,
        catalog="sku,title,category,unit_cost,minimum_advertised_price,active\n"
        "tea,Tea,Drinks > Tea,0.995,1.5,yes\njam,Jam,,,,no\nbad,Bad,,x,,\nodd,Odd,,,,perhaps\n",
    )
    assert ask("select sku, category, unit_cost_cents, currency, active from products order by sku") == [
        {"sku": "jam", "category": None, "unit_cost_cents": None, "currency": None, "active": False},
        {"sku": "tea", "category": "Drinks > Tea", "unit_cost_cents": 100, "currency": "EUR", "active": True},
    ]
    assert ask("select row, reason from rejected_rows order by row") == [
        {"row": 3, "reason": "bad_number"},
        {"row": 4, "reason": "bad_flag"},
    ]


def test_costs_without_a_currency_are_refused_where_regions_have_several(bring, settings: Settings) -> None:
    regions(settings, {"de": "EUR", "us": "USD"})
    with pytest.raises(InputError, match=r"\[catalog.constant\] currency"):
        bring(
            orders=WITH_REGION + "o1,2024-05-31,tea,1,1.99,de\n",
            catalog="sku,unit_cost\ntea,1\n",
        )


def test_the_last_row_of_a_key_counts(bring, ask) -> None:
    bring(orders=ORDERS, stock="sku,on_hand\ntea,1\ntea,7\n")
    assert ask("select sku, on_hand from stock") == [{"sku": "tea", "on_hand": 7}]
    assert ask("select row, reason from rejected_rows") == [{"row": 1, "reason": "superseded"}]


def test_stock_is_whole_units_that_can_be_sold(bring, ask) -> None:
    bring(orders=ORDERS, stock="sku,on_hand\ntea,2.9\njam,-3\nbad,many\n")
    assert ask("select sku, on_hand from stock order by sku") == [
        {"sku": "jam", "on_hand": 0},
        {"sku": "tea", "on_hand": 2},
    ]


def test_prices_without_a_region_hold_in_every_region_of_their_currency(bring, ask, settings: Settings) -> None:
    regions(settings, {"a": "EUR", "b": "EUR", "us": "USD"})
    bring(
        orders=WITH_REGION + "o1,2024-05-31,tea,1,1.99,a\n",
        prices="sku,list_price,region,currency\ntea,2.00,,EUR\ntea,3.00,b,EUR\ntea,4.00,us,\n",
    )
    assert ask("select region, list_price_cents, currency from prices order by region") == [
        {"region": "a", "list_price_cents": 200, "currency": "EUR"},
        {"region": "b", "list_price_cents": 300, "currency": "EUR"},
        {"region": "us", "list_price_cents": 400, "currency": "USD"},
    ]


def test_prices_that_are_none_are_rejected(bring, ask) -> None:
    bring(orders=ORDERS, prices="sku,list_price,sale_price\na,0,\nb,-1,\nc,1,-1\nd,1,2\ne,,\n")
    assert [row["reason"] for row in ask("select reason from rejected_rows order by row")] == [
        "not_positive",
        "not_positive",
        "not_positive",
        "sale_above_list",
        "missing_value",
    ]


def test_customers_bring_consents_and_any_attribute(bring, ask) -> None:
    bring(orders=ORDERS, customers="customer_id,consents,age,city\nc1, ads ;email;;ads,40,Köln\nc2,,,\n")
    assert ask("select customer_id, region, consents, attributes from customers order by 1") == [
        {
            "customer_id": "c1",
            "region": None,
            "consents": ["ads", "email"],
            "attributes": [{"name": "age", "value": "40"}, {"name": "city", "value": "Köln"}],
        },
        {"customer_id": "c2", "region": None, "consents": [], "attributes": []},
    ]


def test_regions_that_are_not_known_are_listed(bring) -> None:
    with pytest.raises(InputError, match=r"does not name north, south \(it names shop\).*--regions-from-data"):
        bring(orders=WITH_REGION + "o1,2024-05-31,tea,1,1,South\no2,2024-05-31,tea,1,1,North\n")


def test_regions_from_data_are_added_with_ports_of_their_own(bring, ask, settings: Settings) -> None:
    head = WITH_REGION.strip() + ",currency\n"
    bring(
        orders=head + "o1,2024-05-31,tea,1,1,South,USD\no2,2024-05-31,tea,1,1,North Sea,JPY\n",
        regions_from_data=True,
    )
    found = regions_file.load(settings.config_folder)
    assert [(region.name, region.currency, region.redis_url) for region in found.region] == [
        ("shop", "EUR", "redis://127.0.0.1:6420/0"),
        ("north-sea", "JPY", "redis://127.0.0.1:6411/0"),
        ("south", "USD", "redis://127.0.0.1:6412/0"),
    ]
    assert ask("select region, net_cents from sales_lines order by 1") == [
        {"region": "north-sea", "net_cents": 1},
        {"region": "south", "net_cents": 100},
    ]


def test_regions_from_data_replace_the_defaults_of_who_has_none(bring, ask, settings: Settings) -> None:
    (settings.config_folder / "regions.toml").unlink()
    bring(orders=ORDERS, mapping="[orders.constant]\ncurrency = 'EUR'\n", regions_from_data=True)
    assert regions_file.load(settings.config_folder).names == ["default"]
    bring(orders=ORDERS, mapping="[orders.constant]\ncurrency = 'EUR'\n")
    assert ask("select distinct region from sales_lines") == [{"region": "default"}]


def test_a_region_without_any_currency_names_the_mapping_key(bring, settings: Settings) -> None:
    (settings.config_folder / "regions.toml").unlink()
    with pytest.raises(InputError, match=r"\[orders.constant\] currency"):
        bring(orders=ORDERS, regions_from_data=True)


def test_several_regions_and_no_column_for_them_name_the_mapping_key(bring, settings: Settings) -> None:
    regions(settings, {"a": "EUR", "b": "EUR"})
    with pytest.raises(InputError, match=r"\[orders.constant\] region"):
        bring(orders=ORDERS)


def test_a_row_without_a_region_is_rejected_where_there_are_several(bring, ask, settings: Settings) -> None:
    regions(settings, {"a": "EUR", "b": "EUR"})
    bring(orders=WITH_REGION + "o1,2024-05-31,tea,1,1,a\no2,2024-05-31,tea,1,1,\n")
    assert ask("select row, detail from rejected_rows") == [{"row": 2, "detail": "region is empty"}]


def test_two_spellings_that_come_to_one_name_are_an_error(bring) -> None:
    with pytest.raises(InputError, match=r"regions are written 'a b', 'a\.b'"):
        bring(orders=WITH_REGION + "o1,2024-05-31,tea,1,1,A B\no2,2024-05-31,tea,1,1,a.b\n", regions_from_data=True)
