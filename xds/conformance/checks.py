"""What can be asked of a transcript.  Pure: each function makes a step."""

from __future__ import annotations

from collections.abc import Callable

from appswitch.xds.conformance.script import SETTLE, Fault, See
from appswitch.xds.conformance.transcript import Mode, Request, Response, Transcript
from appswitch.xds.resources import CDS, LDS, SHORT


def short(url: str) -> str:
    """How a type is called in a verdict."""
    return SHORT.get(url, url.rpartition("/")[2]).upper()


def _last(transcript: Transcript, url: str) -> Response:
    return transcript.responses(url, transcript.stream)[-1]


def _answer(transcript: Transcript, url: str) -> Request | None:
    """Of the last response of this type."""
    answer = transcript.answer(_last(transcript, url))
    if answer is None and not transcript.alive:
        raise Fault(f"the stream ended instead of an answer to {short(url)}")
    return answer


def settled(*urls: str) -> See:
    """The client has asked for these types, and answered all that it was sent."""
    wanted = urls or (CDS, LDS)

    def check(transcript: Transcript) -> str:
        if transcript.stream < 0:
            return "a stream"
        if not transcript.alive:
            return "a new stream"
        for url in wanted:
            if transcript.subscribed(url) is None:
                return f"a request for {short(url)}"
        for response in transcript.responses(stream=transcript.stream):
            last = transcript.responses(response.url, transcript.stream)[-1]
            if response is last and transcript.answer(response) is None:
                return f"an answer to {short(response.url)} version {response.version}"
        return ""

    return See("all asked for and answered", check)


def ack(url: str, same_names: bool = False) -> See:
    """The last response of this type is accepted, as the protocol says it."""

    def check(transcript: Transcript) -> str:
        sent, answer = _last(transcript, url), _answer(transcript, url)
        if answer is None:
            return f"an ACK of {short(url)} version {sent.version}"
        if answer.error is not None:
            raise Fault(f"{short(url)} version {sent.version} was rejected: {answer.error}")
        if transcript.mode is Mode.SOTW and answer.version != sent.version:
            raise Fault(f"the ACK of {short(url)} version {sent.version} has version_info {answer.version!r}")
        if same_names:
            requests = transcript.requests(url, transcript.stream)
            before = requests[requests.index(answer) - 1]
            if answer.names != before.names:
                raise Fault(f"the ACK asks for {list(answer.names)}, before it was {list(before.names)}")
        return ""

    return See(f"ACK of {short(url)}", check)


def nack(url: str, accepted: str, *named: str) -> See:
    """The last response of this type is rejected; `accepted`: the version that stays; `named` in the text."""

    def check(transcript: Transcript) -> str:
        sent, answer = _last(transcript, url), _answer(transcript, url)
        if answer is None:
            return f"a NACK of {short(url)} version {sent.version}"
        if answer.error is None:
            raise Fault(f"{short(url)} version {sent.version} was accepted")
        if transcript.mode is Mode.SOTW and answer.version != accepted:
            raise Fault(f"the NACK has version_info {answer.version!r}, accepted was {accepted!r}")
        for name in named:
            if name not in answer.error:
                raise Fault(f"the NACK does not name {name!r}: {answer.error[:200]}")
        return ""

    return See(f"NACK of {short(url)}", check)


def answered(url: str) -> See:
    """Accepted or rejected, but answered on a stream that lives."""

    def check(transcript: Transcript) -> str:
        return "" if _answer(transcript, url) is not None else f"an answer to {short(url)}"

    return See(f"answer to {short(url)}", check)


def asks(url: str, *names: str, accepted: str | None = None) -> See:
    """The subscription comes to be exactly these names.

    `accepted`: state of the world: the request has this version, and the last nonce of its type.
    """

    def check(transcript: Transcript) -> str:
        asked = transcript.subscribed(url)
        if asked is None or asked != set(names):
            there = "nothing" if asked is None else sorted(asked)
            return f"{short(url)} asked for {sorted(names)}; it is {there}"
        last = transcript.requests(url, transcript.stream)[-1]
        if accepted is not None:
            nonce = _last(transcript, url).nonce
            if last.nonce != nonce:
                raise Fault(f"the request has nonce {last.nonce!r}, the last one sent was {nonce!r}")
            if last.version != accepted:
                raise Fault(f"the request has version_info {last.version!r}, accepted was {accepted!r}")
        return ""

    return See(f"{short(url)} asked for {', '.join(names) or 'nothing'}", check)


def asks_also(url: str, name: str) -> See:
    """The subscription comes to have this name among others."""

    def check(transcript: Transcript) -> str:
        return "" if name in (transcript.subscribed(url) or ()) else f"{short(url)} asked for {name}"

    return See(f"{short(url)} asked for {name}", check)


def still(what: str, check: Callable[[Transcript], str], after: float = SETTLE) -> See:
    """After a while this must be so at once."""

    def strict(transcript: Transcript) -> str:
        if missing := check(transcript):
            raise Fault(missing)
        return ""

    return See(what, strict, after=after)


def lives(stream: int = 0) -> See:
    """The stream is the same and open."""

    def check(transcript: Transcript) -> str:
        if transcript.stream != stream or not transcript.alive:
            return f"the stream did not survive: the client is at its stream {transcript.stream + 1}"
        return ""

    return still("the stream lives", check)


def reopened(stream: int, within: float | None = None) -> See:
    """A stream of this number (from 0) is open."""

    def check(transcript: Transcript) -> str:
        return "" if transcript.stream >= stream else f"stream {stream + 1}"

    return See(f"stream {stream + 1}", check, within=within)
