"""The document of the streams is current and whole, and says of a message what its reader says."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner

from streams import messages, schema, topics
from tandem.cli import main
from tests.streams.test_messages import CHANGE

PAGE = Path(__file__).parents[2] / "docs" / "streams.asyncapi.json"


def test_the_document_is_current() -> None:
    """Mend with: tandem streams schema > docs/streams.asyncapi.json."""
    assert PAGE.read_text(encoding="utf-8") == schema.asyncapi()
    assert CliRunner().invoke(main, ["streams", "schema"]).output == schema.asyncapi()


def test_every_reference_in_the_document_leads_somewhere() -> None:
    document = json.loads(schema.asyncapi())

    def follow(node: object) -> int:
        if isinstance(node, dict):
            if isinstance(where := node.get("$ref"), str):
                found = document
                for part in where.removeprefix("#/").split("/"):
                    found = found[part]
                return 1
            return sum(map(follow, node.values()))
        return sum(map(follow, node)) if isinstance(node, list) else 0

    assert follow(document) > len(topics.TOPICS)


def test_every_message_lies_on_one_topic() -> None:
    placed = [shape for topic in topics.TOPICS.values() for shape in topic.messages]
    assert sorted(shape.type for shape in placed) == sorted(messages.MESSAGES)
    assert topics.topic_of(CHANGE) is topics.INVENTORY


@pytest.mark.parametrize("kind", messages.MESSAGES)
def test_each_type_has_a_schema_that_lets_later_fields_through(kind: str) -> None:
    found = json.loads(CliRunner().invoke(main, ["streams", "schema", "--type", kind]).output)
    jsonschema.Draft202012Validator.check_schema(found)
    assert "additionalProperties" not in json.dumps(found)


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    checked = jsonschema.Draft202012Validator(json.loads(schema.json_schema("stock-changed")))
    told = msgspec.to_builtins(CHANGE)
    assert checked.is_valid(told)
    assert checked.is_valid({**told, "warehouse": "w1"})
    for change in ({"stock": -1}, {"sku": ""}, {"sequence": 0}, {"region": None}):
        assert not checked.is_valid({**told, **change})


def test_an_unknown_type_is_one_line() -> None:
    found = CliRunner().invoke(main, ["streams", "schema", "--type", "nothing"])
    assert (found.exit_code, found.output.splitlines()[0][:40]) == (1, "Error: --type nothing: is no message; kn")
