"""All cases, in order."""

from __future__ import annotations

from appswitch.xds.conformance import cases_sotw

CASES = cases_sotw.CASES
