"""`python -m tandem.cli`: the command `tandem`."""

import sys

from tandem.cli.group import main

if __name__ == "__main__":
    sys.exit(main())
