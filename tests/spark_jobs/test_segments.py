"""Segments: planted ones are found, named and kept; only those that help on later orders are published."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from spark_jobs import build, parquet_files, segments, trial
from spark_jobs.cohorts import Counting
from spark_jobs.kernels import cohorts, customers, placebo
from spark_jobs.kernels.protocol import Orders, orders_of
from tandem.segments import EVERYONE
from tandem.settings import Settings
from tests.spark_jobs.small_shop import REGIONS
from tests.spark_jobs.test_customers import packed
from warehouse import lake
from warehouse.tables import TABLES

TASTES, STAPLES, OTHERS, CUSTOMERS, DAYS = 3, 6, 40, 180, 60


def baskets(*, planted: bool, seed: int = 1, days: int = DAYS) -> Iterator[tuple[int, int, list[int]]]:
    """(customer, day, products): each customer's staples are those of a taste (planted), or anyone's; and odd things.

    Product `taste * STAPLES + n` is the n-th staple of a taste, as popular as that of any other taste.
    """
    chance = random.Random(seed)
    for day in range(days):
        for customer in range(CUSTOMERS):
            if chance.random() < 0.3:
                taste = customer % TASTES if planted else chance.randrange(TASTES)
                staples = chance.sample(range(STAPLES), 3)
                odd = chance.sample(range(OTHERS), 3)
                yield customer, day, [*(taste * STAPLES + n for n in staples), *(TASTES * STAPLES + n for n in odd)]


def arrays(rows: list[tuple[int, int, list[int]]]) -> Orders:
    order = np.repeat(np.arange(len(rows)), [len(held) for _, _, held in rows])
    item = np.array([sku for _, _, held in rows for sku in held], np.int32)
    customer, day = (np.array([row[part] for row in rows], np.int32)[order] for part in (0, 1))
    return orders_of(order, item, customer, day, TASTES * STAPLES + OTHERS)


def bought(rows: list[tuple[int, int, list[int]]]) -> Any:
    counts = np.zeros((CUSTOMERS, TASTES * STAPLES + OTHERS))
    for customer, _, held in rows:
        counts[customer, held] += 1
    return counts


def gains(labels: Any, rows: list[tuple[int, int, list[int]]]) -> tuple[float, float, float]:
    """hit@5 of everyone's list, of the segments' and of the placebo's, of labels given."""
    orders = arrays(rows)
    both = np.stack([labels, placebo.shuffled(labels)])
    usual = np.broadcast_to(np.array(placebo.USUAL), (2, TASTES, 2))
    before, after = orders.where(orders.day < 48), orders.where(orders.day >= 48)
    found = placebo.asked(before, after, both, usual[..., :1], usual[..., 1:])
    total = found.queries.sum()
    return (found.everyone.sum() / total, *(found.segments[:, part, 0].sum() / total for part in (0, 1)))


def test_planted_tastes_are_found_and_help_and_a_placebo_does_not():
    rows = list(baskets(planted=True))
    points = cohorts.points(bought([row for row in rows if row[1] < 48]))
    centres, _ = cohorts.fit(points, TASTES, smallest=20)
    found = cohorts.assign(points, centres, np.full(CUSTOMERS, -1, np.int32), 0.0)
    assert all(len(set(found[taste::TASTES])) == 1 for taste in range(TASTES))
    assert len(set(found)) == TASTES
    everyone, mine, shuffled = gains(found, rows)
    assert mine > everyone + 0.02
    assert shuffled < everyone + 0.005


def test_a_customers_own_orders_are_taken_off_what_answers_them():
    # One customer in a segment of one: what is left of the segment is its prior, so both lists agree.
    rows = [(0, day, [0, 1]) for day in range(60)] + [(n, day, [0, 2, 3, 4, 5, 6]) for day in range(60) for n in (1, 2)]
    rows.sort(key=lambda row: row[1])
    orders = arrays(rows)
    alone = np.array([[0, -1, -1]], np.int32)
    one = np.full((1, 1, 1), 100.0)
    found = placebo.asked(orders.where(orders.day < 48), orders.where(orders.day >= 48), alone, one, one / 100)
    assert found.customer.tolist() == [0]
    assert (found.queries[0], found.everyone[0], found.segments[0, 0, 0]) == (24, 12, 12)


def test_the_same_customers_give_the_same_centres_and_too_few_give_none():
    points = cohorts.points(bought(list(baskets(planted=True))))
    first, again = (cohorts.fit(points, 5, smallest=20)[0] for _ in range(2))
    assert np.array_equal(first, again)
    assert len(cohorts.fit(points, 5, smallest=CUSTOMERS)[0]) == 0
    nearest = cohorts.distances(points, first).argmin(1)
    assert np.bincount(nearest).min() >= 20


