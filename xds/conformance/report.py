"""What a run came to: a table for people, JUnit for machines.  Pure."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from appswitch.xds.conformance.verdict import Outcome, Verdict

TITLE = 54
"""Characters of a case's title in a line."""
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def line(outcome: Outcome) -> str:
    """One row of the table."""
    title = textwrap.shorten(outcome.case.title, TITLE, placeholder="…")
    text = f"{outcome.case.id}  {outcome.verdict.value:<4}  {outcome.seconds:5.1f} s  {title:<{TITLE}}"
    return f"{text}  {_readable(outcome.detail)}".rstrip()


def summary(outcomes: Sequence[Outcome]) -> str:
    """The table's last line."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    return (
        f"{counts[Verdict.PASSED]} passed, {counts[Verdict.FAILED]} failed, "
        f"{counts[Verdict.NOT_APPLICABLE]} not applicable"
    )


def junit(outcomes: Sequence[Outcome], client: str) -> str:
    """A JUnit report; `client`: its command line."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    suite = ElementTree.Element(
        "testsuite",
        name="xds-conformance",
        tests=str(len(outcomes)),
        failures=str(counts[Verdict.FAILED]),
        skipped=str(counts[Verdict.NOT_APPLICABLE]),
        errors="0",
        time=f"{sum(outcome.seconds for outcome in outcomes):.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", name="client", value=_clean(client))
    for outcome in outcomes:
        test = ElementTree.SubElement(
            suite,
            "testcase",
            classname="xds-conformance",
            name=f"{outcome.case.id} {outcome.case.title}",
            time=f"{outcome.seconds:.3f}",
        )
        if outcome.verdict is Verdict.FAILED:
            ElementTree.SubElement(test, "failure", message=_clean(outcome.detail))
        elif outcome.verdict is Verdict.NOT_APPLICABLE:
            ElementTree.SubElement(test, "skipped", message=_clean(outcome.detail))
        elif outcome.detail:
            ElementTree.SubElement(test, "system-out").text = _clean(outcome.detail)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _readable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _clean(text: str) -> str:
    """Without what XML cannot hold."""
    return _NO_XML.sub("\ufffd", text)
