"""Readable titles for products that have only a type and a size: `CANDY BARS (SINGLES)(INCLUDING` is a `Candy bar`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

WHOLE_TYPES = {
    "SFT DRNK 2 LITER BTL CARB INCL": "Soft drink, bottle",
    "SFT DRNK SNGL SRV BTL CARB (EX": "Soft drink, single bottle",
    "SFT DRNK MLT-PK BTL CARB (EXCP": "Soft drink, pack of bottles",
    "SOFT DRINKS 12/18&15PK CAN CAR": "Soft drink cans",
    "SOFT DRINKS 20PK&24PK CAN CARB": "Soft drink cans, large pack",
    "SOFT DRINKS 6PK/4PK CAN CARB (": "Soft drink cans, small pack",
    "SOFT DRINKS CAN NON-CARB (EXCE": "Still drink cans",
    "FLUID MILK WHITE ONLY": "Milk",
    "YOGURT NOT MULTI-PACKS": "Yogurt",
    "YOGURT MULTI-PACKS": "Yogurt multipack",
    "MAINSTREAM WHEAT/MULTIGRAIN BR": "Wheat or multigrain bread",
    "MAINSTREAM WHITE BREAD": "White bread",
    "BEERALEMALT LIQUORS": "Beer, ale or malt liquor",
    "IWS SINGLE CHEESE": "Wrapped cheese slices",
    "NON-IWS SINGLE CHEESE": "Cheese slices",
    "NATURAL CHEESE EXACT WT CHUNKS": "Natural cheese chunk",
    "DAIRY CASE 100% PURE JUICE - O": "Chilled orange juice",
    "DAIRY CASE JUICE DRNK UNDER 10": "Chilled juice drink",
    "DAIRY CASE FRUIT DRINKS (NO JU": "Chilled fruit drink",
    "CANDY BARS (SINGLES)(INCLUDING": "Candy bar",
    "CANDY BARS (MULTI PACK)": "Candy bars, multipack",
    "SGL SV/VEND MACH SNACKS CHIP/P": "Single-serve chips or pretzels",
    "SS ECONOMY ENTREES/DINNERS ALL": "Economy dinner for one",
    "FRZN SS PREMIUM ENTREES/DNRS/N": "Frozen premium dinner for one",
    "FRZN SS PREMIUM ENTREES/DNRS/T": "Frozen premium dinner for one",
    "CANNED CAT FOOD (9 LIVES/FRISK": "Canned cat food",
    "RTS SOUP: CHUNKY/HOMESTYLE ET": "Ready-to-serve chunky soup",
    "BUTTER SPRAY CRACKER (RITZ/CLU": "Butter crackers",
    "SEMI-SOLID SALAD DRESSING MAY": "Mayonnaise dressing",
    "MEXICAN SAUCESSALSAPICANTEE": "Mexican sauce or salsa",
    "BABY FOOD JUNIOR ALL BRANDS": "Baby food, junior",
    "SNACK CRACKERS (CHEEZ-ITS/GOL": "Snack crackers",
    "BEANS GREEN: FS/WHL/CUT": "Green beans",
    "TOMATOES: STEWED/DICED/CRMD": "Tomatoes, stewed, diced or creamed",
    "EGGS - X-LARGE": "Eggs, extra large",
    "PEPPERS GREEN BELL": "Green bell peppers",
    "CARROTS MINI PEELED": "Mini carrots, peeled",
    "HEAD LETTUCE": "Head lettuce",
    "GRAPES RED": "Red grapes",
    "GRAPES WHITE": "White grapes",
    "ONIONS SWEET (BULK&BAG)": "Sweet onions",
    "ONIONS YELLOW (BULK&BAG)": "Yellow onions",
    "ONIONS OTHER": "Onions",
    "POTATOES RUSSET (BULK&BAG)": "Russet potatoes",
    "TOMATOES GRAPE": "Grape tomatoes",
    "TOMATOES HOTHOUSE ON THE VINE": "Tomatoes on the vine",
    "TOMATOES VINE RIPE BULK": "Vine-ripe tomatoes",
    "APPLES GALA (BULK&BAG)": "Gala apples",
    "SW GDS:DONUTS": "Donuts",
    "SALAD BAR FRESH FRUIT": "Fresh fruit from the salad bar",
    "BROCCOLI WHOLE&CROWNS": "Broccoli",
    "REGULAR GARDEN": "Garden salad",
    "ORANGES NAVELS ALL": "Navel oranges",
    "SPAGHETTI DRY": "Spaghetti",
    "NON-CRBNTD DRNKING/MNERAL WATE": "Still drinking or mineral water",
    "PNT BTR/JELLY/JAMS": "Peanut butter, jelly or jam",
}
"""Frequent types that the source cut off or packed too tightly for any rule."""

WORDS = {
    "ASSTD": "assorted",
    "BISC": "biscuits",
    "BKD": "baked",
    "BRD": "bread",
    "BRST": "breast",
    "BTL": "bottle",
    "BTR": "butter",
    "CARB": "carbonated",
    "CHIX": "chicken",
    "CHOC": "chocolate",
    "CHKN": "chicken",
    "CND": "canned",
    "COMB": "combination",
    "CONC": "concentrate",
    "CRBNTD": "carbonated",
    "CRM": "cream",
    "DINR": "dinner",
    "DNNRS": "dinners",
    "DNR": "dinner",
    "DNRS": "dinners",
    "DPS": "dips",
    "DRNK": "drink",
    "DRNKS": "drinks",
    "DRNKING": "drinking",
    "DRNKNG": "drinking",
    "DRSNG": "dressing",
    "DSH": "dishes",
    "FD": "food",
    "FDS": "foods",
    "FEM": "feminine",
    "FLAV": "flavored",
    "FLVR": "flavor",
    "FLVRD": "flavored",
    "FRD": "fried",
    "FRSH": "fresh",
    "FRZ": "frozen",
    "FRZN": "frozen",
    "GDS": "goods",
    "GRND": "ground",
    "HYGN": "hygiene",
    "INCL": "including",
    "JCE": "juice",
    "LIQ": "liquid",
    "LIQS": "liqueurs",
    "LOZNG": "lozenges",
    "LRG": "large",
    "MISC": "miscellaneous",
    "MLK": "milk",
    "MLT": "multi",
    "MNERAL": "mineral",
    "MNRL": "mineral",
    "MXS": "mixes",
    "NDL": "noodle",
    "PK": "pack",
    "PKG": "package",
    "PKGD": "packaged",
    "PKT": "packet",
    "PLSTC": "plastic",
    "PNCH": "punch",
    "PNT": "peanut",
    "PREP": "prepared",
    "PREM": "premium",
    "PROD": "products",
    "PRPCK": "prepacked",
    "PWDR": "powder",
    "PWDRS": "powders",
    "REFRG": "refrigerated",
    "REFRGRATD": "refrigerated",
    "REFRIG": "refrigerated",
    "REFIGERATED": "refrigerated",
    "RTS": "ready-to-serve",
    "RTE": "ready-to-eat",
    "SALD": "salad",
    "SEAS": "seasonal",
    "SFT": "soft",
    "SGL": "single",
    "SNDWCH": "sandwich",
    "SNGL": "single",
    "SPECILATY": "specialty",
    "SPLY": "supplies",
    "SPRD": "spread",
    "SRV": "serving",
    "SS": "single-serve",
    "SUP": "supplies",
    "SV": "serving",
    "SW": "sweet",
    "VEG": "vegetables",
    "W/": "with",
    "W/O": "without",
    "WAT": "water",
    "WHL": "whole",
    "WHT": "white",
    "SAUS": "sausage",
    "XMAS": "Christmas",
    "CHILDRENS": "children's",
    "WATE": "water",
    "WT": "weight",
    "XPCTRNT": "expectorant",
    "&": "and",
}
"""What the source's abbreviations stand for."""

