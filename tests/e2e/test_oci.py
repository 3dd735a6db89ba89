"""runc with unmodified images and commands: attached by id, by a hook's annotations, by listenerPath."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from .containers import Containers
from .node import AX, ROOT, Node
from .pods import Pod
from .sandbox import NODE_IP, Process

WEB = ("httpd", "-f", "-p", "80", "-h", "/www")
PAGE = "from a container\n"
A, B = "10.0.2.31", "10.0.2.32"


class Unmodified(Containers):
    """Containers whose command has no `ax run` before it."""

    more: dict[str, Any]
    """Of the next container: `annotations`, `hooks`, `seccomp`."""

    def config(self, name: str, args: tuple[str, ...], **changes: Any) -> dict[str, Any]:
        made = super().config(name, args, **changes)
        if "seccomp" in self.more:
            made["linux"]["seccomp"] = self.more["seccomp"]
        return made | {key: self.more[key] for key in ("annotations", "hooks") if key in self.more}

    def begin(self, name: str, *args: str, netns: str = "", **more: Any) -> Process:
        """In the background."""
        self.more = more
        argv = self.argv(name, args, netns=netns)
        process = self.node.sandbox.start(argv, cgroup="apps")
        self._running[name] = process
        return process

    def attach_hook(self, *flags: str) -> dict[str, Any]:
        """deploy/oci/hook.json, as a runtime is told of it."""
        hook = json.loads((ROOT / "deploy/oci/hook.json").read_text())["hook"]
        argv = [*hook["args"], "--run-dir", str(self.node.run_dir), *flags]
        env = [f"PATH={os.environ['PATH']}"]
        return {"createRuntime": [{"path": AX, "args": argv, "env": env, "timeout": 20}]}

    def profile(self, metadata: str) -> dict[str, Any]:
        """deploy/oci/seccomp.json, for this node."""
        profile: dict[str, Any] = json.loads((ROOT / "deploy/oci/seccomp.json").read_text())
        place = {"listenerPath": str(self.node.run_dir / "oci.sock"), "listenerMetadata": metadata}
        return profile | place


@pytest.fixture
def unmodified(node: Node) -> Iterator[Unmodified]:
    if not shutil.which("runc"):
        pytest.skip("needs runc")
    made = Unmodified(node)
    yield made
    made.close()


@pytest.fixture
def networks(node: Node, unmodified: Unmodified) -> Iterator[list[Pod]]:
    """Two networks as a CNI plugin makes them, before any container."""
    pods = [Pod(node.sandbox, "na", A), Pod(node.sandbox, "nb", B)]
    yield pods
    for name in tuple(unmodified._running):
        unmodified.remove(name)
    for pod in pods:
        pod.close()


def netns(pod: Pod) -> str:
    return f"/proc/{pod.init.pid}/ns/net"


def test_attached_by_id(node: Node, unmodified: Unmodified, networks: list[Pod]) -> None:
    unmodified.begin("container-web", *WEB, netns=netns(networks[0]))
    unmodified.begin("container-client", "sleep", "600", netns=netns(networks[1]))

    def fetch() -> str:
        return unmodified.exec("container-client", "wget", "-qO-", "http://1.1.1.1").out

    node.wait(
        lambda: unmodified.exec("container-client", "wget", "-qO-", f"http://{A}").out == PAGE, "it serves"
    )
    node.ax("attach", "container-web", "--ip", "1.1.1.1").ok()
    node.ax("attach", "container-client").ok()
    node.wait_service("1.1.1.1", 80)
    assert fetch() == PAGE
    assert node.run("curl", "-sS", "http://1.1.1.1").ok() == PAGE
    node.ax("detach", "container-client").ok()
    assert fetch() == ""
    unmodified.remove("container-web")
    node.wait(lambda: not node.get("apps"), "the app ends with its container")


def test_attached_by_annotations(node: Node, unmodified: Unmodified, networks: list[Pod]) -> None:
    hooks = unmodified.attach_hook()
    wishes = {"appswitch.io/ip": "1.1.1.1", "appswitch.io/labels": "role=a", "appswitch.io/name": "web"}
    unmodified.begin("web", *WEB, netns=netns(networks[0]), annotations=wishes, hooks=hooks)
    node.wait_service("1.1.1.1", 80)
    [row] = node.servers()
    assert (row["ipv4addr"], row["name"], row["labels"]) == (f"{A}:80", "web", ["role=a"])
    get = ("wget", "-qO-", "http://1.1.1.1")
    for role, code in (("role=a", 0), ("role=b", 1)):
        unmodified.more = {"annotations": {"appswitch.io/labels": role}, "hooks": hooks}
        result = unmodified.run(*get, netns=netns(networks[1]))
        assert bool(result.code) == bool(code), result
    unmodified.more = {"hooks": hooks}  # without annotations it is left alone
    assert "Network is unreachable" in unmodified.run(*get, netns=netns(networks[1])).err


def test_a_hook_fails_closed_or_open(unmodified: Unmodified, networks: list[Pod]) -> None:
    wrong = {"appswitch.io/ip": "127.0.0.1"}
    unmodified.more = {"annotations": wrong, "hooks": unmodified.attach_hook()}
    closed = unmodified.run("echo", "started", netns=netns(networks[0]))
    assert closed.code and "127.0.0.1" in closed.err and "started" not in closed.out
    unmodified.more = {"annotations": wrong, "hooks": unmodified.attach_hook("--fail-open")}
    assert unmodified.run("echo", "started", netns=netns(networks[0])).ok() == "started\n"


def test_sockets_by_listener_path(node: Node, unmodified: Unmodified) -> None:
    """No network, no `ax` in the command: the node's sockets are injected."""
    ip = node.fresh_ip()
    unmodified.begin("web", *WEB, seccomp=unmodified.profile(f"ip={ip} labels=role=a name=web"))
    node.wait_service(ip, 80)
    [row] = node.servers()
    assert row["ipv4addr"].startswith(f"{NODE_IP}:")
    for role, code in (("role=a", 0), ("role=b", 1)):
        unmodified.more = {"seccomp": unmodified.profile(f"labels={role}")}
        result = unmodified.run("wget", "-qO-", f"http://{ip}")
        assert bool(result.code) == bool(code), result
    assert node.run("--labels", "role=a", "curl", "-sS", "http://web").ok() == PAGE
    unmodified.remove("web")
    node.wait(lambda: not node.get("apps"), "the app ends with its container")


