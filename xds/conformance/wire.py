"""Bytes of requests and responses.  Pure.

`read` raises InvalidInput for bytes that are no request.
"""

from __future__ import annotations

from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from appswitch.errors import InvalidInput
from appswitch.xds.conformance.script import Push
from appswitch.xds.conformance.transcript import Mode, Request
from appswitch.xds.decode import peek_name
from appswitch.xds.resources import RawResource


def name_of(raw: RawResource) -> str:
    """As the server calls it."""
    return raw.name or peek_name(raw.value)


def read(data: bytes, mode: Mode, stream: int, at: float) -> Request:
    """A client's request."""
    try:
        return _READERS[mode](data, stream, at)
    except (DecodeError, ValueError) as error:
        raise InvalidInput(f"a request of {len(data)} bytes: {error}") from error


def _read_sotw(data: bytes, stream: int, at: float) -> Request:
    message = discovery_pb2.DiscoveryRequest.FromString(data)
    return Request(
        stream,
        at,
        message.type_url,
        message.response_nonce,
        message.version_info,
        tuple(sorted(message.resource_names)),
        **_common(message),
    )


def _read_delta(data: bytes, stream: int, at: float) -> Request:
    message = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
    return Request(
        stream,
        at,
        message.type_url,
        message.response_nonce,
        names=tuple(sorted(message.resource_names_subscribe)),
        unsubscribe=tuple(sorted(message.resource_names_unsubscribe)),
        versions=dict(message.initial_resource_versions),
        **_common(message),
    )


def _common(message: Any) -> dict[str, Any]:
    return {
        "error": message.error_detail.message if message.HasField("error_detail") else None,
        "node": message.node.id,
        "metadata": MessageToDict(message.node.metadata) if message.node.HasField("metadata") else {},
        "features": tuple(message.node.client_features),
    }


_READERS = {Mode.SOTW: _read_sotw, Mode.DELTA: _read_delta}


def write(push: Push, mode: Mode, nonce: str) -> bytes:
    """A response."""
    message = _write_sotw(push) if mode is Mode.SOTW else _write_delta(push)
    message.type_url, message.nonce = push.url, nonce
    for refusal in push.refusals:
        error = message.resource_errors.add()
        error.resource_name.name = refusal.name
        error.error_detail.code, error.error_detail.message = refusal.code, refusal.reason
    return bytes(message.SerializeToString()) + push.extra


def _write_sotw(push: Push) -> Any:
    message = discovery_pb2.DiscoveryResponse(version_info=push.version)
    for raw in push.resources:
        if push.wrapped or push.ttl or not raw.type_url:
            message.resources.add().Pack(_resource(raw, push))
        else:
            message.resources.add(type_url=raw.type_url, value=raw.value)
    return message


def _write_delta(push: Push) -> Any:
    message = discovery_pb2.DeltaDiscoveryResponse(
        system_version_info=push.version, removed_resources=list(push.removed)
    )
    message.resources.extend(_resource(raw, push) for raw in push.resources)
    return message


def _resource(raw: RawResource, push: Push) -> Any:
    """A wrapper; one without type is a heartbeat and has no body."""
    message = discovery_pb2.Resource(name=name_of(raw), version=raw.version or push.version)
    if push.ttl:
        message.ttl.seconds = push.ttl
    if raw.type_url:
        message.resource.type_url, message.resource.value = raw.type_url, raw.value
    return message