KEPT_UPPER = {"BBQ", "DVD", "DXM", "IQF", "PSE", "TV", "UPC", "USA"}

QUALIFIERS = {
    "ANGUS",
    "AUTHENTIC",
    "CHOICE",
    "ECONOMY",
    "ENHANCED",
    "LEAN",
    "MAINSTREAM",
    "NATURAL",
    "ORGANIC",
    "OTHER",
    "PREMIUM",
    "PRIMAL",
    "REGULAR",
    "SELECT",
    "SMOKED/COOKED",
    "SPECIALTY",
    "SUPER PREMIUM",
    "TRADITIONAL",
    "VALUE",
}
"""Types that say how, not what: the category says what."""

UNITS = {
    "OZ": "oz",
    "LB": "lb",
    "CT": "count",
    "ML": "ml",
    "L": "l",
    "LT": "l",
    "GA": "gallon",
    "GAL": "gallon",
    "QT": "quart",
    "PT": "pint",
    "IN": "in",
    "PK": "pack",
    "DZ": "dozen",
    "CTN": "carton",
    "SQ": "sq",
    "FT": "ft",
    "GM": "g",
    "BU": "bushel",
    "EA": "each",
}

MOST_POUNDS_ON_A_SHELF = 10


def title(product_type: str | None, category: str | None, size: str | None, *, fallback: str) -> str:
    """A product's name with its size: `title("POTATO CHIPS", "BAG SNACKS", "5 OZ")` gives `Potato chips, 5 oz`."""
    named = _name(product_type, category) or fallback
    measured = readable_size(size) if size else ""
    return f"{named}, {measured}" if measured else named