def test_centres_keep_their_names_in_another_order_and_with_more_days():
    rows = list(baskets(planted=True))
    before, _ = cohorts.fit(cohorts.points(bought([row for row in rows if row[1] < 55])), TASTES, smallest=20)
    after, _ = cohorts.fit(cohorts.points(bought(rows)), TASTES, smallest=20, start=before[::-1])
    assert cohorts.match(after, before).tolist() == [2, 1, 0]
    labels = [f"taste {sku // STAPLES}" if sku < TASTES * STAPLES else "odd" for sku in range(before.shape[1])]
    named = cohorts.names(before, labels)
    assert sorted(named) == ["taste-0", "taste-1", "taste-2"]
    assert cohorts.names(after, labels) == named[::-1]
    assert cohorts.match(before[:2] * 0 + 1.0, before).tolist() == [-1, -1], "what is nowhere near is new"


def test_names_are_told_apart_cut_between_words_and_never_taken_twice():
    centres = np.array([[0.9, 0.1, 0.2], [0.1, 0.9, 0.2], [0.3, 0.3, 0.2]])
    assert cohorts.names(centres, ["Fresh > Milk", "Ale & Lager", "Ale & Lager"], ["ale-lager"])[0] == "fresh-milk"
    assert len(set(cohorts.names(centres, ["x", "x", "x"], ["cohort-1"]))) == 3
    assert cohorts.slug("Refrigerated juices and other soft drinks") == "refrigerated-juices-and-other"
    assert len(cohorts.slug("w" * 50)) == 32


def test_a_customer_near_a_border_stays_and_one_who_changed_goes():
    centres = np.array([[1.0, 0.0], [0.0, 1.0]])
    points = np.sqrt(np.array([[0.49, 0.51], [0.1, 0.9], [0.49, 0.51], [0.0, 0.0]]))
    before = np.array([0, 0, -1, -1], np.int32)
    assert cohorts.assign(points, centres, before, 0.05).tolist() == [0, 1, 1, -1]
    assert cohorts.assign(points, centres, before, 0.0).tolist() == [1, 1, 1, -1]


@pytest.mark.parametrize("labels", [[None, None], ["a", None], ["a", "b"]])
def test_a_shop_with_hardly_any_orders_decides_nothing(labels: list[str | None]):
    nobody = pa.array([None, None], pa.string())
    known = pa.table(
        {
            "customer_id": ["c0", "c1"] * 2,
            "_before": pa.array([20, 20, 25, 25], pa.int32()),
            "segment": [label or EVERYONE for label in labels] * 2,
            **{when: pa.concat_arrays([nobody, nobody]) for when in ("tuned", "judged")},
        }
    )
    for orders in (1, 30):
        lines = [(f"o{n}", n, ("c0", "c1", None)[n % 3], sku) for n in range(orders) for sku in ("p", "q")]
        held = customers.merged([packed([(*line, 1, 100) for line in lines])])
        decided = trial._decide(trial.asked("north", held, known, (20, 25), 100)).to_pylist()
        assert not any(row["helps"] for row in decided)


SEGMENTS = """
[learned]
count = 3
min_customers = 20
features = 40
[[segment]]
name = "odd-numbers"
where = "odd = '1'"
[[segment]]
name = "wanted"
where = "odd = '2'"
publish = "always"
"""
START = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
DAY = dt.date(2024, 3, 1)


