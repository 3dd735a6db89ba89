"""An ordinary user of the node: takes others' places, looks into others' programs, leaves, tampers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from appswitch.agent.run_dir import RunDir
from appswitch.errors import Unsupported
from appswitch.interceptor.kernel import BPFFS, Kernel
from e2e.node import AX, Node
from e2e.sandbox import NODE_IP
from e2e.servers import PYTHON, start_echo

from .test_reach import EVERYWHERE, PROGRAMS, witness

AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
ANYBODYS = "/usr/bin/python3"
"""The virtual environment's may be out of the user's reach."""


def as_nobody(node: Node, *flags: str) -> list[str]:
    """The start of `ax run` as user nobody."""
    return [*AS_NOBODY, AX, "run", *flags]


@pytest.mark.parametrize(
    "claim",
    [
        ("--ip", "8.8.8.8"),  # what every app of the node would then talk to
        ("--ip", NODE_IP),
        ("--name", "www.example.com"),
        ("--name", "localhost"),
        ("--labels", "role=admin"),
        ("--namespace", "prod"),
        ("--service-account", "admin"),
        ("--name", "web.root"),
    ],
    ids=" ".join,
)
def test_taking_anothers_place(node: Node, claim: tuple[str, str]) -> None:
    refused = node.host(*as_nobody(node, "--new-netns=false", *claim), "true")
    assert refused.code == 77 and "--user-claims any" in refused.err and refused.err.count("\n") == 1


def test_ones_own_place(node: Node) -> None:
    """What ends with the user's name or number; and without a claim an address that is not root's apps'."""
    flags = ("--new-netns=false", "--name", "web.nobody", "--labels", "role=x.nobody,zone=default")
    assert node.host(*as_nobody(node, *flags), "true").code == 0
    ip = node.fresh_ip()
    server = start_echo(node, "--new-netns=false", name="echo", ip=ip)
    script = f"import socket; print(socket.create_connection(('{ip}', 7000)).recv(999).decode())"
    out = node.host(*as_nobody(node, "--new-netns=false"), ANYBODYS, "-c", script).ok()
    assert json.loads(out)["peer"].startswith("241.") and server.popen.poll() is None


def test_claims_may_be_free(own_node: Node) -> None:
    """`--user-claims any`: where users trust one another."""
    own_node.stop_daemon()
    own_node.start_daemon("--user-claims", "any")
    flags = ("--new-netns=false", "--ip", "8.8.8.8", "--name", "web", "--labels", "role=admin")
    assert own_node.host(*as_nobody(own_node, *flags), "true").code == 0


@pytest.mark.parametrize("port", ["80", "22", "10999"])
def test_exposing(node: Node, port: str) -> None:
    """A port of the node, low or high, and running as somebody else."""
    refused = node.host(*as_nobody(node, "--new-netns=false", "--expose", f"8000:{port}"), "true")
    assert (refused.code, refused.err) == (77, "ax run: --expose: only root may open ports of the node\n")
    assert node.host(*as_nobody(node, "--new-netns=false", "--user", "root"), "true").code == 77


