from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable

from tandem.errors import ConfigError, InputError
from tandem.settings import Settings
from warehouse import import_files, lake

HEADER = "order_id,ordered_at,sku,quantity,unit_price\n"
GOOD = "o1,2024-05-31T18:30:00Z,tea,2,1.99\n"


def line(*, order_id="o1", ordered_at="2024-05-31", sku="tea", quantity="1", unit_price="1.99") -> str:
    return f"{order_id},{ordered_at},{sku},{quantity},{unit_price}\n"


def reasons(ask) -> list[tuple[int, str]]:
    return [(row["row"], row["reason"]) for row in ask("select row, reason from rejected_rows order by row")]


def test_a_line_comes_in_with_its_money_in_minor_units(bring, ask) -> None:
    bring(orders=HEADER + GOOD)
    assert ask("select * from sales_lines") == [
        {
            "region": "shop",
            "month": "2024-05",
            "order_id": "o1",
            "line": 1,
            "ordered_at": "2024-05-31T18:30:00Z",
            "sku": "tea",
            "quantity": 2,
            "unit_price_cents": 199,
            "net_cents": 398,
            "list_price_cents": None,
            "currency": "EUR",
            "customer_id": None,
            "source": "orders.csv",
        }
    ]


BAD = [
    (line(ordered_at="31.05.2024"), "bad_date", "ordered_at '31.05.2024' is no date"),
    (line(ordered_at="2024-02-30"), "bad_date", "ordered_at"),
    (line(ordered_at="1066-10-14"), "absurd_date", "not between 1970 and 2100"),
    (line(sku=" "), "missing_value", "sku is empty"),
    (line(order_id=""), "missing_value", "order_id is empty"),
    (line(unit_price="1.99 EUR"), "bad_number", "unit_price '1.99 EUR' is no number"),
    (line(unit_price="nan"), "bad_number", "unit_price 'nan'"),
    (line(unit_price="inf"), "bad_number", "unit_price 'inf'"),
    (line(unit_price="1_0"), "bad_number", "unit_price '1_0'"),
    (line(quantity="two"), "bad_number", "quantity 'two' is no number"),
    (line(quantity="0"), "zero_quantity", "quantity is 0"),
    (line(quantity="0.0004"), "zero_quantity", "quantity is 0"),
    (line(quantity="1e30"), "absurd_number", "quantity '1e30'"),
    (line(unit_price="99999999999999999999"), "absurd_number", "unit_price"),
    ("o1,2024-05-31,tea\n", "ragged_row", "3 values where the header has 5"),
    ("o1,2024-05-31,tea,1,1.99,EUR\n", "ragged_row", "6 values where the header has 5"),
]


def test_rows_that_cannot_be_used_are_kept_with_their_reasons(bring, ask) -> None:
    said = bring(orders=HEADER + GOOD + "".join(bad for bad, _, _ in BAD) + line(order_id="o2"))
    rows = ask("select * from rejected_rows order by row")
    assert [(row["row"], row["reason"], row["text"]) for row in rows] == [
        (place, reason, bad.strip("\n")) for place, (bad, reason, _) in enumerate(BAD, start=2)
    ]
    assert all(detail in row["detail"] for row, (_, _, detail) in zip(rows, BAD, strict=True))
    assert {(row["file"], row["source"]) for row in rows} == {("orders", "orders.csv")}
    assert any(f"{len(BAD)} rows rejected: bad_number 5, " in told for told in said)
    assert [found["order_id"] for found in ask("select order_id from sales_lines order by 1")] == ["o1", "o2"]


def test_row_numbers_count_the_ragged_rows_before_them(bring, ask) -> None:
    bring(orders=HEADER + "x\n" + GOOD + "y,y\n" + "z\n" + line(quantity="0") + GOOD)
    assert reasons(ask) == [
        (1, "ragged_row"),
        (3, "ragged_row"),
        (4, "ragged_row"),
        (5, "zero_quantity"),
        (6, "duplicate_line"),
    ]


