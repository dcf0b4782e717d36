"""A quote is worth what was signed, for as long as was signed."""

from __future__ import annotations

import hmac
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.errors import ConfigError
from tandem.quote import Mac, Quote, QuotedComponent, QuoteFault, Signer, nonce

OLD, NEW = "old:0123456789abcdef", "new:fedcba9876543210"
SIGNER = Signer.from_text(NEW)
BASE64 = string.ascii_letters + string.digits + "-_.=+/ \n\u00e9"


def quote(key_id: str = "new", expires_at: int = 1_000, total: int = 558) -> Quote:
    part = QuotedComponent("tea", 2, total)
    return Quote(key_id, "north", "*", "r1", "b1", "USD", (part,), total, expires_at, nonce())


def fault_of(signer: Signer, token: str, *, region: str = "north", now: float = 0) -> str | None:
    try:
        signer.verify(token, region=region, now=now)
    except QuoteFault as error:
        return error.fault
    return None


@given(st.text(), st.text(), st.lists(st.tuples(st.text(), st.integers(1, 99), st.integers(0, 2**60))), st.integers(1))
def test_what_was_signed_is_what_is_verified(
    segment: str, release: str, parts: list[tuple[str, int, int]], expires_at: int
) -> None:
    components = tuple(QuotedComponent(*part) for part in parts)
    expires_at = min(expires_at, 2**60)
    signed = Quote("new", "north", segment, release, "b", "USD", components, 1, expires_at, nonce())
    assert SIGNER.verify(SIGNER.sign(signed), region="north", now=0) == signed


@given(st.text(), st.text(), st.lists(st.tuples(st.text(), st.integers(1, 99), st.integers(0, 2**40))), st.text())
def test_a_draft_signs_what_the_signer_does(
    segment: str, bundle_id: str, parts: list[tuple[str, int, int]], given_nonce: str
) -> None:
    made = nonce() if given_nonce else ""
    components = tuple(QuotedComponent(*part) for part in parts)
    prices = [price for _, _, price in parts]
    whole = Quote("new", "north", segment, "r%d", bundle_id, "USD", components, sum(prices), 77, made)
    blank = tuple(QuotedComponent(sku, quantity, 0) for sku, quantity, _ in parts)
    draft = SIGNER.draft(Quote("new", "north", segment, "r%d", bundle_id, "USD", blank, 0, 0, ""))
    assert draft.sign(prices, 77, made).decode() == SIGNER.sign(whole)


@given(st.data())
def test_no_altered_token_is_accepted(data: st.DataObject) -> None:
    token = SIGNER.sign(quote())
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(BASE64).filter(lambda char: char != token[place]))
    changed = token[:place] + other + token[place + 1 :]
    assert fault_of(SIGNER, changed) in {"altered", "malformed", "unknown_key"}


@given(st.text(max_size=200))
def test_no_text_that_was_not_signed_is_accepted(text: str) -> None:
    assert fault_of(SIGNER, text) is not None


@given(st.integers(0, 400))
def test_no_part_of_a_token_is_accepted(length: int) -> None:
    token = SIGNER.sign(quote())
    if length < len(token):
        assert fault_of(SIGNER, token[:length]) is not None
        assert fault_of(SIGNER, token + token[:length]) is not None or length == 0


def test_a_quote_holds_until_and_not_including_its_second() -> None:
    token = SIGNER.sign(quote(expires_at=1_000))
    assert fault_of(SIGNER, token, now=999.999) is None
    assert fault_of(SIGNER, token, now=1_000) == "expired"


def test_a_quote_is_for_its_region() -> None:
    assert fault_of(SIGNER, SIGNER.sign(quote()), region="south") == "wrong_region"


def test_keys_rotate_without_a_gap() -> None:
    before, between, after = Signer.from_text(OLD), Signer.from_text(f"{NEW},{OLD}"), Signer.from_text(NEW)
    token = before.sign(quote("old"))
    assert between.key_id == "new"
    assert fault_of(between, token) is None
    assert fault_of(after, token) == "unknown_key"


def test_the_same_id_with_another_secret_is_no_valid_signature() -> None:
    other = Signer.from_text("new:another-secret-of-16")
    assert fault_of(other, SIGNER.sign(quote())) == "altered"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no key"),
        ("k1", "key 1 is not id:secret"),
        ("k1:short", "key 1 is not id:secret with 16"),
        (f"{OLD},:0123456789abcdef", "key 2 is not id:secret"),
        (f"{OLD},{OLD}", "key 2 has the id 'old'"),
    ],
)
def test_unusable_keys_are_named_without_telling_them(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        Signer.from_text(text)
    assert "0123456789abcdef" not in str(error.value)


def test_no_nonce_comes_twice() -> None:
    assert len({nonce() for _ in range(10_000)}) == 10_000


def test_a_token_nested_without_end_is_malformed() -> None:
    from base64 import urlsafe_b64encode

    body = urlsafe_b64encode(b'["k1","n","s","r","b","USD",[],1,1,"n",' + b"[" * 100_000).decode().rstrip("=")
    assert fault_of(SIGNER, f"{body}.W10") == "malformed"


@given(st.binary(min_size=16, max_size=200), st.binary(max_size=600))
def test_a_mac_is_what_the_standard_library_says(key: bytes, text: bytes) -> None:
    assert Mac(key).of(text) == hmac.digest(key, text, "sha256")
