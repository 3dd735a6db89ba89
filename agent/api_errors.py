"""Errors to HTTP statuses and to stable words, and back to exceptions in the client.

`ax get` imports this: nothing heavy here.
"""

from __future__ import annotations

from typing import Final

from appswitch import errors

_TABLE: Final[tuple[tuple[type[errors.AppSwitchError], str, int], ...]] = (
    (errors.InvalidInput, "invalid", 400),
    (errors.UsageError, "usage", 400),
    (errors.NotFound, "not-found", 404),
    (errors.Conflict, "conflict", 409),
    (errors.Unavailable, "unavailable", 503),
    (errors.Unsupported, "unsupported", 501),
    (errors.Denied, "denied", 403),
    (errors.Exhausted, "exhausted", 507),
    (errors.AppSwitchError, "error", 500),
)
"""Subclasses before their bases: the first that fits counts."""

_HINTS: Final = {
    ("GET", errors.NotFound): "`ax get apps` and `ax get vservices` list what there is",
    ("GET", errors.Denied): "use http://127.0.0.1:PORT",
}


def status_of(error: errors.AppSwitchError) -> int:
    """HTTP status of an error."""
    return next(status for kind, _, status in _TABLE if isinstance(error, kind))


def word_of(error: errors.AppSwitchError) -> str:
    """The `error` field: what programs compare."""
    return next(word for kind, word, _ in _TABLE if isinstance(error, kind))


def hint_for(method: str, error: errors.AppSwitchError) -> str:
    """What to do next, or nothing."""
    return _HINTS.get((method, type(error)), "")


def exception_for(word: str, message: str) -> errors.AppSwitchError:
    """The exception that `word_of` named, so that `ax` exits with its code."""
    for kind, known, _ in _TABLE:
        if known == word:
            return kind(message)
    return errors.AppSwitchError(message)
