"""Conditions of access policies in words.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from appswitch.policy import ALWAYS, NEVER, Condition, ConditionKind, simplified


def words(condition: Condition) -> str:
    """A condition for people, e.g. `port 7000 and (source 10.0.0.0/8 or 9.9.9.9/32) and not principal .*`."""
    return _text(simplified(condition))


def _text(condition: Condition) -> str:
    if condition == ALWAYS:
        return "always"
    if condition == NEVER:
        return "never"
    match condition.kind:
        case ConditionKind.ALL:
            return " and ".join(_inside(part, ConditionKind.ANY) for part in _flat(condition))
        case ConditionKind.ANY:
            return " or ".join(_alternatives(condition))
        case ConditionKind.NOT if condition.parts:
            return f"not {_inside(condition.parts[0], ConditionKind.ALL, ConditionKind.ANY)}"
    return " ".join(_leaf(condition))


def _inside(part: Condition, *bracketed: ConditionKind) -> str:
    return f"({_text(part)})" if part.kind in bracketed else _text(part)


def _flat(condition: Condition) -> Iterator[Condition]:
    """Its parts, and theirs where they are of the same kind."""
    for part in condition.parts:
        if part.kind is condition.kind:
            yield from _flat(part)
        else:
            yield part


def _alternatives(condition: Condition) -> Iterator[str]:
    """The first of a row of the same kind names it."""
    for kind, parts in groupby(_flat(condition), key=lambda part: part.kind):
        if kind in (ConditionKind.ALL, ConditionKind.NOT):
            yield from (_inside(part, ConditionKind.ALL) for part in parts)
        else:
            leaves = [_leaf(part) for part in parts]
            yield f"{leaves[0][0]} {' or '.join(value for _, value in leaves)}"


def _leaf(condition: Condition) -> tuple[str, str]:
    """What is looked at, and what it must be."""
    match condition.kind:
        case ConditionKind.SOURCE | ConditionKind.DESTINATION if condition.network is not None:
            return condition.kind.value, str(condition.network)
        case ConditionKind.PORT if condition.first == condition.last:
            return "port", str(condition.first)
        case ConditionKind.PORT:
            return "port", f"{condition.first}-{condition.last}"
        case ConditionKind.PRINCIPAL | ConditionKind.UNKNOWN:
            return condition.kind.value, condition.pattern
    return "unknown", condition.kind.value
