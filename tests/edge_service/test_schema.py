"""What the OpenAPI document allows and forbids, two thousand times: no answer but those that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks._schema_cases import Cases, of_edge
from tests.edge_service.conftest import DELTA_KEY
from tests.edge_service.test_server import configured, serving

__all__ = ["configured"]
pytestmark = [pytest.mark.servers]

CASES = 2_000


def test_every_answer_is_one_that_the_document_names(configured: Path) -> None:
    """`make bench-edge_fuzz` asks a hundred thousand."""
    with serving(configured, "--region", "north") as (server, client):
        cases = Cases(str(client.base_url), DELTA_KEY, of_edge(str(client.base_url), "tea"))
        cases.run(CASES, random_seed=20261123)
        assert sum(cases.statuses.values()) >= CASES
        routes = {label for label, _ in cases.statuses}
        answered = {label for label, status in cases.statuses if status < 300}
        assert answered == routes, "every route was asked something that it could answer"
        assert client.get("/v1/north/bundles/tea").status_code == 200
        assert "Traceback" not in server.log.read_text()
