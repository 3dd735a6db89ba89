"""What a case came to.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from appswitch.xds.conformance.script import Case


class Verdict(Enum):
    """On one case."""

    PASSED = "pass"
    FAILED = "FAIL"
    NOT_APPLICABLE = "n/a"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case's verdict."""

    case: Case
    verdict: Verdict
    detail: str = ""
    """What was wrong, why it is not applicable, or what was not looked at."""
    seconds: float = 0.0
