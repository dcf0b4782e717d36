"""What the OpenAPI document of the orders' service allows and forbids: no answer but those that it names."""

from __future__ import annotations

import signal
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from benchmarks._schema_cases import Cases
from tandem.clients import SCOPES, Client, hash_of, written
from tests.orders.conftest import TEA_AND_CUPS, quote, stocked
from tests.orders.test_faults import ONE_SERVER, Service

pytestmark = pytest.mark.servers

CASES = 500
KEY = "a-key-for-everything"


@ONE_SERVER
def test_every_answer_is_one_that_the_document_names(dsn: str, tmp_path: Path) -> None:
    stocked(dsn, tea=5, cup=9)
    service = Service(dsn, tmp_path)
    client = Client(name="all", sha256=[hash_of(KEY)], scopes=list(SCOPES))
    (tmp_path / "config" / "clients.toml").write_text(written(client), encoding="ascii")
    service.start()
    try:
        body, headers = {"quotes": [quote(*TEA_AND_CUPS)]}, {"Idempotency-Key": "k"}
        order = httpx.post(f"{service.url}/v1/east/checkout", json=body, headers=headers).json()
        known = {"region": "east", "order_id": order["order_id"], "reservation_id": str(uuid4())}
        cases = Cases(service.url, KEY, known)
        cases.run(CASES, random_seed=20261123)
    finally:
        service.end(signal.SIGTERM)
    statuses = {status for _, status in cases.statuses}
    print(f"{sum(cases.statuses.values())} cases: {sorted(statuses)}")
    assert statuses >= {200, 400, 404, 409, 422}
    assert "Traceback" not in (tmp_path / "orders.log").read_text()
