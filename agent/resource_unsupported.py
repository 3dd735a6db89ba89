"""What REST answers and `ax get unsupported` shows: what Istiod asks for and is not done.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def since(rows: Iterable[Row], before: Mapping[Row, float], now: float) -> dict[Row, float]:
    """When each row was first there; `now` for those that were not there before."""
    return {row: before.get(row, now) for row in rows}


def views(rows: Mapping[Row, float], now: float) -> list[UnsupportedView]:
    """In the order of `rows`."""
    return [
        UnsupportedView(
            field=field, resource=resource, object=made_from, instead=instead, seconds=max(now - begun, 0.0)
        )
        for (field, resource, made_from, instead), begun in rows.items()
    ]
