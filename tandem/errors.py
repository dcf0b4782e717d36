"""The errors a person sees. Each message names what is wrong and what to do next."""

from __future__ import annotations


class TandemError(Exception):
    """Something a person can mend; its message is printed as one line, without a traceback."""


class ConfigError(TandemError):
    """A setting or a configuration file is wrong: the message names the file, the key and the mend."""


class InputError(TandemError):
    """Data that was brought is wrong as a whole (a single bad row goes to `rejected_rows` instead)."""


class Unavailable(TandemError):
    """A server that is needed right now cannot be reached."""