def write(settings: Settings, rows: list[tuple[int, int, list[int]]]) -> None:
    """`rows` as a lake: staples of taste t are of the category `Food > Taste t`."""
    lake.create(settings)
    lines = [
        {
            "region": "north",
            "month": f"{START + dt.timedelta(days=day):%Y-%m}",
            "order_id": f"o{number}",
            "line": line,
            "ordered_at": START + dt.timedelta(days=day),
            "sku": f"p{sku:02}",
            "quantity": 1,
            "unit_price_cents": 100,
            "net_cents": 100,
            "currency": "EUR",
            "customer_id": f"c{customer:03}",
            "source": "test",
        }
        for number, (customer, day, held) in enumerate(rows)
        for line, sku in enumerate(held, 1)
    ]
    products = [
        {
            "sku": f"p{sku:02}",
            "title": f"Product {sku}",
            "category": f"Food > Taste {sku // STAPLES}" if sku < TASTES * STAPLES else "Food > Odd",
            "active": True,
            "source": "test",
        }
        for sku in range(TASTES * STAPLES + OTHERS)
    ]
    customers = [
        {
            "customer_id": f"c{n:03}",
            "consents": [],
            "attributes": [{"name": "odd", "value": str(n // TASTES % 3)}],
            "source": "test",
        }
        for n in range(CUSTOMERS)
    ]
    for name, made in (("sales_lines", lines), ("products", products), ("customers", customers)):
        lake.replace(settings, TABLES[name], pa.Table.from_pylist(made, schema=lake.arrow_schema(TABLES[name])))


@pytest.fixture(scope="module")
def tastes(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("tastes")
    (folder / "config").mkdir()
    region = REGIONS.format(
        name="north", purposes="[]", redis="redis://127.0.0.1:1/0", endpoint="http://127.0.0.1:1", k=3
    )
    (folder / "config" / "regions.toml").write_text(region, encoding="utf-8")
    (folder / "config" / "segments.toml").write_text(SEGMENTS, encoding="utf-8")
    settings = Settings(home=folder / "home", config=folder / "config")
    write(settings, list(baskets(planted=True)))
    return settings


def table(settings: Settings, name: str, day: dt.date = DAY) -> list[dict[str, Any]]:
    rows = lake.open_table(settings, name).to_pyarrow_table(filters=[("as_of", "=", day)]).to_pylist()
    return sorted(rows, key=str)


def test_products_are_compared_by_themselves_or_by_their_categories_down_to_a_level(tastes: Settings):
    held = parquet_files.held(tastes, "products")
    found = {
        level: Counting(level, held, (0, 0, 1), 99).features(pa.array(["p00", "p18", "new"])) for level in range(3)
    }
    assert found[0].to_pylist() == ["p00", "p18", "new"]
    assert found[1].to_pylist() == ["Food", "Food", None]
    assert found[2].to_pylist() == ["Food > Taste 0", "Food > Odd", None]


@pytest.mark.spark
def test_a_build_publishes_the_segments_that_help_and_keeps_names_and_members(
    spark: Any, tastes: Settings, job_of: Callable[[Settings], Any]
):
    write(tastes, [row for row in baskets(planted=True) if row[1] < 57])
    build.run_job(spark, tastes, "segments", DAY - dt.timedelta(days=3))
    write(tastes, list(baskets(planted=True)))
    build.run_job(spark, tastes, "segments", DAY)
    # Tastes are found, named by what is bought, and the three days more change nothing.
    members = {row["customer_id"]: row["segment"] for row in table(tastes, "segment_members")}
    assert len(members) == CUSTOMERS
    assert sorted(set(members.values())) == ["taste-0", "taste-1", "taste-2"]
    assert all(members[f"c{n:03}"] == f"taste-{n % TASTES}" for n in range(CUSTOMERS))
    earlier = table(tastes, "segment_members", DAY - dt.timedelta(days=3))
    assert {row["customer_id"]: row["segment"] for row in earlier} == members
    models = table(tastes, "segment_models")
    assert {(row["segment"], row["slice"]) for row in models} >= {("taste-0", "tuned"), ("taste-2", "judged")}
    assert {row["predecessor"] for row in models} == {DAY - dt.timedelta(days=3)}
    # They help and are published; a predicate at random is not, but where it is forced.
    decided = {(row["region"], row["segment"], row["kind"]): row for row in table(tastes, "segment_decisions")}
    for taste in range(TASTES):
        row = decided["north", f"taste-{taste}", "learned"]
        assert row["helps"]
        assert row["published"]
        assert row["gain_low"] > 0 < row["placebo_gain_low"]
    assert not decided["north", "odd-numbers", "predicate"]["helps"]
    assert not decided["north", "odd-numbers", "predicate"]["published"]
    assert decided["north", "wanted", "predicate"]["published"]
    assert decided["north", "*", "policy"]["gain_low"] > 0
    job = job_of(tastes)
    assert {row.segment for row in segments.published(job).collect()} == {"taste-0", "taste-1", "taste-2", "wanted"}
    metrics = {(row.segment, row.metric): row for row in segments.evaluated(job)}
    assert metrics["taste-0", "segment_gain/placebo"].low > 0
    assert metrics["taste-0", "published/segment"].value == 1
    assert metrics["odd-numbers", "published/segment"].value == 0
    assert metrics["*", "gain/policy"].low > 0
    # A rerun is the same to the last digit, though a later build's rows lie beside its own.
    before = {name: table(tastes, name) for name in ("segment_members", "segment_models", "segment_decisions")}
    build.run_job(spark, tastes, "segments", DAY)
    assert {name: table(tastes, name) for name in before} == before


def test_random_segments_are_hardly_ever_published():
    rows = list(baskets(planted=False))
    orders = arrays(rows)
    helped = 0
    for seed in range(20):
        labels = placebo.shuffled(np.arange(CUSTOMERS, dtype=np.int32) % TASTES, seed)
        asked = placebo.asked(
            orders.where(orders.day < 48),
            orders.where(orders.day >= 48),
            np.stack([labels, placebo.shuffled(labels, 100 + seed)]),
            np.full((2, TASTES, 1), 300.0),
            np.full((2, TASTES, 1), 0.5),
        )
        found = pa.table(
            {
                "region": ["north"] * len(asked.customer),
                "segment": [str(labels[customer]) for customer in asked.customer],
                "customer": [f"c{customer:03}" for customer in asked.customer],
                "queries": asked.queries,
                "everyone": asked.everyone,
                "mine": asked.segments[:, 0, 0],
                "shuffled": asked.segments[:, 1, 0],
                "weight": np.full(len(asked.customer), 300.0),
                "tilt": np.full(len(asked.customer), 0.5),
            }
        )
        helped += sum(bool(row["helps"]) for row in trial._judged(found, "learned") if row["segment"] != "*")
    assert helped <= 2, "60 random segments in a region and in all"