def test_an_exact_duplicate_is_rejected_except_the_first(bring, ask) -> None:
    bring(orders=HEADER + GOOD + line(sku="milk") + GOOD + GOOD)
    assert reasons(ask) == [(3, "duplicate_line"), (4, "duplicate_line")]
    assert ask("select line, sku from sales_lines order by line") == [
        {"line": 1, "sku": "tea"},
        {"line": 2, "sku": "milk"},
    ]


def test_the_same_line_in_another_order_is_no_duplicate(bring, ask) -> None:
    bring(orders=HEADER + line(order_id="o1") + line(order_id="o2"))
    assert reasons(ask) == []


def test_a_return_reduces_units_and_revenue(bring, ask) -> None:
    bring(orders=HEADER + line(quantity="3") + line(quantity="-1"))
    assert ask("select sum(quantity) as units, sum(net_cents) as net from sales_lines") == [{"units": 2, "net": 398}]


def test_a_price_of_zero_is_kept(bring, ask) -> None:
    bring(orders=HEADER + line(unit_price="0"))
    assert ask("select net_cents from sales_lines") == [{"net_cents": 0}]


def test_goods_by_weight_keep_three_places_and_round_once(bring, ask) -> None:
    bring(orders=HEADER + line(quantity="0.453", unit_price="3.995"))
    assert ask("select quantity, unit_price_cents, net_cents from sales_lines") == [
        {"quantity": 0.453, "unit_price_cents": 400, "net_cents": 181}
    ]


TIMES = [
    ("2024-05-31", "2024-05-30T22:00:00Z"),
    ("2024-01-31", "2024-01-30T23:00:00Z"),
    ("2024-05-31 18:30", "2024-05-31T16:30:00Z"),
    ("2024-05-31T18:30:15.250", "2024-05-31T16:30:15.250000Z"),
    ("2024-05-31T18:30:00Z", "2024-05-31T18:30:00Z"),
    ("2024-05-31T18:30:00+0530", "2024-05-31T13:00:00Z"),
    ("2024-05-31T18:30:00-05:00", "2024-05-31T23:30:00Z"),
]


def test_times_are_those_of_the_file_unless_they_name_an_offset(bring, ask) -> None:
    lines = [line(order_id=f"o{place}", ordered_at=written) for place, (written, _) in enumerate(TIMES)]
    bring(orders=HEADER + "".join(lines), mapping='[orders.format]\ntime_zone = "Europe/Berlin"\n')
    found = ask("select ordered_at from sales_lines order by order_id")
    assert [row["ordered_at"] for row in found] == [meant for _, meant in TIMES]


def test_a_mapping_names_columns_formats_and_constants(bring, ask) -> None:
    mapping = """
    [orders]
    order_id = "Beleg"
    ordered_at = "Datum"
    sku = "Artikel"
    quantity = "Menge"
    unit_price = "Preis"
    [orders.format]
    ordered_at = "%d.%m.%Y %H:%M"
    time_zone = "Europe/Berlin"
    encoding = "cp1252"
    delimiter = ";"
    decimal = ","
    [orders.constant]
    currency = "EUR"
    customer_id = "Walk-in"
    """
    text = "Beleg;Datum;Artikel;Menge;Preis\r\nB1;31.05.2024 18:30;Öl;1;1,99\r\n"
    bring(orders=text.encode("cp1252"), mapping=mapping)
    assert ask("select order_id, ordered_at, sku, unit_price_cents, customer_id from sales_lines") == [
        {
            "order_id": "B1",
            "ordered_at": "2024-05-31T16:30:00Z",
            "sku": "Öl",
            "unit_price_cents": 199,
            "customer_id": "Walk-in",
        }
    ]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("[orders]\norder = 'x'\n", r"mapping.toml: key orders: .*`order`; the keys here are .*order_id"),
        ("[orders.format]\nencoding = 'klingon'\n", "key orders.format: encoding 'klingon' is not known"),
        ("[orders.format]\ntime_zone = 'Mars'\n", "key orders.format: time_zone 'Mars'"),
        ("[orders.format]\ndelimiter = ';;'\n", "key orders.format: delimiter ';;' must be one character"),
        ("[orders.format]\nordered_at = '%Q'\n", "key orders.format: ordered_at '%Q' is no strptime pattern"),
        ("[orders.constant]\nprice = '1'\n", "key orders: constant 'price' is no column here"),
        ("[order]\n", r"mapping.toml: key top level: .*`order`"),
    ],
)
def test_a_wrong_mapping_is_one_line_with_file_key_and_mend(bring, mapping, message) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        bring(orders=HEADER + GOOD, mapping=mapping)
    assert "\n" not in str(error.value)


