"""All cases, in order."""

from __future__ import annotations

from appswitch.xds.conformance import cases_apply, cases_content, cases_delta, cases_sotw, cases_stream

CASES = tuple(
    sorted(
        (
            *cases_sotw.CASES,
            *cases_apply.CASES,
            *cases_delta.CASES,
            *cases_stream.CASES,
            *cases_content.CASES,
        ),
        key=lambda case: case.id,
    )
)
