"""What spark-submit runs: one job, for one day."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date

from spark_jobs import build, session
from tandem import settings as settings_file
from tandem.errors import TandemError, Unavailable

AGAIN, WRONG = 1, 2
"""Exit codes: a server could not be reached, which may pass; the input is wrong, and stays so until it is mended."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=[*build.JOBS, "stage", "catch-up"])
    parser.add_argument("--as-of", type=date.fromisoformat, required=True)
    parser.add_argument("--inputs", type=json.loads, help="JSON: Delta version of each fact table; default: the newest")
    parser.add_argument("--region", help="for stage and catch-up")
    options = parser.parse_args()
    settings = settings_file.from_environment()
    try:
        spark = session.submitted(settings, f"tandem {options.job} {options.as_of} {options.region or ''}".strip())
    except TandemError as error:
        return _said(error)
    try:
        if options.job == "stage":
            build.stage(settings, options.as_of, options.region, print, spark=spark)
        elif options.job == "catch-up":
            build.catch_up(settings, [options.region], print, spark=spark)
        else:
            build.run_job(spark, settings, options.job, options.as_of, options.inputs)
    except TandemError as error:
        return _said(error)
    finally:
        spark.stop()
    return 0


def _said(error: TandemError) -> int:
    print(f"tandem: {error}", file=sys.stderr)  # noqa: T201 - spark-submit's caller reads this
    return AGAIN if isinstance(error, Unavailable) else WRONG


if __name__ == "__main__":
    sys.exit(main())
