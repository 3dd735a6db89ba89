"""All cases, in order."""

from __future__ import annotations

from appswitch.xds.conformance import (
    cases_absence,
    cases_answers,
    cases_apply,
    cases_content,
    cases_delta,
    cases_faulty,
    cases_requests,
    cases_stream,
)

CASES = tuple(
    sorted(
        (
            *cases_requests.CASES,
            *cases_answers.CASES,
            *cases_absence.CASES,
            *cases_faulty.CASES,
            *cases_apply.CASES,
            *cases_delta.CASES,
            *cases_stream.CASES,
            *cases_content.CASES,
        ),
        key=lambda case: case.id,
    )
)
