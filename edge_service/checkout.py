"""What checkout asks: may this quote be honoured, and is it the first to use it?"""

from __future__ import annotations

from edge_service.questions import VerifyQuestion
from edge_service.region_reader import RegionReader
from tandem.quote import Quote, QuoteFault, Signer


async def verified(question: VerifyQuestion, signer: Signer, reader: RegionReader, now: float) -> Quote:
    """The quote, used up where asked. Raises QuoteFault, and Unavailable where a use can't be noted down.

    `now` in seconds since 1970.
    """
    signed = signer.verify(question.token, region=reader.region.name, now=now)
    if question.once:
        if not signed.nonce:
            raise QuoteFault("shared")
        if not await reader.use_quote(signed.nonce, signed.expires_at - int(now)):
            raise QuoteFault("used")
    return signed
