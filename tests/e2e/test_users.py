"""An ordinary user's `ax run` against root's daemon: what works, what it may not, what the program is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from e2e.node import AX, Node
from e2e.sandbox import NODE_IP, Process, Result
from e2e.servers import PROGRAMS, nginx_argv, start_echo

UID = 4711
"""Nobody's: the user need not have a name."""
GROUP = 4712
"""A supplementary one."""
AS_USER = ("setpriv", f"--reuid={UID}", f"--regid={UID}", f"--groups={GROUP}")
PYTHON = os.path.realpath("/usr/bin/python3")
"""The virtual environment's may be out of the user's reach."""


class User:
    """What a user types."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.home = node.base / "home"
        self.home.mkdir(exist_ok=True)
        self.ax = str(shutil.copy(AX, self.home / "ax"))  # as may be the builder's folder
        for program in ("dial.py", "echo.py"):
            shutil.copy(PROGRAMS / program, self.home)
        self.own(self.home)
        self._env = {"AX_RUN_DIR": str(node.run_dir), "HOME": str(self.home)}

    def own(self, path: Path) -> None:
        """`path` and what is in it is the user's."""
        for each in (path, *path.rglob("*")):
            os.chown(each, UID, UID)

    def run(self, *args: str) -> Result:
        """`ax run ARGS` to its end."""
        argv = [*AS_USER, self.ax, "run", *args]
        return self._node.sandbox.run(argv, cgroup="apps", env=self._env, cwd=self.home)

    def native(self, *argv: str) -> Result:
        """A program of the user's that is not under `ax run`."""
        return self._node.sandbox.run([*AS_USER, *argv], cgroup="host", env=self._env, cwd=self.home)

    def start(self, *args: str) -> Process:
        """`ax run ARGS` in the background; its output is in a file of the test's."""
        argv = [*AS_USER, self.ax, "run", *args]
        return self._node.adopt(self._node.sandbox.start(argv, cgroup="apps", env=self._env, cwd=self.home))


@pytest.fixture
def user(node: Node) -> User:
    return User(node)


def test_reaches_servers_and_is_one(node: Node, user: User, mode: list[str]) -> None:
    ip, own = node.fresh_ip(), f"241.7.1.{len(mode) + 1}"
    start_echo(node, name="roots", ip=ip)
    out = user.run("--ip", "241.7.2.2", *mode, PYTHON, "dial.py", "one", ip, "7000").ok()
    assert '"name": "roots"' in out and '"peer": "241.7.2.2"' in out
    user.start("--ip", own, *mode, PYTHON, "echo.py", "mine", "80")  # below 1024: it is virtual
    node.wait_service(own, 80)
    assert '"name": "mine"' in node.run(PYTHON, str(PROGRAMS / "dial.py"), "one", own, "80").ok()


def test_nginx(node: Node, user: User, mode: list[str]) -> None:
    folder = user.home / f"nginx{len(mode)}"
    argv = nginx_argv(folder, "the user's\n")
    (folder / "nginx.conf").write_text((folder / "nginx.conf").read_text().replace("user root;", ""))
    user.own(folder)
    user.start("--name", f"web{len(mode)}.{UID}", *mode, *argv)
    node.wait(lambda: [s for s in node.servers() if s["serviceaddr"].endswith(":80")], "nginx listens")
    assert user.run(*mode, "curl", "-sS", f"http://web{len(mode)}.{UID}/").ok() == "the user's\n"
    assert node.run("curl", "-sS", f"http://web{len(mode)}.{UID}/").ok() == "the user's\n"


def test_labels_hold(node: Node, user: User, mode: list[str]) -> None:
    ip = node.fresh_ip()
    start_echo(node, "--labels", "role=prod", name="prod", ip=ip)
    out = user.run("--labels", f"role=test.{UID}", *mode, PYTHON, "dial.py", "one", ip, "7000")
    assert "EACCES" in out.ok()


LOOK = """
import os
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
capabilities = {status[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Amb")}
print(os.getuid(), os.geteuid(), os.getgid(), status["NoNewPrivs"], capabilities)
open("file", "w").close()
os.mkdir("folder", 0o700)
"""


def test_what_the_program_is(node: Node, user: User, mode: list[str]) -> None:
    """Itself, without a right that it did not have, and its files are its own."""
    out = user.run(*mode, PYTHON, "-c", LOOK).ok()
    assert out == f"{UID} {UID} {UID} 1 {{'{'0' * 16}'}}\n"
    for name in ("file", "folder"):
        found = (user.home / name).stat()
        assert (found.st_uid, found.st_gid) == (UID, UID)
    (user.home / "folder").rmdir()
    (user.home / "file").unlink()


def test_supplementary_groups_still_open_files(node: Node, user: User, mode: list[str]) -> None:
    shared = user.home / "shared"
    shared.write_text("read\n")
    os.chown(shared, 0, GROUP)
    shared.chmod(0o640)
    assert user.run(*mode, "cat", "shared").ok() == "read\n"