def test_a_wrong_encoding_names_file_and_mapping_key(bring) -> None:
    with pytest.raises(InputError, match=r"orders.csv: is not written in utf-8; .*\[orders.format\] encoding"):
        bring(orders=(HEADER + line(sku="Öl")).encode("cp1252"))
    with pytest.raises(InputError, match="is not written in ascii"):
        bring(orders=HEADER + line(sku="Öl"), mapping="[orders.format]\nencoding = 'ascii'\n")


def test_utf_16_can_be_read_when_the_mapping_says_so(bring, ask) -> None:
    bring(orders=(HEADER + line(sku="Öl")).encode("utf-16"), mapping="[orders.format]\nencoding = 'utf-16'\n")
    assert ask("select sku from sales_lines") == [{"sku": "Öl"}]


def test_a_byte_order_mark_windows_line_ends_and_quoted_newlines_are_read(bring, ask) -> None:
    text = "\ufeff" + HEADER.replace("\n", "\r\n") + 'o1,2024-05-31,"green\r\ntea, ""best""",1,1.99\r\n'
    bring(orders=text)
    assert ask("select sku from sales_lines") == [{"sku": 'green\r\ntea, "best"'}]


def test_skus_are_trimmed_and_otherwise_kept(bring, ask) -> None:
    bring(orders=HEADER + line(sku="  00123 A  "))
    assert ask("select sku from sales_lines") == [{"sku": "00123 A"}]


def test_an_empty_file_is_an_error(bring) -> None:
    with pytest.raises(InputError, match=r"orders\.csv is empty"):
        bring(orders="")
    with pytest.raises(InputError, match=r"orders\.csv has no header"):
        bring(orders="\n\n")


def test_a_header_without_rows_is_said_and_changes_nothing(bring, ask) -> None:
    said = bring(orders=HEADER)
    assert "orders: orders.csv has a header and no usable row" in said
    assert ask("select * from sales_lines") == []


def test_a_missing_required_column_names_the_mapping_key(bring) -> None:
    with pytest.raises(InputError, match=r"no column 'sku'; name the one that holds sku .*\[orders\] sku = .*item"):
        bring(orders=HEADER.replace("sku", "item") + GOOD)
    with pytest.raises(InputError, match="no column 'Kunde'; name the one that holds customer_id"):
        bring(orders=HEADER + GOOD, mapping="[orders]\ncustomer_id = 'Kunde'\n")


def test_two_columns_of_one_name_are_an_error(bring) -> None:
    with pytest.raises(InputError, match="two columns are called 'sku'"):
        bring(orders="sku," + HEADER + "tea," + GOOD)


def test_unknown_columns_are_said_to_be_ignored(bring) -> None:
    said = bring(orders=HEADER.strip() + ",till,mood\n" + GOOD.strip() + ",3,fine\n")
    assert "orders: orders.csv: ignored columns till, mood" in said


