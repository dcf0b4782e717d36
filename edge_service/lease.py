"""Who may publish to a region: a lease in its Redis, and the fence that every write of its holder carries.

A lease alone does not stop a publisher that slept past its end: it does not know that it slept. Hence the fence, a
number that grows with every grant: whatever writes a release's keys compares it with the newest one granted and is
refused with an older one, in one step (Kleppmann, "How to do distributed locking", 2016). The fence is at least
Redis's own clock in ms, so that it grows on even where Redis lost everything; no publisher's clock has a say in it.
A grant waits for the replicas: should one of them take over, it knows the newest publisher.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from edge_service.region_scripts import GIVE_BACK, KEEP, TAKE
from edge_service.region_store import FENCE, LEASE, RegionStore
from tandem.errors import Unavailable
from tandem.regions import Region

SECONDS = 15.0
"""How long a lease lasts without being kept: what a rerun waits at most for a publisher that was killed."""
POLL_SECONDS = 0.2

Say = Callable[[str], object]


class Held(Unavailable):
    """Another publisher is at work in the region."""


@contextmanager
def publishing(
    region: Region,
    say: Say,
    *,
    seconds: float = SECONDS,
    wait_seconds: float | None = None,
    take_over: bool = False,
) -> Iterator[RegionStore]:
    """The region's Redis as its only publisher; the lease is kept while the body runs and given back after it.

    Waits for another holder (default: a little longer than a dead one's lease lasts), then raises Held. With
    `take_over` nobody is waited for: whoever publishes now is refused from here on. Raises Unavailable.
    """
    with RegionStore(region) as plain:
        wait = seconds + 1 if wait_seconds is None else wait_seconds
        fence = _taken(plain, _holder(), seconds, wait, say, take_over=take_over)
        if not plain.replicated():
            say(f"{region.name}: a replica of its Redis lags; should it take over now, it does not know this publisher")
    with RegionStore(region, fence) as store:
        done = threading.Event()
        keeper = threading.Thread(
            target=_keep, args=(store, fence, seconds, done), name=f"lease of {region.name}", daemon=True
        )
        keeper.start()
        try:
            yield store
        finally:
            done.set()
            keeper.join()
            with suppress(Unavailable):  # it ends by itself
                store.script(GIVE_BACK, [LEASE, FENCE], [fence])


def _holder() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()} process {os.getpid()} {secrets.token_hex(4)}"


def _taken(store: RegionStore, holder: str, seconds: float, wait: float, say: Say, *, take_over: bool) -> int:
    end, told = time.monotonic() + wait, False
    while True:
        answer = store.script(TAKE, [LEASE, FENCE], [holder, int(seconds * 1000), "force" if take_over else "wait"])
        outcome, value = (part.decode() for part in answer)
        if outcome == "granted":
            return int(value)
        if time.monotonic() >= end:
            raise Held(f"region {store.region.name} is being published to by {value}; try again when that is done")
        if not told:
            say(f"{store.region.name}: waiting for {value}, which publishes here")
            told = True
        time.sleep(POLL_SECONDS)


def _keep(store: RegionStore, fence: int, seconds: float, done: threading.Event) -> None:
    """Keep the lease until `done`, or until another has it: then every write of ours is refused, and says so."""
    while not done.wait(seconds / 3):
        with suppress(Unavailable):
            if store.script(KEEP, [LEASE, FENCE], [fence, int(seconds * 1000)]) == 0:
                return