def shown(name: str, notes: Sequence[str]) -> str:
    """`name (note, note)`."""
    return f"{name} ({', '.join(notes)})" if notes else name


def shelf_size(department: str | None, size: str | None) -> str | None:
    """The size, unless it is that of the case which fruit and vegetables come in: no shopper buys 40 lb of bananas."""
    if department != "PRODUCE" or size is None:
        return size
    weight = re.fullmatch(r"(\d+) LB", size)
    is_case = int(weight[1]) > MOST_POUNDS_ON_A_SHELF if weight else re.fullmatch(r"[\d-]+ CT", size) is not None
    return None if is_case else size


@cache
def _name(product_type: str | None, category: str | None) -> str:
    if product_type in QUALIFIERS and category:
        qualifier = readable(str(product_type))
        return f"{qualifier} {_lowered(readable(category))}"
    return readable(product_type or "") or readable(category or "")


def _lowered(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


@cache
def readable(source: str) -> str:
    """The source's capitals as a phrase: abbreviations written out, what was cut off left away."""
    if source in WHOLE_TYPES:
        return WHOLE_TYPES[source]
    text = re.sub(r"\([^()]*\)", " ", source)
    text = re.sub(r"\([^)]*$", " ", text)
    text = re.sub(r"\s+-\s*|\s*-\s+|\s*:\s*", ", ", text.replace("&", " & "))
    words = [_word(word) for word in re.split(r"(\s+|/|,|-)", text)]
    phrase = re.sub(r"\s+", " ", "".join(words)).replace(" ,", ",").strip(" ,-/&.")
    phrase = re.sub(r"\s*/\s*", " or ", phrase, count=1) if phrase.count("/") == 1 else phrase
    return phrase[:1].upper() + phrase[1:]


def _word(word: str) -> str:
    upper = word.rstrip(".")
    if upper in WORDS:
        return WORDS[upper]
    return upper if upper in KEPT_UPPER else word.lower()


@cache
def readable_size(size: str) -> str:
    """`1/2 GAL` as `1/2 gallon`, `.5 OZ` as `0.5 oz`, `12 PK/12 OZ` as `12 pack, 12 oz`."""
    text = re.sub(r"\([^)]*\)?", "", size)
    text = re.sub(r"(?<![\d.])\.(\d)", r"0.\1", text)
    text = re.sub(r"(?<=[A-Z])/", ", ", text)
    return re.sub(r"[A-Z]+", lambda found: UNITS.get(found.group(), found.group().lower()), text).strip()
