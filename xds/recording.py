"""Recorded pushes of an Istiod: a folder with `transcript.jsonl` and one file for each response."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType
from typing import Any

from appswitch.errors import InvalidInput
from appswitch.xds.ads import Command, Connected, Disconnected, Publish, Received
from appswitch.xds.decode import decode_delta_response, decode_response
from appswitch.xds.delta import Delta
from appswitch.xds.dialogue import Dialogue
from appswitch.xds.resolution import Answer, wanted
from appswitch.xds.resources import Response
from appswitch.xds.sotw import Sotw
from appswitch.xds.translate import Translation, Translator


@dataclass(frozen=True, slots=True)
class Message:
    """One recorded response."""

    data: bytes
    """As it was on the wire."""
    response: Response


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the mesh and the responses that it caused."""

    name: str
    reconnects: bool
    """The client had lost its stream and opened a new one."""
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """All steps, in order."""

    name: str
    steps: tuple[Step, ...]
    delta: bool = False
    """Its messages are those of the incremental dialogue."""

    def index(self, name: str) -> int:
        """Position of a step.  Raises InvalidInput if there is none of this name."""
        for number, step in enumerate(self.steps):
            if step.name == name:
                return number
        raise InvalidInput(f"no step {name!r}; there are {', '.join(step.name for step in self.steps)}")


def load(folder: Path) -> Recording:
    """Read a recording.  Raises InvalidInput."""
    steps: dict[str, Step] = {}
    try:
        delta = json.loads((folder / "scenario.json").read_text(encoding="utf-8"))["mode"] == "delta"
        decode = decode_delta_response if delta else decode_response
        lines = (folder / "transcript.jsonl").read_text(encoding="utf-8").splitlines()
        for line in lines:
            entry: dict[str, Any] = json.loads(line)
            old = steps.get(entry["step"], Step(entry["step"], False, ()))
            messages = old.messages
            if entry["from"] == "server":
                data = (folder / entry["file"]).read_bytes()
                messages = (*messages, Message(data, decode(data)))
            reconnects = old.reconnects or ("node" in entry.get("message", {}) and bool(steps))
            steps[old.name] = Step(old.name, reconnects, messages)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"recording {folder}: {error}") from error
    return Recording(folder.name, tuple(steps.values()), delta)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client that obeys has after a step."""

    step: str
    commands: tuple[Command, ...]
    """Everything it did during the step."""
    translation: Translation


def walk(
    recording: Recording,
    translator: Translator,
    ads: Dialogue | None = None,
    hosts: Mapping[str, tuple[IPv4Address, ...]] = MappingProxyType({}),
) -> Iterator[Outcome]:
    """Feed a recording to the client's own state machine and translation, without a network.

    `hosts`: addresses of host names; clusters of other ones are awaited.
    """
    ads = ads or (Delta() if recording.delta else Sotw())
    translation = Translation()
    ads.handle(Connected())
    for step in recording.steps:
        commands: list[Command] = []
        if step.reconnects:
            ads.handle(Disconnected())
            commands += ads.handle(Connected())
        for message in step.messages:
            answer = ads.handle(Received(message.response))
            commands += answer
            for command in answer:
                if isinstance(command, Publish):
                    names = wanted(command.config.clusters.values())
                    answers = {each: Answer(hosts[each.host]) for each in names if each.host in hosts}
                    translation = translator.translate(command.config, answers)
        yield Outcome(step.name, tuple(commands), translation)