LEAVE = """
import errno, os, socket, sys
own = open("/proc/self/cgroup").read().split("0::")[1].split()[0]
for place in (os.path.dirname(own), "", sys.argv[2]):
    for file in ("cgroup.procs", "cgroup.threads"):
        try:
            open(sys.argv[1] + place + "/" + file, "w").write(str(os.getpid()))
            print("left for", place)
        except OSError as error:
            print(errno.errorcode[error.errno])
try:
    os.mkdir(sys.argv[1] + own + "/child")
    print("made")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def test_leaving_the_cgroup(node: Node) -> None:
    """For its parent's, the root, another app's."""
    other = node.start("--new-netns=false", "sleep", "100")
    node.wait(lambda: node.get("apps"), "the other app runs")
    place = Path(f"/proc/{other.pid}/cgroup").read_text().split("0::")[1].strip()
    root = str(node.sandbox.cgroup.parent)
    out = node.host(*as_nobody(node, "--new-netns=false"), ANYBODYS, "-c", LEAVE, root, place).ok()
    assert out.split() == ["EACCES"] * 7


def test_who_leaves_a_delegated_cgroup_is_nobody(node: Node) -> None:
    """Where the parent is the user's own (systemd's delegation), leaving is possible, as it is to start a
    program elsewhere at all: it is then a stranger to every app.  Entering another app's is not."""
    ip = node.fresh_ip()
    server = witness(node, *EVERYWHERE, ax=["--ip", ip, "--new-netns=false"])
    (service,) = [
        row for row in node.servers() if row["serviceaddr"] == f"{ip}:7000" and row["proto"] == "tcp"
    ]
    real = service["ipv4addr"].split(":")[1]
    home = node.sandbox.cgroup / "delegated"
    home.mkdir(exist_ok=True)
    (home / "inner").mkdir(exist_ok=True)
    for path in (home, home / "cgroup.procs", home / "inner", home / "inner/cgroup.procs"):
        os.chown(path, 65534, 65534)
    script = f"""
import errno, os, socket
other = "/sys/fs/cgroup"
open("{home}/inner/cgroup.procs", "w").write(str(os.getpid()))
print(open("/proc/self/cgroup").read().split("0::")[1].split()[0].rsplit("/", 1)[1])
for to in (("127.0.0.1", {real}), ("{NODE_IP}", {real})):
    sock = socket.socket(); sock.settimeout(3)
    print(errno.errorcode.get(sock.connect_ex(to), "reached"))
"""
    argv = as_nobody(node, "--new-netns=false")
    out = node.sandbox.run(
        [*argv, ANYBODYS, "-c", script], cgroup="delegated", env={"AX_RUN_DIR": str(node.run_dir)}
    ).ok()
    assert out.split() == ["inner", "ECONNREFUSED", "ECONNREFUSED"]
    assert server.output() == "ready\n"


PEEK = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for pid in map(int, sys.argv[1:]):
    pidfd = os.pidfd_open(pid)
    for number in range(0, 20):
        if libc.syscall(438, pidfd, number, 0) >= 0:  # pidfd_getfd
            print("got", number)
    if libc.ptrace(16, pid, 0, 0) == 0:  # PTRACE_ATTACH
        print("attached")
    for file in ("mem", "environ", "fd/0"):
        try:
            open(f"/proc/{pid}/{file}", "rb").read(1)
            print("read", file)
        except PermissionError:
            pass
print("tried")
"""


def test_looking_into_others(node: Node, mode: list[str]) -> None:
    """ptrace, pidfd_getfd, /proc: of another user's app, of the daemon and of the holder."""
    app = node.start(*mode, "sleep", "100")
    node.wait(lambda: node.get("apps"), "the app runs")
    assert node.daemon is not None
    holder = node.wait(node.holder_pid, "the holder runs")
    pids = [str(pid) for pid in (app.pid, node.daemon.pid, holder)]
    out = node.host(*as_nobody(node, "--new-netns=false"), ANYBODYS, "-c", PEEK, *pids).ok()
    assert out == "tried\n"


def test_tampering(node: Node) -> None:
    """The run directory, what is pinned, and the daemon's sockets."""
    (pins,) = node.pins()
    node.wait((node.run_dir / "holder.sock").exists, "the holder listens")
    tamper = str(PROGRAMS / "tamper.py")
    out = node.host(*AS_NOBODY, ANYBODYS, tamper, str(node.run_dir), str(pins)).ok()
    assert out.count("\n") == 15 and set(out.split()) == {"EACCES"}, out


def test_run_directory_of_anothers(node: Node, short_tmp: Path) -> None:
    """Made beforehand by a user, or a link of his to somewhere else: the daemon does not start there."""
    theirs, link = short_tmp / "theirs", short_tmp / "link"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    (short_tmp / "roots").mkdir()
    open_to_all = short_tmp / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    link.symlink_to(short_tmp / "roots")
    os.chown(link, 65534, 65534, follow_symlinks=False)
    for path in (theirs, link, open_to_all, open_to_all / "inside", link / "inside"):
        with pytest.raises(Unsupported, match="others than root"):
            RunDir(path)
    assert not list((short_tmp / "roots").iterdir())


