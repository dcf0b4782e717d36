"""Free the space of rows that nothing needs any more; never of what a release that may be shown again came from.

Delta's own VACUUM knows of no releases: tables that a release names are made such that it leaves what is younger than a
year (`lake.KEPT`), so that only this removes more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from pyarrow import fs

from tandem.errors import TandemError
from tandem.release import GONE
from tandem.settings import Settings
from warehouse import lake, ledger
from warehouse.tables import FREED

Needed = dict[int, set[str]]
"""Version of a table to the releases that came from it."""


def needed(settings: Settings) -> dict[str, Needed]:
    """By table: the versions that some region's release, current, backup or on its way, came from."""
    found: dict[str, Needed] = defaultdict(lambda: defaultdict(set))
    for row in ledger.latest(settings):
        if row["state"] not in GONE:
            for table, version in ledger.versions(row).items():
                found[table][version].add(row["release_id"])
    return found


def run(
    settings: Settings, names: Iterable[str], say: Callable[[str], object], *, hours: int, delete: bool = False
) -> int:
    """Say, or with `delete` do, what can be removed of the tables `names` (none: of all); gives the number of files.

    Files stay that the newest version has, that a release needs, and that were in use in the last `hours`. Raises
    TandemError for any other table.
    """
    kept = needed(settings)
    chosen = list(names) or [name for name in FREED if lake.exists(settings, name)]
    for name in chosen:
        if name not in FREED:
            raise TandemError(f"there is no table {name} to free space of; there are {', '.join(FREED)}")
    return sum(_freed(settings, name, kept.get(name, {}), say, hours, delete=delete) for name in chosen)


def _freed(
    settings: Settings, name: str, kept: Needed, say: Callable[[str], object], hours: int, *, delete: bool
) -> int:
    table = lake.open_table(settings, name)
    system = fs.PyFileSystem(DeltaStorageHandler(lake.uri(settings, name), lake.storage_options(settings)))
    found = _removable(table, system, kept, hours)
    if delete:
        for path in found:
            system.delete_file(path)
    stays = ", ".join(f"{version} ({', '.join(sorted(releases))})" for version, releases in sorted(kept.items()))
    size = f"{len(found)} files ({sum(found.values()) / 1e6:.1f} MB)"
    done = "removed" if delete else "could be removed"
    say(f"{name}: {size} {done}; kept for releases: version {stays or 'none'}")
    return len(found)


def _removable(table: DeltaTable, system: fs.FileSystem, kept: Needed, hours: int) -> dict[str, int]:
    """Path to bytes. delta-rs only says which: removing them itself it would make two versions of the table."""
    unneeded = table.vacuum(
        retention_hours=hours,
        enforce_retention_duration=False,
        full=True,  # what lies there and no version names was left by a build that was killed
        keep_versions=sorted(kept) or None,
    )
    there = {each.path: each.size for each in system.get_file_info(fs.FileSelector("", recursive=True)) if each.is_file}
    return {path: there[path] for path in unneeded if path in there}
