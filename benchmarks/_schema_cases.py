"""Questions that an OpenAPI document allows or forbids, sent to its service; every answer is held to the document."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = (
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
NDJSON = "application/x-ndjson"
SLOW_SECONDS = 2.0


@schemathesis.serializer(NDJSON)
def as_lines(_: Any, value: Any) -> bytes:
    """Bodies of one object a line: a list is its lines, anything else one."""
    lines = value if isinstance(value, list) else [value]
    return b"\n".join(json.dumps(line).encode("utf-8", "surrogatepass") for line in lines)


class Slow(Exception):
    """An answer took longer than SLOW_SECONDS: a question that hangs."""


def of_edge(url: str, sku: str) -> dict[str, str]:
    """Path parameters that lead somewhere at an edge that has bundles for `sku`."""
    (first, *_) = requests.get(f"{url}/v1/north/bundles/{sku}").json()["bundles"]
    return {"region": "north", "sku": sku, "id": first["id"]}


class Cases:
    """Sends cases to the service at `url`, with `key`. `known` are path parameters that lead somewhere: each case is
    sent as it was made up, and with these, one by one.
    """

    def __init__(self, url: str, key: str, known: Mapping[str, str]) -> None:
        self._known = known
        self._document = schemathesis.openapi.from_dict(_lines_told(requests.get(f"{url}/openapi.json").json()))
        self._url, self._key = url, key
        self._session = requests.Session()
        self.statuses: Counter[tuple[str, int]] = Counter()

    def run(self, cases: int, random_seed: int) -> None:
        """At least `cases` of them, a like share for each route that can be asked for more than one thing. Raises what
        a check raises, and Slow.
        """
        operations = [each.ok() for each in self._document.get_all_operations()]
        share = cases // (2 * sum("{" in each.path for each in operations)) + 1
        wanted = sum(self.statuses.values()) + cases
        while sum(self.statuses.values()) < wanted:
            for operation in operations:
                self._run(operation, share if "{" in operation.path else 1, random_seed)
            random_seed += 1

    def _run(self, operation: Any, cases: int, random_seed: int) -> None:
        modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
        strategy = strategies.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])

        @seed(random_seed)
        @settings(
            max_examples=cases,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def ask(case: Any) -> None:
            self._ask(case)
            for name in sorted(self._known.keys() & (case.path_parameters or {}).keys(), reverse=True):
                case.path_parameters[name] = self._known[name]
                self._ask(case)

        _called(ask)

    def _ask(self, case: Any) -> None:
        started = time.perf_counter()
        response = case.call(base_url=self._url, session=self._session, headers={"X-Tandem-Key": self._key})
        taken = time.perf_counter() - started
        self.statuses[case.operation.label, response.status_code] += 1
        if taken > SLOW_SECONDS:
            raise Slow(f"{case.as_curl_command()} took {taken:.1f} s")
        case.validate_response(response, checks=CHECKS)


def _called(test: Callable[[], None]) -> None:
    test()


def _lines_told(document: dict[str, Any]) -> dict[str, Any]:
    """The document with bodies of one object a line as lists of these objects, which generators understand."""
    for methods in document["paths"].values():
        for operation in methods.values():
            content = operation.get("requestBody", {}).get("content", {})
            if NDJSON in content:
                content[NDJSON]["schema"] = {"type": "array", "items": content[NDJSON]["schema"]["x-line"]}
                content[NDJSON].pop("example")
    return document