def test_setuid_programs_gain_nothing(node: Node, user: User, mode: list[str]) -> None:
    program = shutil.copy("/usr/bin/id", user.home / "id")
    os.chown(program, 0, 0)
    os.chmod(program, 0o4755)
    assert user.native(str(program), "-u").ok() == "0\n"
    assert user.run(*mode, str(program), "-u").ok() == f"{UID}\n"


POWERS = """
import fcntl, socket, struct, sys
tcp = socket.socket()
def attempt(what, *arguments):
    try:
        what(*arguments)
        print("done")
    except OSError as error:
        print(error.strerror)
request = struct.pack("16sH14x", b"br0", 0)  # down
attempt(tcp.setsockopt, socket.SOL_SOCKET, 36, 1)  # SO_MARK
attempt(tcp.setsockopt, socket.SOL_SOCKET, 33, 1)  # SO_RCVBUFFORCE
attempt(tcp.setsockopt, socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
attempt(fcntl.ioctl, tcp, 0x8914, request)  # SIOCSIFFLAGS
attempt(fcntl.ioctl, tcp, 0x894C)  # SIOCGSKNS: the namespace of the socket
"""


@pytest.mark.parametrize("inner", [(), ("unshare", "--user", "--map-root-user", "--net")])
def test_a_user_namespace_gives_no_power_over_the_nodes_sockets(
    node: Node, user: User, mode: list[str], inner: tuple[str, ...]
) -> None:
    """Also not one that the app makes: in it, it has every capability, but not over the node's network."""
    out = user.run(*mode, *inner, PYTHON, "-c", POWERS).ok()
    if mode and inner:  # nothing is injected there: the socket is that new namespace's own
        assert "done" in out
    else:
        assert set(out.splitlines()) == {"Operation not permitted"}, out
    assert "UP" in node.host("ip", "link", "show", "br0").ok()


def test_what_is_roots_alone(node: Node, user: User, mode: list[str]) -> None:
    for flags in (["--expose", "80:8081"], ["--user", "root"]):
        refused = user.run(*mode, *flags, "true")
        assert (refused.code, refused.err.count("\n")) == (77, 1)
    assert user.run(*mode, "--user", str(os.getuid()), "true").code == 77


def test_host_loopback_stays_out_of_reach(node: Node, user: User, mode: list[str]) -> None:
    node.host_start(PYTHON, str(PROGRAMS / "echo.py"), "host", "7003")
    dial = (PYTHON, "dial.py", "one")
    node.wait(lambda: "host" in user.native(*dial, NODE_IP, "7003").out, "the host's server answers")
    assert "host" in user.native(*dial, "127.0.0.1", "7003").ok()
    assert "ECONNREFUSED" in user.run(*mode, *dial, "127.0.0.1", "7003").ok()


def test_the_cgroup_is_below_the_users_own(node: Node, user: User, mode: list[str]) -> None:
    out = user.run(*mode, "cat", "/proc/self/cgroup").ok()
    below = "/" + str(node.sandbox.cgroup.name) + "/apps/ax-"
    assert any(line.startswith("0::" + below) for line in out.splitlines()), out


def test_ax_run_within_ax_run(node: Node, user: User, mode: list[str]) -> None:
    ip = node.fresh_ip()
    start_echo(node, "--labels", f"role=prod.{UID}", name="prod", ip=ip)
    dial = f"{PYTHON} dial.py one {ip} 7000"
    inner = f"{user.ax} run --labels role=prod.{UID} --ip 241.7.2.2 {' '.join(mode)} {dial}; {dial}"
    prod, test = user.run("--labels", f"role=test.{UID}", *mode, "sh", "-c", inner).ok().splitlines()
    assert '"name": "prod"' in prod and '"peer": "241.7.2.2"' in prod and "EACCES" in test


def test_names_by_a_nameserver_on_loopback(node: Node, user: User) -> None:
    """systemd-resolved's: the app's own loopback has nobody there, but names are known (no mount is made)."""
    node.start("--name", "web", PYTHON, str(PROGRAMS / "echo.py"), "web", "80")
    node.wait(node.servers, "the server listens")
    stub = user.home / "stub-resolv.conf"
    stub.write_text("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.com\n")
    shown = ["unshare", "--mount", "sh", "-c", f'mount --bind {stub} /etc/resolv.conf && exec "$@"', "-"]
    run = [*AS_USER, user.ax, "run", "--run-dir", str(node.run_dir), "--new-netns=false"]
    for client in (["getent", "ahostsv4", "web"], ["dig", "+short", "web"], ["dig", "+short", "+tcp", "web"]):
        assert "241." in node.sandbox.run([*shown, *run, *client], cgroup="apps", cwd=user.home).ok()
    look = node.sandbox.run([*shown, *run, "cat", "/etc/resolv.conf"], cgroup="apps", cwd=user.home)
    assert "127.0.0.53" in look.ok()
