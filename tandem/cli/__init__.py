"""The command line. Each command reads the settings once and calls the one function that does the work."""

from tandem.cli import edges, facts, flows, jobs, releases, sales
from tandem.cli.group import main

__all__ = ["edges", "facts", "flows", "jobs", "main", "releases", "sales"]
