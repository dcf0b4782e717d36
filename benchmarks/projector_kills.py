"""A projector killed (-9) again and again while changes come: what was lost, what came twice, how long it took.

`python -m benchmarks.projector_kills --kills 100`. The state must equal a reference, every record be read once, and no
change be in the stream that edges read twice.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._streams_world import flowing, killed_at_work, until
from benchmarks.streams import servers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.3, help="that it works before it is killed, at most")
    options = parser.parse_args()
    chance, started = random.Random(1), time.monotonic()
    with tempfile.TemporaryDirectory() as made, servers(Path(made)) as held, held.world() as world:
        projecting = world.projecting()
        with flowing(world):
            for _ in range(options.kills):
                killed_at_work(world, projecting, chance.uniform(0, options.seconds))
                projecting.start()
        sent = len(world.sent)
        until(lambda: sum(world.places().values()) >= sent)
        read, right = sum(world.places().values()), world.arrived()
        doubled = sum(times > 1 for times in world.counted().values())
    print(
        f"{options.kills} kills in {time.monotonic() - started:.0f} s: {sent} sent, {read} read, {doubled} doubled, "
        f"state {'equal to the reference' if right else 'WRONG'}"
    )
    return 0 if right and read == sent and not doubled else 1


if __name__ == "__main__":
    sys.exit(main())
