"""A bucket in a real S3-compatible server."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from email.message import Message
from typing import Any

import pytest

from cdn.store import ObjectStore

Get = Callable[[str], tuple[bytes, Message]]


@pytest.fixture
def store(object_store: Any) -> ObjectStore:
    """The bucket of the run's server, with the right to write."""
    found = ObjectStore(object_store.store, object_store.access_key, object_store.secret_key, "us-east-1")
    found.ensure_bucket()
    return found


@pytest.fixture
def get(object_store: Any) -> Get:
    """What anyone gets, without a key: body and headers."""

    def fetch(key: str) -> tuple[bytes, Message]:
        with urllib.request.urlopen(f"{object_store.store.public_url}/{key}", timeout=10) as answer:
            return answer.read(), answer.headers

    return fetch
