"""The page of a day's evaluations: every figure on it, pictures that say what they show, the same bytes twice."""

from datetime import date

import pytest

from tandem.errors import TandemError
from tandem.settings import Settings
from warehouse import report

AS_OF, CUT = date(2024, 5, 1), date(2024, 4, 1)


def rows() -> list[report.Row]:
    found = [
        ("*", "*", "hit@5/ranker", 0.53, 0.52, 0.54, 1000),
        ("*", "*", "hit@5/confidence", 0.5, 0.49, 0.51, 1000),
        ("*", "*", "tail@5/ranker", 0.13, 0.12, 0.14, 1000),
        ("*", "*", "tail@5/confidence", 0.11, 0.1, 0.12, 1000),
        ("*", "*", "frontier_hit@5/ranker@tail=0.4", 0.52, 0.51, 0.53, 1000),
        ("*", "*", "frontier_tail@5/ranker@tail=0.4", 0.14, 0.13, 0.15, 1000),
        ("*", "*", "calibration/bundles@0.1", 0.12, 0.1, 0.14, 90),
        ("*", "fresh", "segment_gain/placebo", 0.008, 0.001, 0.015, 300),
        ("east", "fresh", "profit_gain/fixed_discounts", -9.0, -12.0, -5.0, 300),
        ("*", "*", "hit@5/cold", 0.49, 0.48, 0.5, 90),
        ("east", "*", "click_rate", 0.02, 0.01, 0.03, 50),
    ]
    return [report._row(*row) for row in found]


def test_every_figure_is_on_the_page():
    page = report.page(rows(), AS_OF, CUT)
    for row in rows():
        assert f"<td>{row.measure}<td>{row.subject}<td>{row.at}<td>{row.value:.4g}" in page


def test_each_kind_of_figure_has_its_picture_with_a_description():
    page = report.page(rows(), AS_OF, CUT)
    said = [
        "Every ranking with its interval",
        "Hits against hits in the tail",
        "What each segment gains",
        "Predicted and",
        "Profit that",
    ]
    assert all(f'aria-label="{text}' in page for text in said)
    assert page.count("<svg") == len(said) + 2


def test_the_same_rows_make_the_same_bytes():
    assert report.page(rows(), AS_OF, CUT) == report.page(rows(), AS_OF, CUT)


def test_names_from_data_cannot_write_html():
    hostile = report._row("<script>", "a&b", "hit@5/<img src=x>", 0.1, 0.1, 0.1, 1)
    page = report.page([hostile], AS_OF, CUT)
    assert "<script>" not in page
    assert "<img" not in page


def test_the_page_asks_no_network():
    page = report.page(rows(), AS_OF, CUT)
    assert 'src="http' not in page
    assert "<link" not in page


def test_a_day_without_evaluations_says_what_to_run(settings: Settings):
    with pytest.raises(TandemError, match="tandem evaluate --as-of 2024-05-01"):
        report.write(settings, AS_OF, settings.home / "report.html")