def test_a_refused_container_has_no_sockets(node: Node, unmodified: Unmodified) -> None:
    before = node.descriptors()
    unmodified.more = {"seccomp": unmodified.profile("ip=127.0.0.1")}
    result = unmodified.run("wget", "-qO-", "http://1.1.1.1")
    assert result.code and "Function not implemented" in result.err
    assert "127.0.0.1" in str(node.events("app.refused")[-1]["error"])
    node.wait(lambda: node.descriptors() == before, f"no descriptor stays of {before}")


@pytest.mark.parametrize("extra", [("CAP_NET_ADMIN",), ("CAP_NET_ADMIN", "CAP_SYS_ADMIN")])
def test_rights_are_looked_at_once_the_runtime_has_dropped_its_own(
    node: Node, unmodified: Unmodified, extra: tuple[str, ...]
) -> None:
    """runc hands the descriptor over while its child may still do everything; a container that keeps
    that is refused, too: whether it is the child or the program cannot be told."""
    unmodified.more = {"seccomp": unmodified.profile("labels=role=a")}
    for _ in range(5):
        result = unmodified.run("wget", "-qO-", "http://1.1.1.1", extra=extra)
        assert "Function not implemented" in result.err, result
    assert extra[-1] in str(node.events("app.refused")[-1]["error"])
