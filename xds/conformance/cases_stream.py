"""C40 to C44, and C55 to C58: streams that end, servers that are away."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from appswitch.xds.conformance.checks import ack, reopened, settled
from appswitch.xds.conformance.meshes import A1, A2, HTTP, ONE, VIP, WEB
from appswitch.xds.conformance.script import (
    Back,
    Case,
    End,
    Fault,
    Inapplicable,
    Logs,
    Outage,
    See,
    Start,
    delta,
    keeps,
    push,
    says,
    sotw,
)
from appswitch.xds.conformance.transcript import Ended, Opened, Transcript
from appswitch.xds.make import assignment
from appswitch.xds.resources import CDS, EDS, LDS, ORDER, RDS

BEGIN = (Start(), settled(CDS, EDS, LDS))
AT_ONCE = 3.0
"""Seconds within which a client is back where nothing was wrong: jitter, and a machine with other work."""
WORDS = "missing parts in the service node"


def _asked_again(transcript: Transcript) -> str:
    """The first request of each type on the second stream."""
    firsts = []
    for url in (CDS, EDS, LDS, RDS):
        requests = transcript.requests(url, 1)
        if not requests:
            return f"a request for {url} on the new stream"
        firsts.append(requests[0])
    if not transcript.requests(stream=1)[0].node:
        raise Fault("the first request of the new stream has no node.id")
    for first in firsts:
        if first.nonce:
            raise Fault(f"the first request of {first.url} has nonce {first.nonce!r} of another stream")
        version = transcript.responses(first.url, 0)[-1].version
        if first.version != version:
            raise Fault(f"{first.url}: version_info is {first.version!r}, accepted was {version!r}")
    order = [request.url for request in transcript.requests(stream=1) if request.url in ORDER]
    seen = list(dict.fromkeys(order))
    # A type that is asked for when another has come stands later in any case.
    if seen.index(CDS) > seen.index(EDS) or seen.index(LDS) > seen.index(RDS):
        raise Fault(f"asked for in the order {seen}")
    return ""


def _opened(transcript: Transcript) -> list[float]:
    return [entry.at for entry in transcript.entries if isinstance(entry, Opened)]


def _backs_off(transcript: Transcript) -> str:
    """Four streams that fail, and the fifth."""
    times = _opened(transcript)
    if len(times) < 5:
        return f"stream {len(times) + 1}"
    gaps = [after - before for before, after in pairwise(times)][:4]
    pauses = [gap for gap in gaps if gap > 0.1]  # to ask again at once for the server's words is no fault
    text = ", ".join(f"{gap:.2f}" for gap in gaps)
    if len(pauses) < 2 or pauses[-1] < 0.45 or (len(pauses) > 2 and pauses[-1] < 1.5 * pauses[0]):
        raise Fault(f"pauses of {text} s between streams that failed: they do not grow")
    return ""


def _at_once(transcript: Transcript) -> str:
    """The last stream began soon after the one before it ended."""
    times = _opened(transcript)
    ends = [entry.at for entry in transcript.entries if isinstance(entry, Ended)]
    gap = times[-1] - ends[-1]
    if gap > AT_ONCE:
        raise Fault(f"{gap:.1f} s until the next stream, though the last one had worked")
    return ""


def _traps(transcript: Transcript) -> str:
    """What Istiod refuses: it wants text throughout."""
    requests = transcript.requests()
    if not requests:
        return "a request"
    first = requests[0]
    if not first.node.startswith(("sidecar~", "router~", "ztunnel~", "waypoint~")):
        raise Inapplicable(f"its node.id {first.node!r} is not one of Istio's")
    parts = first.node.split("~")
    if len(parts) != 4 or not all(parts):
        raise Fault(f"node.id {first.node!r} has not four parts")
    for key, value in first.metadata.items():
        if (wrong := _wrong(key, value)) is not None:
            raise Fault(wrong)
    return ""


def _wrong(key: str, value: Any) -> str | None:
    if key == "LABELS" and not isinstance(value, dict):
        return f"node.metadata LABELS is {value!r}, no object"
    if isinstance(value, bool):
        return f"node.metadata {key} is the boolean {value}, not text"
    if key == "INSTANCE_IPS" and not isinstance(value, str):
        return f"node.metadata INSTANCE_IPS is {value!r}, no text with commas"
    return None


def _version_kept(transcript: Transcript) -> str:
    requests = transcript.requests(CDS, 1)
    if not requests:
        return "a request for CDS on the new stream"
    if requests[0].version != "1":
        raise Fault(f"version_info of CDS is {requests[0].version!r} after an outage, accepted was '1'")
    return ""


CASES = (
    Case(
        "C40",
        "a new stream: no nonce, the versions in force, everything again",
        (
            sotw(
                HTTP,
                Start(),
                settled(CDS, EDS, LDS, RDS),
                push(EDS, "7", assignment("a", A2)),
                ack(EDS),
                End(),
                reopened(1),
                See("the first requests", _asked_again),
                settled(CDS, EDS, LDS, RDS),
                keeps(WEB, A2),
            ),
        ),
        source="S, E, G, I",
    ),
    Case(
        "C41",
        "a stream that ends after it worked: at once the next, and nothing is lost",
        (
            sotw(ONE, BEGIN, End(), reopened(1), See("at once", _at_once), keeps(VIP, A1)),
            delta(ONE, BEGIN, End(), reopened(1), See("at once", _at_once), keeps(VIP, A1)),
        ),
        source="A57, Z",
    ),
    Case(
        "C42",
        "streams that fail before a response: growing pauses, then none",
        (
            sotw(
                ONE,
                Start(refuse=4),
                See("growing pauses", _backs_off, within=60),
                settled(CDS, EDS, LDS),
                End(),
                reopened(5),
                See("at once", _at_once),
                settled(CDS, EDS, LDS),
            ),
        ),
        source="A57, G",
    ),
    Case(
        "C43",
        "the server is away: the last good configuration stays",
        (
            sotw(
                ONE,
                BEGIN,
                Outage(2.0),
                keeps(VIP, A1),
                Back(),
                reopened(1, within=60),
                See("the version in force", _version_kept),
                settled(CDS, EDS, LDS),
                keeps(VIP, A1),
            ),
        ),
        source="S, A57",
    ),
    Case(
        "C44",
        "the server is away at the start: nothing is invented, and it is found later",
        (
            sotw(
                ONE,
                Start(listening=False),
                keeps(VIP),
                Back(),
                reopened(0, within=60),
                settled(CDS, EDS, LDS),
                says(VIP, A1),
            ),
        ),
        needs_probe=True,
        source="A57",
    ),
    Case(
        "C55",
        "a list of servers to fall back to",
        reason="optional, and there is no common way to give a client several servers",
        source="A71, E",
    ),
    Case(
        "C56",
        "tokens and certificates that are replaced",
        reason="needs TLS and a token; the suite speaks plaintext",
        source="istio-agent",
    ),
    Case(
        "C57",
        "Istio's traps: metadata is text, and a refusal is told in the server's words",
        (
            sotw(
                ONE,
                BEGIN,
                See("the node's metadata", _traps),
                End("INVALID_ARGUMENT", WORDS),
                Logs(WORDS),
                reopened(1),
            ),
        ),
        source="I",
    ),
    Case(
        "C58",
        "what each resource's state is",
        reason="asked at the client's own administration, for which there is no common address",
        source="A40",
    ),
)
