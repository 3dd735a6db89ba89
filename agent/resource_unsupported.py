"""What REST answers and `ax get unsupported` shows: what Istiod asks for and is not done.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class UnsupportedView(msgspec.Struct, frozen=True, kw_only=True):
    """One field of one resource."""

    field: str
    """Proto path below the resource, e.g. `cluster.outlier_detection`."""
    resource: str
    """Name of the resource, with the virtual host or route where there is one."""
    object: str
    """Of Istio, that asks for it, as `KIND NAMESPACE/NAME`; empty where Istiod does not say."""
    instead: str
    """What happens instead, or the value that was asked for."""
    seconds: float
    """How long it has been so, as far as this daemon knows."""


Row = tuple[str, str, str, str]
"""Field, resource, object, instead."""


class Changed(msgspec.Struct, frozen=True):
    """How all of it differs from before."""

    whole: bool
    """What is not in `put` is not there: somebody else may have told of other rows before."""
    put: tuple[Row, ...] = ()
    gone: tuple[Row, ...] = ()


def apply(changed: Changed, rows: dict[Row, float], now: float) -> None:
    """Change `rows`, which say when each was first there; `now` for those that were not there before."""
    put = set(changed.put)
    for row in [row for row in rows if row not in put] if changed.whole else changed.gone:
        rows.pop(row, None)
    for row in put:
        rows.setdefault(row, now)


def views(rows: Mapping[Row, float], now: float) -> list[UnsupportedView]:
    """By field, resource and the rest."""
    return [
        UnsupportedView(
            field=field, resource=resource, object=made_from, instead=instead, seconds=max(now - begun, 0.0)
        )
        for (field, resource, made_from, instead), begun in sorted(rows.items())
    ]
