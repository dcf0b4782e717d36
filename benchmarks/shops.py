"""Does the ranking hold in shops that it was not made with? The protocol of `tandem evaluate` on other shops' baskets.

`make bench-shops ARGS="FOLDER [--json FILE]"`. FOLDER has some of these public files, whose licences keep them from
being given on with Tandem:

- retail.dat: a Belgian supermarket, 88,162 baskets (Brijs, Swinnen, Vanhoof & Wets, KDD 1999; in the FIMI repository)
- BreadBasket_DMS.csv: a bakery in Edinburgh, 9,465 baskets
- Groceries_dataset.csv: a grocer's 3,898 members over two years, 14,963 baskets of a day

None of them tells categories or prices, and two tell no customers, so that only what orders say is left to rank by.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.kernels import baselines, history, judged, protocol, ranker
from spark_jobs.kernels.protocol import Measure
from tandem.rules import Learning, Ranking

SHOPS = {
    "retail.dat": """
        SELECT NULL::VARCHAR AS customer, (n // 900)::INT AS day, list_distinct(string_split(trim(line), ' ')) AS skus
        FROM (SELECT line, row_number() OVER () - 1 AS n FROM read_csv(
            $file, columns = {'line': 'VARCHAR'}, delim = '\t', header = false, quote = '', parallel = false))""",
    "BreadBasket_DMS.csv": """
        SELECT NULL::VARCHAR AS customer, date_diff('day', DATE '1970-01-01', min("Date"))::INT AS day,
            list(DISTINCT Item) AS skus
        FROM read_csv($file) WHERE Item <> 'NONE' GROUP BY "Transaction" """,
    "Groceries_dataset.csv": """
        SELECT member AS customer, date_diff('day', DATE '1970-01-01', try_strptime(date, '%d-%m-%Y'))::INT AS day,
            list(DISTINCT item) AS skus
        FROM read_csv($file, header = false, columns = {'member': 'VARCHAR', 'date': 'VARCHAR', 'item': 'VARCHAR'})
        WHERE day IS NOT NULL GROUP BY member, day""",
}
"""File to its orders: customer, day and skus. retail.dat is in the order of time; 900 baskets are taken for a day."""
TOLD = ("hit@5", "tail@5", "ndcg@10")


def measured(orders: pa.Table) -> list[Measure]:
    """Every ranking's measures; the ranker is learned from the first 80 % of days, as the job `ranking` does."""
    learning, ranking = Learning(), Ranking()
    held = history.history(orders, _unknown(orders))
    cut = protocol.first_asked_day(pc.unique(orders["day"]).sort().to_numpy())
    before = held.orders.where(held.orders.day < cut)
    model = ranker.train(before, held.catalogue, min_orders=protocol.MIN_ORDERS)
    return list(
        judged.judged(
            "*",
            held,
            cut,
            model,
            damping=learning.popularity_damping,
            tail_weight=ranking.weight_of_tail,
            frontier=(0.0,),
            rank=True,
            more=baselines.BASELINES,
        )
    )


def _unknown(orders: pa.Table) -> pa.Table:
    """A catalogue that knows nothing of the products but their names."""
    skus = pc.unique(pc.list_flatten(orders["skus"]))
    nothing = {name: pa.nulls(len(skus), kind) for name, kind in (("category", pa.string()), ("brand", pa.string()))}
    return pa.table({"sku": skus, **nothing, "price": pa.nulls(len(skus), pa.float64()), "worth": pa.nulls(len(skus))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found: dict[str, list[Measure]] = {}
    for name, sql in SHOPS.items():
        if (file := asked.folder / name).is_file():
            orders = duckdb.sql(sql, params={"file": str(file)}).to_arrow_table()
            found[name] = measured(orders)
            _tell(name, len(orders), found[name])
    if not found:
        print(f"none of {', '.join(SHOPS)} is in {asked.folder.resolve()}: give the folder that has them")
    if asked.json:
        asked.json.write_text(json.dumps({name: [each._asdict() for each in rows] for name, rows in found.items()}))


def _tell(name: str, orders: int, rows: list[Measure]) -> None:
    values = {}
    for row in rows:
        metric, _, ranking = row.metric.removeprefix("frontier_").partition("/")
        values[ranking, metric] = row

    def told(ranking: str, metric: str) -> str:
        row = values[ranking, metric]
        return f"{metric} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"

    rankings = [ranking for ranking, metric in values if metric == TOLD[0]]
    rankings.sort(key=lambda each: -values[each, TOLD[0]].value)
    print(f"\n{name}: {orders:,} baskets, {values[rankings[0], TOLD[0]].queries:,} questions")
    for ranking in rankings:
        print(f"{ranking:<16}" + "  ".join(told(ranking, metric) for metric in TOLD))


if __name__ == "__main__":
    main()
