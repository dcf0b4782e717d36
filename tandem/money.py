"""Money: an integer of minor units and an ISO 4217 currency. Never a float past the door."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, Overflow

_TWO_PLACES = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY "
    "COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR "
    "ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
    "MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
    "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD YER ZAR "
    "ZMW ZWG"
)
_NO_PLACES = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THREE_PLACES = "BHD IQD JOD KWD LYD OMR TND"

EXPONENTS: dict[str, int] = {
    code: places for places, codes in ((2, _TWO_PLACES), (0, _NO_PLACES), (3, _THREE_PLACES)) for code in codes.split()
}
"""Decimal places of each ISO 4217 currency in use."""

BPS = 10_000
"""Basis points in a whole."""


def minor_units(amount: str | Decimal | int, currency: str) -> int:
    """`amount` in major units (as a shop writes it) as minor units, half up.

    Raises ValueError when it is no finite number or the currency is unknown.
    """
    try:
        value = Decimal(amount)
        scaled = value.scaleb(EXPONENTS[currency]).quantize(Decimal(1), rounding=ROUND_HALF_UP)
    except (InvalidOperation, Overflow) as error:
        raise ValueError(f"{amount!r} is not an amount of money") from error
    except KeyError as error:
        raise ValueError(f"{currency!r} is no ISO 4217 currency") from error
    return int(scaled)


def discounted(amount: int, discount_bps: int) -> int:
    """`amount` less `discount_bps` basis points, rounded half up, in minor units."""
    return (amount * (BPS - discount_bps) * 2 + BPS) // (2 * BPS)


def allocate(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` over `weights` by largest remainder: the parts are integers and sum to `total`.

    Ties go to the earlier part, so that the same input always gives the same parts. Weights are not negative;
    where all are zero the split is even. Source: Hamilton's method, Balinski & Young, Fair Representation, 1982.
    """
    if not weights:
        raise ValueError("nothing to allocate to")
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    left, parts, remainders = total, [], []
    for weight in weights:
        share = total * weight
        part = share // whole
        left -= part
        parts.append(part)
        remainders.append(share - part * whole)
    if left == 1:
        parts[remainders.index(max(remainders))] += 1
    elif left:
        for index in sorted(range(len(parts)), key=remainders.__getitem__, reverse=True)[:left]:
            parts[index] += 1
    return parts
