"""A quote: an offer signed so that checkout can trust it without asking who made it (HMAC-SHA256, RFC 2104)."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from typing import Literal

import msgspec

from tandem.errors import ConfigError
from tandem.money import allocate

Fault = Literal["malformed", "unknown_key", "altered", "expired", "wrong_region", "used", "shared"]

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_encode = msgspec.json.Encoder().encode


class QuotedComponent(msgspec.Struct, frozen=True, array_like=True):
    sku: str
    quantity: int
    offer_price: int
    """All `quantity` units, minor units."""

    @property
    def return_values(self) -> list[int]:
        """What each unit is worth when it is sent back, minor units: they sum to `offer_price`."""
        return allocate(self.offer_price, [1] * self.quantity)


class Quote(msgspec.Struct, frozen=True, array_like=True):
    """What is signed: everything checkout needs to charge."""

    key_id: str
    region: str
    segment: str
    release: str
    bundle_id: str
    currency: str
    components: tuple[QuotedComponent, ...]
    offer_total: int
    expires_at: int
    """Seconds since 1970, UTC; the quote holds until and not including this second."""
    nonce: str
    """Of a quote that was made for one asker, and may be used up; empty for one that is the same for all who ask."""


class QuoteFault(Exception):
    """A token that must not be honoured; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault: Fault = fault


class Signer:
    """Signs with the first key, verifies with any, so that keys rotate without a gap."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        if not keys:
            raise ConfigError("TANDEM_QUOTE_KEYS names no key; give id:secret")
        self._keys = {key_id: Mac(key) for key_id, key in keys.items()}
        self.key_id = next(iter(keys))
        self._decode = msgspec.json.Decoder(Quote).decode

    @classmethod
    def from_text(cls, text: str) -> Signer:
        """Keys from `id:secret,id:secret`. Raises ConfigError for a secret under 16 characters."""
        keys: dict[str, bytes] = {}
        for number, part in enumerate(filter(None, (part.strip() for part in text.split(","))), 1):
            key_id, _, secret = part.partition(":")
            if not key_id or len(secret) < 16:
                raise ConfigError(f"TANDEM_QUOTE_KEYS: key {number} is not id:secret with 16 or more characters")
            if key_id in keys:
                raise ConfigError(f"TANDEM_QUOTE_KEYS: key {number} has the id {key_id!r} of one before it")
            keys[key_id] = secret.encode()
        return cls(keys)

    def sign(self, quote: Quote) -> str:
        """`quote` as a token: base64url(JSON) `.` base64url(MAC). Its `key_id` must be this signer's."""
        return _token(_encode(quote), self._keys[quote.key_id]).decode()

    def draft(self, quote: Quote) -> Draft:
        """For quotes that differ from `quote` in prices, expiry and nonce alone. Its `key_id` must be this signer's."""
        return Draft(quote, self._keys[quote.key_id])

    def verify(self, token: str, *, region: str, now: float) -> Quote:
        """The quote in `token`. Raises QuoteFault where it is malformed, altered, expired or another region's."""
        body, dot, mac = token.partition(".")
        try:
            quote = self._decode(_bytes(body))
            given = _bytes(mac)
        except (binascii.Error, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise QuoteFault("malformed") from error
        if not dot or _base64(given) != mac.encode():
            raise QuoteFault("malformed")
        key = self._keys.get(quote.key_id)
        if key is None:
            raise QuoteFault("unknown_key")
        if not hmac.compare_digest(key.of(body.encode()), given):
            raise QuoteFault("altered")
        if quote.region != region:
            raise QuoteFault("wrong_region")
        if now >= quote.expires_at:
            raise QuoteFault("expired")
        return quote


class Draft:
    """What the quotes of one bundle have in common, written down once."""

    __slots__ = ("_mac", "_text")

    def __init__(self, quote: Quote, mac: Mac) -> None:
        named = quote.key_id, quote.region, quote.segment, quote.release, quote.bundle_id, quote.currency
        parts = [b"[%b,%d,%%d]" % (_escaped(_encode(part.sku)), part.quantity) for part in quote.components]
        self._text = b'%b,[%b],%%d,%%d,"%%b"]' % (_escaped(_encode(named)[:-1]), b",".join(parts))
        self._mac = mac

    def sign(self, offer_prices: Sequence[int], expires_at: int, nonce: str) -> bytes:
        """As `Signer.sign` the quote with these offer prices, one for each component, and this nonce of `nonce`'s."""
        return _token(self._text % (*offer_prices, sum(offer_prices), expires_at, nonce.encode()), self._mac)


class Mac:
    """HMAC-SHA256 with one key, whose two hashes are begun once: to begin them costs more than the rest."""

    def __init__(self, key: bytes) -> None:
        block = hashlib.sha256().block_size
        padded = (key if len(key) <= block else hashlib.sha256(key).digest()).ljust(block, b"\0")
        self._inner, self._outer = (hashlib.sha256(bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))

    def of(self, text: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.digest()


def nonce() -> str:
    """96 random bits as 16 characters."""
    return _base64(secrets.token_bytes(12)).decode()


def _token(body: bytes, mac: Mac) -> bytes:
    text = _base64(body)
    return b"%b.%b" % (text, _base64(mac.of(text)))


def _escaped(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


def _base64(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