def test_pins_of_anothers(node: Node) -> None:
    """bpffs is often mounted so that everybody may make folders in it: maps found there would decide."""
    place = BPFFS / f"ax-attack-{os.getpid()}"
    place.mkdir()
    try:
        os.chown(place, 65534, 65534)
        with pytest.raises(Unsupported, match="is not root's alone"):
            Kernel.open(place / "run", clean=False)
        assert not list(place.iterdir())
    finally:
        place.rmdir()


REUSED = """
import os, socket, sys, time
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if os.fork() == 0:
    door.connect(sys.argv[1])  # whoever connects is the one that is moved
    os._exit(0)
os.wait()
door.send(b'{"version":1,"command":["x"],"new_netns":false}')
door.settimeout(10)
print(door.recv(999))
"""


def test_hello_of_a_process_that_is_gone(node: Node) -> None:
    """Its number may be another's by the time that the hello comes: nobody is moved."""
    out = node.host(PYTHON, "-c", REUSED, str(node.run_dir / "daemon.sock")).ok()
    assert out.startswith("b''") or "error" in out
    assert node.get("apps") == []


def test_hello_from_a_pid_namespace(node: Node) -> None:
    """A process is known by its number out here."""
    for flags in ([], ["--new-netns=false"]):
        assert node.host("unshare", "--pid", "--fork", AX, "run", *flags, "true").code == 0


def test_setuid_program(node: Node, short_tmp: Path) -> None:
    """In an ordinary user's mesh it gains nothing (a launcher of one's own: test_manual)."""
    program = short_tmp / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    assert node.host(*AS_NOBODY, str(program), "-u").ok() == "0\n"
    assert node.host(*as_nobody(node, "--new-netns=false"), str(program), "-u").ok() == "65534\n"


def test_one_users_apps_are_bounded(own_node: Node) -> None:
    """And the bound is nobody else's."""
    own_node.stop_daemon()
    own_node.start_daemon("--user-apps", "3")
    own_node.wait(lambda: own_node.holder_pid(), "the holder runs")
    for number in range(3):
        env = {"AX_RUN_DIR": str(own_node.run_dir)}
        argv = [*as_nobody(own_node, "--new-netns=false"), "sleep", "100"]
        own_node.adopt(own_node.sandbox.start(argv, cgroup="apps", env=env))
        own_node.wait(lambda number=number: len(own_node.get("apps")) == number + 1, "it runs")
    refused = own_node.host(*as_nobody(own_node, "--new-netns=false"), "true")
    assert refused.code == 75 and "--user-apps" in refused.err
    assert own_node.run("--new-netns=false", "true").code == 0
    other = own_node.host("setpriv", "--reuid=4711", "--clear-groups", AX, "run", "--new-netns=false", "true")
    assert other.code == 0


ASK_AS_NOBODY = """
import http.client, os, socket, sys
os.setuid(65534)
c = http.client.HTTPConnection("localhost"); c.sock = socket.socket(socket.AF_UNIX)
c.sock.connect(sys.argv[1])
c.request(*sys.argv[2:4], body='{"target": "1"}', headers={"Content-Type": "application/json"})
print(c.getresponse().read().decode())
"""


def test_attach_is_roots(node: Node) -> None:
    """Not the group's, either: here by a file mode.  So is handing in seccomp descriptors."""
    path = node.run_dir / "api.sock"
    mode = path.stat().st_mode & 0o777
    path.chmod(0o666)
    try:
        for method, where in (("POST", "/v1/apps"), ("DELETE", "/v1/apps/x")):
            asked = node.host("python3", "-c", ASK_AS_NOBODY, str(path), method, where)
            assert "only root may attach" in asked.ok()
    finally:
        path.chmod(mode)
    assert (node.run_dir / "oci.sock").stat().st_mode & 0o777 == 0o600
