"""What is installed is looked at: pinned with hashes, under licences that allow it, and little at an edge."""

from __future__ import annotations

import pytest

from deploy import review

LOCK = (review.ROOT / "requirements.lock").read_text(encoding="utf-8")
HASH = " \\\n    --hash=sha256:" + "0" * 64 + "\n"


def test_every_package_is_pinned_with_hashes_and_its_licence_allows_it() -> None:
    packages = review.locked(LOCK)
    assert len(packages) == LOCK.count("==") > 150
    assert review.faults(packages) == []


def test_an_edge_installs_less_than_twenty_packages_and_no_spark() -> None:
    small = review.edge()
    assert {"fastapi", "uvicorn", "msgspec", "redis"} <= small
    assert len(small) < 20
    assert not small & {"pyspark", "apache-airflow", "pandas", "numpy", "pyarrow", "opentelemetry-sdk"}


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("a==1\n", "not one version with its hashes: 'a==1'"),
        ("a>=1" + HASH, "not one version with its hashes: 'a>=1"),
        ("a==1" + HASH + "b\n", "not one version with its hashes: 'b'"),
        ("a @ https://example.org/a.whl" + HASH, "an address stands in the lock file"),
    ],
)
def test_a_lock_that_pins_less_is_refused(lock: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        review.locked(lock)


@pytest.mark.parametrize(
    "told", ["GPL-3.0-only", "GNU General Public License v3 (GPLv3)", "AGPL-3.0 OR X", "SSPL-1.0", ""]
)
def test_a_licence_that_asks_for_too_much_or_says_nothing_is_named(told: str) -> None:
    assert review.wrong_licence(told)


@pytest.mark.parametrize("told", ["MIT", "LGPL-2.1", "MIT OR GPL-2.0", "MPL-2.0", "GPL-2.0 WITH Classpath-exception"])
def test_a_licence_that_leaves_what_uses_it_alone_is_none_of_them(told: str) -> None:
    assert review.wrong_licence(told) == ""