def test_a_file_that_is_not_there_is_an_error(bring, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        bring(orders=tmp_path / "nowhere.csv")


def test_without_any_orders_nothing_can_be_imported(bring) -> None:
    with pytest.raises(InputError, match="no orders are known yet"):
        bring(stock="sku,on_hand\ntea,1\n")


def test_unknown_and_foreign_currencies_are_rejected(bring, ask) -> None:
    head = HEADER.strip() + ",currency\n"
    bring(orders=head + "".join(f"o{n},2024-05-31,tea,1,1.99,{code}\n" for n, code in enumerate(["eur", "USD", "E"])))
    assert reasons(ask) == [(2, "other_currency"), (3, "unknown_currency")]


def test_a_folder_and_a_glob_hold_many_files_of_both_kinds(settings: Settings, tmp_path: Path, ask) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "orders"
    folder.mkdir()
    (folder / "a.csv").write_text(HEADER + GOOD)
    rows = {"order_id": [7], "ordered_at": ["2024-06-01"], "sku": [12], "quantity": [1.5], "unit_price": [0.1 + 0.2]}
    pq.write_table(pa.table(rows), folder / "b.parquet")
    import_files.run(settings, {"orders": str(folder)}, None, lambda _: None, regions_from_data=False)
    found = "select order_id, sku, net_cents, source from sales_lines order by source"
    expected = [
        {"order_id": "o1", "sku": "tea", "net_cents": 398, "source": "a.csv"},
        {"order_id": "7", "sku": "12", "net_cents": 45, "source": "b.parquet"},
    ]
    assert ask(found) == expected
    import_files.run(settings, {"orders": str(folder / "*.c*")}, None, lambda _: None, regions_from_data=False)
    assert ask(found) == expected


def test_numbers_of_parquet_that_are_none_are_rejected(settings: Settings, tmp_path: Path, ask) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"order_id": [1, 2], "ordered_at": ["2024-06-01"] * 2, "sku": [1, 1], "quantity": [1.0, float("inf")]}
    pq.write_table(pa.table({**rows, "unit_price": [float("nan"), 1.0]}), tmp_path / "orders.parquet")
    import_files.run(settings, {"orders": str(tmp_path / "orders.parquet")}, None, print, regions_from_data=False)
    assert reasons(ask) == [(1, "bad_number"), (2, "bad_number")]


def test_the_same_file_twice_makes_no_new_version(bring, settings: Settings) -> None:
    files = {
        "orders": HEADER + GOOD + line(order_id="o2", quantity="x"),
        "catalog": "sku,title\ntea,Tea\n",
        "customers": "customer_id,consents,age\nc,email;ads,40\n",
    }
    bring(**files)
    before = lake.versions(settings, [*files_of(settings)])
    bring(**files)
    assert lake.versions(settings, [*files_of(settings)]) == before


def files_of(settings: Settings) -> list[str]:
    return sorted(path.name for path in Path(settings.lake_root).iterdir())


def test_orders_brought_again_are_replaced_whole_and_others_kept(bring, ask, settings: Settings) -> None:
    bring(orders=HEADER + line(order_id="a") + line(order_id="a", sku="milk") + line(order_id="b"))
    version = DeltaTable(lake.uri(settings, "sales_lines")).version()
    bring(orders=HEADER + line(order_id="a", sku="jam") + line(order_id="c"))
    assert ask("select order_id, sku from sales_lines order by all") == [
        {"order_id": "a", "sku": "jam"},
        {"order_id": "b", "sku": "tea"},
        {"order_id": "c", "sku": "tea"},
    ]
    assert DeltaTable(lake.uri(settings, "sales_lines")).version() == version + 1


def test_an_order_whose_date_was_corrected_leaves_its_old_month(bring, ask) -> None:
    bring(orders=HEADER + line(order_id="a", ordered_at="2024-05-31") + line(order_id="b", ordered_at="2024-05-31"))
    bring(orders=HEADER + line(order_id="a", ordered_at="2024-06-01"))
    assert ask("select order_id, month from sales_lines order by all") == [
        {"order_id": "a", "month": "2024-06"},
        {"order_id": "b", "month": "2024-05"},
    ]


def test_rejected_rows_of_a_source_are_replaced_by_its_next_import(bring, ask) -> None:
    bring(orders=HEADER + GOOD + line(quantity="x"))
    bring(orders=HEADER + GOOD)
    assert reasons(ask) == []


def test_a_million_lines_come_in(settings: Settings, tmp_path: Path, ask) -> None:
    path = tmp_path / "orders.csv"
    months = [f"2024-{month:02}-15" for month in range(1, 13)]
    with path.open("w") as file:
        file.write(HEADER)
        file.writelines(f"o{n // 4},{months[n // 4 % 12]},s{n % 5000},1,1.25\n" for n in range(1_000_000))
    import_files.run(settings, {"orders": str(path)}, None, lambda _: None, regions_from_data=False)
    assert ask("select count(*) as n, sum(net_cents) as net, count(distinct order_id) as orders from sales_lines") == [
        {"n": 1_000_000, "net": 125_000_000, "orders": 250_000}
    ]
