"""The bytes of requests, read back with the other codec."""

from __future__ import annotations

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from appswitch.errors import UsageError
from appswitch.xds.ads import Send
from appswitch.xds.requests import NodeInfo, encode
from appswitch.xds.resources import CDS, EDS

NODE = NodeInfo(
    "sidecar~10.244.9.1~client-1.default~default.svc.cluster.local",
    {"CLUSTER_ID": "east", "LABELS": {"app": "client"}},
    ("r1", "z1", ""),
)


def test_the_first_request_has_the_node() -> None:
    message = discovery_pb2.DiscoveryRequest.FromString(encode(Send(CDS, first=True), NODE))
    assert (message.type_url, message.node.id) == (CDS, NODE.id)
    assert (message.node.locality.region, message.node.locality.zone) == ("r1", "z1")
    values = {key: value.WhichOneof("kind") for key, value in message.node.metadata.fields.items()}
    assert values.pop("LABELS") == "struct_value"
    assert set(values.values()) == {"string_value"}  # a boolean would end the stream
    fields = message.node.metadata.fields
    assert fields["CLUSTER_ID"].string_value == "east"
    assert fields["DNS_CAPTURE"].string_value == "true"
    assert fields["INSTANCE_IPS"].string_value == "10.244.9.1"
    assert fields["NAMESPACE"].string_value == "default"
    assert not message.HasField("error_detail")


def test_later_requests_have_none() -> None:
    send = Send(EDS, "v1", "n1", ("a", "b"), "a: bad")
    message = discovery_pb2.DiscoveryRequest.FromString(encode(send, NODE))
    assert not message.HasField("node")
    assert (message.version_info, message.response_nonce) == ("v1", "n1")
    assert list(message.resource_names) == ["a", "b"]
    assert (message.error_detail.code, message.error_detail.message) == (3, "a: bad")


def test_node_id_says_namespace_and_domain() -> None:
    assert (NODE.ip, NODE.namespace, NODE.domain) == ("10.244.9.1", "default", "svc.cluster.local")


@pytest.mark.parametrize("text", ["", "x", "sidecar~1.1.1.1~name", "sidecar~1.1.1.1~name~d", "a~~b.c~d"])
def test_bad_node_ids(text: str) -> None:
    with pytest.raises(UsageError, match="must be sidecar"):
        NodeInfo(text)
