"""What is installed, looked at without asking anyone: `python -m deploy.review` (`make review`).

Every package of requirements.lock is pinned to one version and to hashes, and no address stands in the file; every
licence is known and none asks that what uses it be given away; an edge stays small. Where pip-audit can reach its
data, `pip-audit --require-hashes -r requirements.lock` tells of known weaknesses besides.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
EDGE_AT_MOST = 19
PINNED = re.compile(
    r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)(?: ?;[^\\]*)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n?"
)
FORBIDDEN = re.compile(r"\b(AGPL|GNU Affero|SSPL|Server Side Public|Commons Clause|BUSL)", re.IGNORECASE)
STRONG = re.compile(r"(?<!L)GPL|GNU General Public", re.IGNORECASE)
OTHERWISE = re.compile(r" OR |Artistic|exception|Mozilla", re.IGNORECASE)
"""Leaves a choice, or asks for less."""
UNTOLD = ("", "UNKNOWN", "Other/Proprietary License")
KNOWN = {"openlineage-sql": "Apache-2.0"}
"""Licences that packages have and do not name in what pip installs: read in their sources."""


class Locked(NamedTuple):
    name: str
    version: str


def locked(text: str) -> list[Locked]:
    """The packages of a lock file. Raises ValueError for a line that pins none, and for an address."""
    if "://" in text:
        raise ValueError("an address stands in the lock file; make lock writes it without any")
    found = [Locked(canonicalize_name(name), version) for name, version, _ in PINNED.findall(text)]
    rest = PINNED.sub("", text).strip()
    if rest:
        raise ValueError(f"not one version with its hashes: {rest.splitlines()[0]!r}; make lock writes it so")
    return found


def licence(package: str) -> str:
    """What the installed package says of its licence, in one line; empty: nothing."""
    told = metadata.metadata(package)
    classifiers = [
        each.rpartition(" :: ")[2] for each in told.get_all("Classifier") or [] if each.startswith("License")
    ]
    first = (told.get("License-Expression") or "; ".join(classifiers) or told.get("License") or "").strip()
    return KNOWN.get(canonicalize_name(package), "") if first in UNTOLD else first.splitlines()[0][:80]


def wrong_licence(told: str) -> str:
    """What is wrong with a licence; empty: nothing."""
    if not told:
        return "names no licence; read its source, and add it to KNOWN"
    if FORBIDDEN.search(told) or (STRONG.search(told) and not OTHERWISE.search(told)):
        return f"{told} asks that what uses it be given away"
    return ""


def installed_with(requirements: Iterable[str]) -> set[str]:
    """The names of all packages that these bring along here."""
    found: set[str] = set()
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        for extra in ["", *asked.extras]:
            if (place := f"{name}[{extra}]") not in found:
                found.add(place)
                told = map(Requirement, metadata.requires(name) or [])
                waiting += [each for each in told if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {each.partition("[")[0] for each in found}


def edge() -> set[str]:
    """The packages of `tandem-bundles[edge]`."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return installed_with([*told["dependencies"], *told["optional-dependencies"]["edge"]])


def faults(packages: list[Locked]) -> list[str]:
    """What is wrong, one line each."""
    said = []
    for name, version in packages:
        try:
            there, told = metadata.version(name), licence(name)
        except metadata.PackageNotFoundError:
            continue  # locked for another platform
        if there != version:
            said.append(f"{name}: {there} is installed, {version} is locked; make environment")
        if wrong := wrong_licence(told):
            said.append(f"{name}: {wrong}")
    small = edge()
    if len(small) > EDGE_AT_MOST:
        said.append(f"an edge installs {len(small)} packages, more than {EDGE_AT_MOST}: {', '.join(sorted(small))}")
    return said


def main() -> int:
    packages = locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    licences: dict[str, list[str]] = {}
    for name, _ in packages:
        try:
            licences.setdefault(licence(name), []).append(name)
        except metadata.PackageNotFoundError:
            continue
    for told, names in sorted(licences.items()):
        print(f"{told or 'none named'}: {', '.join(sorted(names))}")
    print(f"\n{len(packages)} packages, each pinned with hashes; an edge installs {len(edge())} of them")
    said = faults(packages)
    print("\n".join(said), file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
