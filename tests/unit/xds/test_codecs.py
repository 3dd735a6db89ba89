"""Both codecs on all recordings: upb, which decodes here, and envoy-data-plane, which builds requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.config.route import v3 as route
from expectations import ROOT, recordings

from appswitch.xds.decode import decode_resource
from appswitch.xds.recording import load
from appswitch.xds.resources import CDS, EDS, RDS, Assignment, Cluster, RouteConfig

FOLDERS = [folder for dialogues in recordings().values() for folder in dialogues.values()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Istiod still sends deprecated fields
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_both_codecs_see_the_same(folder: Path) -> None:
    seen: set[bytes] = set()
    for message in load(folder).steps[0].messages:
        for raw in message.response.resources:
            if raw.value in seen or raw.type_url not in (CDS, EDS, RDS):
                continue
            seen.add(raw.value)
            ours = decode_resource(raw.type_url, raw.value)
            if isinstance(ours, Cluster):
                theirs = cluster.Cluster.parse(raw.value)
                assert ours.name == theirs.name
                if theirs.eds_cluster_config is not None:
                    assert ours.eds_name == theirs.eds_cluster_config.service_name
            elif isinstance(ours, Assignment):
                assignment = endpoint.ClusterLoadAssignment.parse(raw.value)
                assert ours.name == assignment.cluster_name
                assert [addresses(locality) for locality in assignment.endpoints] == [
                    [(item.host, item.port, item.weight) for item in locality.endpoints]
                    for locality in ours.localities
                ]
            elif isinstance(ours, RouteConfig):
                config = route.RouteConfiguration.parse(raw.value)
                assert [host.name for host in ours.hosts] == [
                    host.name for host in config.virtual_hosts if host.name not in ("allow_any", "block_all")
                ]


def addresses(locality: endpoint.LocalityLbEndpoints) -> list[tuple[str, int, int]]:
    """Address, port, weight of those with an IP address."""
    found = []
    for item in locality.lb_endpoints:
        address = item.endpoint.address.socket_address if item.endpoint else None
        if address is not None:
            found.append((address.address, address.port_value or 0, item.load_balancing_weight or 1))
    return found
