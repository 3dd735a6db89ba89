"""The REST interface as a table, and the OpenAPI 3.1 document made from it.

`api.py` registers its handlers by this table's operation names, so that the document cannot promise an
endpoint that is not there.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appswitch.agent import resources as view
from appswitch.agent.requests import NewApp, NewVService
from appswitch.agent.resource_backends import BackendRow
from appswitch.agent.resource_bpf import BpfView
from appswitch.agent.resource_policies import PolicyView
from appswitch.agent.resource_unsupported import UnsupportedView
from appswitch.agent.resource_xds import ClusterView, EndpointView, ListenerView, RouteView, XdsView

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the path or the query."""

    name: str
    where: str
    text: str

    def document(self) -> Json:
        """As an OpenAPI parameter object."""
        required = self.where == "path" or self.name == "destination"
        schema = {"type": "string"}
        return {
            "name": self.name,
            "in": self.where,
            "required": required,
            "description": self.text,
            "schema": schema,
        }


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method on one path."""

    operation: str
    method: str
    path: str
    summary: str
    answer: Any
    """Type of the successful answer; None: no body (204)."""
    status: int = 200
    body: Any = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    """Statuses beside those that every endpoint can give."""


_NAME = Parameter("name", "path", "Name of the vservice")

ENDPOINTS: Final = (
    Endpoint("listApps", "GET", "/v1/apps", "Apps that are alive", list[view.AppView]),
    Endpoint(
        "attachApp",
        "POST",
        "/v1/apps",
        "Make an app of a container, pod or cgroup that runs (root only)",
        view.AppView,
        status=201,
        body=NewApp,
        errors=(404, 409, 413, 415, 501, 503, 507),
    ),
    Endpoint(
        "detachApp",
        "DELETE",
        "/v1/apps/{name}",
        "Let an attached app go; its programs run on (root only)",
        None,
        status=204,
        parameters=(Parameter("name", "path", "AppId, name, or what was attached"),),
        errors=(404, 409),
    ),
    Endpoint("listServers", "GET", "/v1/servers", "The service table", list[view.ServerView]),
    Endpoint("listSockets", "GET", "/v1/sockets", "Sockets of servers", list[view.SocketView]),
    Endpoint("listVservices", "GET", "/v1/vservices", "Virtual services", list[view.VServiceView]),
    Endpoint(
        "createVservice",
        "POST",
        "/v1/vservices",
        "Create a virtual service",
        view.VServiceView,
        status=201,
        body=NewVService,
        errors=(409, 413, 415, 507),
    ),
    Endpoint(
        "getVservice",
        "GET",
        "/v1/vservices/{name}",
        "One virtual service",
        view.VServiceView,
        parameters=(_NAME,),
        errors=(404,),
    ),
    Endpoint(
        "deleteVservice",
        "DELETE",
        "/v1/vservices/{name}",
        "Delete a virtual service",
        None,
        status=204,
        parameters=(_NAME,),
        errors=(404, 409),
    ),
    Endpoint("listBackends", "GET", "/v1/backends", "Backends and their connections (TCP)", list[BackendRow]),
    Endpoint(
        "listBpf",
        "GET",
        "/v1/bpf",
        "The kernel's statistics of our programs and maps",
        list[BpfView],
        parameters=(
            Parameter(
                "seconds",
                "query",
                "Have the kernel count runs for so long (0 to 60), and tell those; Unix socket only",
            ),
        ),
    ),
    Endpoint("listPolicies", "GET", "/v1/policies", "Who may connect to the servers", list[PolicyView]),
    Endpoint(
        "listUnsupported",
        "GET",
        "/v1/unsupported",
        "What Istiod asks for and is not done",
        list[UnsupportedView],
    ),
    Endpoint("listClusters", "GET", "/v1/clusters", "Istio's clusters", list[ClusterView], errors=(503,)),
    Endpoint("listEndpoints", "GET", "/v1/endpoints", "Istio's endpoints", list[EndpointView], errors=(503,)),
    Endpoint("listListeners", "GET", "/v1/listeners", "Istio's listeners", list[ListenerView], errors=(503,)),
    Endpoint("listRoutes", "GET", "/v1/routes", "Istio's routes", list[RouteView], errors=(503,)),
    Endpoint("listXds", "GET", "/v1/xds", "Istio's resources and their state", list[XdsView], errors=(503,)),
    Endpoint("listProxies", "GET", "/v1/proxies", "Relays of gateways", list[view.ProxyView]),
    Endpoint("listDrivers", "GET", "/v1/drivers", "Drivers, usable here or not", list[view.DriverView]),
    Endpoint(
        "explain",
        "GET",
        "/v1/explain",
        "What an app gets for a destination, and why",
        view.Explanation,
        parameters=(
            Parameter("destination", "query", "IP[:port] or NAME[:port]; the port defaults to 80"),
            Parameter("from", "query", "AppId or name of the app that dials"),
            Parameter("labels", "query", "Labels (csv) of the app that dials, in place of `from`"),
        ),
        errors=(404,),
    ),
    Endpoint("health", "GET", "/v1/health", "The daemon's own state", view.Health),
    Endpoint("openapi", "GET", "/v1/openapi.json", "This document", Json),
)

_COMMON: Final = {400: "Malformed request", 403: "Not allowed on this socket", 500: "A fault of the daemon"}
_TEXTS: Final = {
    404: "No such resource",
    409: "The name or address is taken",
    413: "The body is too large",
    415: "The body is not application/json",
    501: "This machine or this target does not allow it",
    503: "What it was about, or who would know, is away",
    507: "A table is full; nothing was changed",
}


def document(version: str) -> Json:
    """The whole OpenAPI 3.1 document, JSON-compatible."""
    types = [e.answer for e in ENDPOINTS if e.answer not in (None, Json)]
    types += [e.body for e in ENDPOINTS if e.body is not None] + [view.Error]
    found, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    references = dict(zip(map(str, types), found, strict=True))
    paths: dict[str, Json] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AppSwitch",
            "version": version,
            "description": "Changes are accepted on the Unix socket only; the TCP port is read-only.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(endpoint: Endpoint, references: dict[str, Json]) -> Json:
    success: Json = {"description": "Done" if endpoint.answer is None else endpoint.summary}
    if endpoint.answer is Json:
        success["content"] = {"application/json": {"schema": {"type": "object"}}}
    elif endpoint.answer is not None:
        success["content"] = {"application/json": {"schema": references[str(endpoint.answer)]}}
    error = {"application/json": {"schema": references[str(view.Error)]}}
    texts = _COMMON | {status: _TEXTS[status] for status in endpoint.errors}
    responses: Json = {str(endpoint.status): success}
    responses |= {
        str(status): {"description": text, "content": error} for status, text in sorted(texts.items())
    }
    responses["default"] = {"description": "Any other error", "content": error}
    operation: Json = {"operationId": endpoint.operation, "summary": endpoint.summary, "responses": responses}
    if endpoint.parameters:
        operation["parameters"] = [parameter.document() for parameter in endpoint.parameters]
    if endpoint.body is not None:
        content = {"application/json": {"schema": references[str(endpoint.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation
