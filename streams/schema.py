"""The topics and messages as an AsyncAPI 3 document with their JSON Schemas, made from their declarations."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from streams.messages import MESSAGES, Message
from streams.topics import DEAD_LETTERS, TOPICS, Topic

VERSION = "1.0.0"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFUSED = "refused"
"""The message on the dead letters."""
REFUSED_HEADERS = ("topic", "partition", "offset", "reason")


def asyncapi() -> str:
    """The document, as JSON text: what docs/streams.asyncapi.json holds."""
    _, schemas = msgspec.json.schema_components(MESSAGES.values(), ref_template="#/components/schemas/{name}")
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tandem's streams",
            "version": VERSION,
            "description": "Made from streams/messages.py and streams/topics.py by `tandem streams schema`.",
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in TOPICS.values()},
        "operations": {f"send-{topic.name}": _operation(topic) for topic in TOPICS.values()},
        "components": {
            "messages": {**{each.type: _message(each) for each in MESSAGES.values()}, REFUSED: _refused()},
            "schemas": schemas,
        },
    }
    return json.dumps(document, indent=2) + "\n"


def json_schema(kind: str) -> str:
    """The JSON Schema of one type's values. Raises KeyError for a type that is not there."""
    return json.dumps({"$schema": DIALECT, **msgspec.json.schema(MESSAGES[kind])}, indent=2) + "\n"


def table() -> str:
    """The topics as the table of docs/streams.md."""
    rows = [
        (
            f"`{topic.name}`",
            topic.key,
            ", ".join(f"`{each.type}`" for each in topic.messages) or "whatever was refused",
            str(topic.partitions),
            f"{topic.retention_hours // 24} days",
            topic.cleanup,
        )
        for topic in TOPICS.values()
    ]
    head = ("topic", "key", "messages", "partitions", "kept", "cleanup")
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _channel(topic: Topic) -> dict[str, Any]:
    names = [each.type for each in topic.messages] or [REFUSED]
    numbers = {name: int(value) if value.lstrip("-").isdigit() else value for name, value in topic.config.items()}
    config = {**numbers, "cleanup.policy": topic.cleanup.split(",")}
    return {
        "address": topic.name,
        "description": f"{topic.says}. Key: {topic.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": {"partitions": topic.partitions, "topicConfiguration": config}},
    }


def _operation(topic: Topic) -> dict[str, Any]:
    return {"action": "send", "channel": {"$ref": f"#/channels/{topic.name}"}}


def _message(shape: type[Message]) -> dict[str, Any]:
    return {
        "name": shape.type,
        "summary": (shape.__doc__ or "").strip(),
        "headers": _headers({"type": {"const": shape.type}, "version": {"const": str(shape.version)}}),
        "payload": {"$ref": f"#/components/schemas/{shape.__name__}"},
    }


def _refused() -> dict[str, Any]:
    return {
        "name": REFUSED,
        "summary": DEAD_LETTERS.says,
        "headers": _headers({name: {"type": "string"} for name in REFUSED_HEADERS}),
        "payload": {"description": "As it came"},
    }


def _headers(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
