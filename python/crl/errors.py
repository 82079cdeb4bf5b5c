"""The errors a user meets. Each message says what, what was expected, what came, and how to mend it."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A setting that cannot be: the command line answers with exit code 2."""


class CheckpointError(RuntimeError):
    """A run or checkpoint that cannot be read or written: exit code 1."""


class RankError(RuntimeError):
    """Another process of a run on several failed, or they lost each other: exit code 1."""


class MissingExtraError(ImportError):
    """A part of `crl` whose optional dependencies are not installed: exit code 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint naming the known names closest to `name`: " Did you mean 'a' or 'b'?", or "" when none is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
