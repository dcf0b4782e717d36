"""The storefront's own files, as they lie in the folder."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from cdn.store import CONTENT_TYPES, SHOP_FILES
from warehouse.symbols import image_url

FILES = sorted(path for path in SHOP_FILES.rglob("*") if path.is_file())
SYMBOLS = sorted((SHOP_FILES / "symbols").glob("*.svg"))
DEPARTMENTS = """GROCERY, DRUG GM, PRODUCE, MEAT-PCKGD, MEAT, DELI, PASTRY, NUTRITION, FUEL, SEAFOOD-PCKGD, SALAD BAR,
MISCELLANEOUS, COSMETICS, FLORAL, SEAFOOD, SPIRITS, CHEF SHOPPE, GARDEN CENTER, TRAVEL & LEISURE, COUPON, RESTAURANT,
FROZEN GROCERY, GM MERCH EXP, AUTOMOTIVE, PHOTO & VIDEO, CNTRL/STORE SUP, POSTAL CENTER, PROD-WHS SALES, TOYS,
ELECT &PLUMBING, HOUSEWARES, CHARITABLE CONT"""


@pytest.mark.parametrize("department", [*re.split(r",\s+", DEPARTMENTS), None])
def test_every_department_of_the_demo_data_has_a_symbol(department: str | None) -> None:
    assert (SHOP_FILES / image_url(department)).is_file()


@pytest.mark.parametrize("path", SYMBOLS, ids=lambda path: path.stem)
def test_a_symbol_is_a_small_drawing_with_a_title_and_nothing_that_runs(path: Path) -> None:
    drawing = ET.parse(path).getroot()
    assert drawing.get("viewBox") == "0 0 64 64"
    assert drawing[0].tag.endswith("title")
    tags = {node.tag.rpartition("}")[2] for node in drawing.iter()}
    assert tags <= {"svg", "title", "g", "path", "circle", "ellipse", "rect"}
    assert path.stat().st_size < 2_000


def test_every_file_has_a_content_type_of_its_own() -> None:
    assert {path.suffix for path in FILES} <= CONTENT_TYPES.keys()


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(", text), path.name


def test_every_module_and_every_file_that_is_named_exists() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        named = re.findall(r'from "\./([^"]+)"', text) + re.findall(r'(?:src|href)="([\w./-]+)"', text)
        assert [name for name in named if not (SHOP_FILES / name).is_file()] == [], path.name


def test_titles_never_become_markup() -> None:
    for path in SHOP_FILES.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", path.read_text("utf-8")
        )


def test_the_page_is_small() -> None:
    code = sum(path.stat().st_size for path in FILES if path.suffix != ".svg")
    assert code < 76_000, f"{code} bytes before compression"
