"""The launcher against a scripted daemon: what it says, what it sets up, what is left to exec."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.fake_daemon import OK, fake_daemon

from appswitch.interceptor import build

AX = build.BUILT / build.launcher_name(platform.machine())


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """Short, as the path of a Unix socket must be, and open to every user."""
    with tempfile.TemporaryDirectory(prefix="ax-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def ax(
    run_dir: Path, *arguments: str | bytes, uid: int | None = None, ax_path: Path = AX
) -> subprocess.CompletedProcess[str]:
    """One `ax ARGUMENTS`, to its end."""
    return subprocess.run(
        [ax_path, *arguments],
        env={**os.environ, "AX_RUN_DIR": str(run_dir)},
        capture_output=True,
        text=True,
        timeout=30,
        user=uid,
        check=False,
    )


def test_hello_carries_the_flags_as_given(run_dir: Path) -> None:
    with fake_daemon(run_dir) as daemon:
        result = ax(
            run_dir,
            *(
                "run",
                "--ip",
                "1.1.1.1",
                "--name=web",
                "--labels",
                'a="b\\",ü=\x01\x7f',
                "--expose",
                "80:81,82:83",
            ),
            *("--expose=84:1.2.3.4:85", "--user", "0", "--new-netns=false", "--dns-override=false"),
            *("--namespace", "prod", "--service-account=sa", "--connect-wait=2m", "--", "echo", "--ip", "-n"),
        )
    assert (result.stdout, result.returncode) == ("--ip -n\n", 0)
    assert daemon.hello == {
        "version": 1,
        "ip": "1.1.1.1",
        "name": "web",
        "labels": 'a="b\\",ü=\x01\x7f',
        "expose": ["80:81", "82:83", "84:1.2.3.4:85"],
        "user": "0",
        "interface": "",
        "new_netns": False,
        "dns_override": False,
        "namespace": "prod",
        "service_account": "sa",
        "kept": [],
        "closed": [],
        "lonely": False,
        "connect_wait": "2m",
        "cwd": os.getcwd(),
        "command": ["echo", "--ip", "-n"],
    }


def test_flags_stand_for_run_and_a_command_ends_them(run_dir: Path) -> None:
    with fake_daemon(run_dir) as daemon:
        result = ax(run_dir, "--labels", "role=test", "--no-new-netns", "printf", "%s", "--ip")
    assert (result.stdout, daemon.hello["labels"], daemon.hello["ip"]) == ("--ip", "role=test", "")
    assert (daemon.hello["expose"], daemon.hello["new_netns"], daemon.hello["dns_override"]) == (
        [],
        False,
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--foo=1", "true"], "unknown flag --foo (see: ax run -h)"),
        (["-x", "true"], "unknown flag -x (see: ax run -h)"),
        (["--ip"], "--ip: a value is missing"),
        (["--new-netns=maybe", "true"], "--new-netns=maybe: neither true nor false"),
        ([], "no command to run (see: ax run -h)"),
        (["--"], "no command to run (see: ax run -h)"),
        (
            ["--interface=eth0", "--new-netns=false", "true"],
            "--interface needs a network namespace: not with",
        ),
        (["--run-dir", "/" + "x" * 120, "true"], "--run-dir: too long for the path of a socket: /xxx"),
        (["--labels", "a=" + "x" * 40_000, "true"], "the flags are too long: 40"),
    ],
)
def test_usage_errors_are_one_line(run_dir: Path, arguments: list[str], message: str) -> None:
    result = ax(run_dir, "run", *arguments)
    assert result.stderr.startswith(f"ax run: {message}")
    assert (result.stderr.count("\n"), result.returncode) == (1, 64)


@pytest.mark.parametrize(
    "value",
    [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80", b"\xf0\x80\x80\x80"],
)
def test_bytes_that_are_not_utf8(run_dir: Path, value: bytes) -> None:
    """A flag's must be; a command runs with any, and is shown with replacement characters."""
    refused = ax(run_dir, "run", b"--name=" + value, "true")
    assert (refused.stderr, refused.returncode) == ("ax run: --name: not UTF-8\n", 65)
    with fake_daemon(run_dir) as daemon:
        result = ax(run_dir, "run", "--new-netns=false", "sh", "-c", 'printf %s "$0" | od -An -tx1', value)
    assert bytes.fromhex(result.stdout) == value
    assert set(daemon.hello["command"][-1]) == {"\ufffd"}


def test_a_long_command_line_runs_and_is_shown_shortened(run_dir: Path) -> None:
    words = ["sh", "-c", "echo ${#1}", "x" * 100, "y" * 100_000, "z"]
    with fake_daemon(run_dir) as daemon:
        result = ax(run_dir, "run", "--new-netns=false", *words)
    assert result.stdout == "100000\n"
    assert daemon.hello["command"] == words[:4]
    assert len(daemon.hellos[0]) <= 65_536


def test_why_nobody_answers(run_dir: Path) -> None:
    missing = ax(run_dir / "none", "run", "true")
    assert f"there is no {run_dir}/none (start one with: ax daemon; in a container, mount" in missing.stderr
    with fake_daemon(run_dir):
        closed = ax(world_readable(run_dir), "run", "true", uid=4711)
    assert closed.stderr == (
        f"ax run: {run_dir}/daemon.sock: Permission denied (its directory must let this user through)\n"
    )
    nobody = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    (run_dir / "daemon.sock").unlink()
    with nobody:
        nobody.bind(str(run_dir / "daemon.sock"))
        deaf = ax(run_dir, "run", "true")
    assert "daemon.sock: Connection refused (start one with: ax daemon; in a container" in deaf.stderr
    assert (missing.returncode, closed.returncode, deaf.returncode) == (69, 77, 69)


def test_no_daemon(run_dir: Path) -> None:
    result = ax(run_dir, "run", "true")
    assert result.stderr == f"ax run: no daemon at {run_dir}/daemon.sock (start one with: ax daemon)\n"
    assert result.returncode == 69


@pytest.mark.parametrize("reply", [b"error\ncode=65\nmessage=--ip 'x' is no IPv4 address\n"])
def test_the_daemons_refusal_is_passed_on(run_dir: Path, reply: bytes) -> None:
    with fake_daemon(run_dir, reply=reply):
        result = ax(run_dir, "run", "--ip", "x", "true")
    assert (result.stderr, result.returncode) == ("ax run: --ip 'x' is no IPv4 address\n", 65)


def test_a_refusal_in_the_second_step_is_passed_on(run_dir: Path) -> None:
    with fake_daemon(run_dir, go=b"error\ncode=75\nmessage=the holder is full\n"):
        result = ax(run_dir, "run", "true")
    assert (result.stderr, result.returncode) == ("ax run: the holder is full\n", 75)


@pytest.mark.parametrize(
    ("reply", "go", "message"),
    [
        (None, b"go\n", "went away during the launch"),
        (OK, None, "went away during the launch"),
        (b"HTTP/1.1 400\n", b"go\n", "is no daemon of this release"),
        (b"\n", b"go\n", "is no daemon of this release"),
        (OK, b"stop\n", "is no daemon of this release"),
        (OK, b"ok\n", "did not take the app"),
    ],
)
def test_a_daemon_that_fails_half_way(
    run_dir: Path, reply: bytes | None, go: bytes | None, message: str
) -> None:
    with fake_daemon(run_dir, reply=reply, go=go):
        result = ax(run_dir, "run", "echo", "started")
    assert (result.stdout, result.returncode) == ("", 69)
    assert message in result.stderr and str(run_dir) in result.stderr


@pytest.mark.parametrize("netns", ["--new-netns=true", "--new-netns=false"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
        (["sh", "-c", "kill -SEGV $$"], -signal.SIGSEGV),
        (["no-such-program-here"], 127),
        (["/no/such/program"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exit_status_is_the_programs_own(run_dir: Path, netns: str, command: list[str], code: int) -> None:
    with fake_daemon(run_dir):
        result = ax(run_dir, "run", netns, *command)
    assert result.returncode == code
    assert not result.stderr or result.stderr.startswith(f"ax run: {command[0]}: ")


@pytest.mark.parametrize("netns", ["--new-netns=true", "--new-netns=false"])
def test_the_program_inherits_nothing_of_ours(run_dir: Path, netns: str) -> None:
    """Same pid as the launcher, no descriptor of ours, the caller's signal mask, no no_new_privs."""
    look = "echo $$; ls /proc/self/fd | wc -l; grep -E 'SigBlk|SigIgn|NoNewPrivs' /proc/self/status"
    native = subprocess.run(["sh", "-c", look], capture_output=True, text=True, check=True).stdout
    with fake_daemon(run_dir) as daemon:
        result = ax(run_dir, "run", netns, "sh", "-c", look)
    pid, rest = result.stdout.split("\n", 1)
    assert rest == native.split("\n", 1)[1]
    assert daemon.peers == [(int(pid), 0, 0)]


INHERIT = """
import os, socket, sys
kept, lost, unix = socket.socket(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), socket.socketpair()[0]
os.dup2(lost.fileno(), 20)
os.dup2(unix.fileno(), 21)
if sys.argv[1] == "inetd":
    os.dup2(kept.fileno(), 0)
else:
    os.dup2(kept.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize(("how", "kept"), [("inetd", 0), ("systemd", 3)])
def test_sockets_of_the_caller(run_dir: Path, how: str, kept: int) -> None:
    """Those that are meant for the program stay; others would be a way around the mesh."""
    look = f"readlink /proc/self/fd/{kept} /proc/self/fd/20 /proc/self/fd/21"
    with fake_daemon(run_dir) as daemon:
        command = [sys.executable, "-c", INHERIT, how, AX, "run", "--run-dir", run_dir, "sh", "-c", look]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["socket", "socket"]
    assert (daemon.hello["kept"], daemon.hello["closed"]) == ([kept], [20])


def test_namespace_has_lo_with_the_apps_address(run_dir: Path) -> None:
    with fake_daemon(run_dir, reply=OK + b"ip=1.1.1.1\n") as daemon:
        result = ax(run_dir, "run", "ip", "-br", "address")
        other = ax(run_dir, "run", "--new-netns=false", "readlink", "/proc/self/ns/net")
    assert result.stdout.split() == ["lo", "UNKNOWN", "127.0.0.1/8", "1.1.1.1/32", "::1/128"]
    assert other.stdout.strip() == os.readlink("/proc/self/ns/net")
    assert daemon.messages == [(b"filter", 1)]


def test_interface(run_dir: Path) -> None:
    with fake_daemon(run_dir, reply=OK + b"ip=1.1.1.1\n"):
        result = ax(run_dir, "run", "--interface", "eth0", "ip", "-4", "-br", "address")
        taken = ax(run_dir, "run", "--interface", "lo", "true")
    lo, eth0 = result.stdout.splitlines()
    assert lo.split() == ["lo", "UNKNOWN", "127.0.0.1/8"]
    assert (eth0.split()[0], eth0.split()[2]) == ("eth0", "1.1.1.1/32")
    assert (taken.returncode, taken.stderr.count("\n")) == (71, 1)


def test_resolv_conf_is_the_apps_alone(run_dir: Path) -> None:
    ours = run_dir / "resolv.conf"
    ours.write_text("nameserver 241.255.255.53\n")
    hosts = Path("/etc/resolv.conf").read_bytes()
    with fake_daemon(run_dir, reply=OK + b"resolv=" + bytes(ours) + b"\n"):
        for flag in "--new-netns=true", "--new-netns=false":
            result = ax(run_dir, "run", flag, "cat", "/etc/resolv.conf")
            assert result.stdout == ours.read_text()
        kept = ax(run_dir, "run", "--dns-override=false", "cat", "/etc/resolv.conf")
        written = ax(run_dir, "run", "sh", "-c", "echo spoiled >/etc/resolv.conf")
    assert kept.stdout.encode() == hosts == Path("/etc/resolv.conf").read_bytes()
    assert written.returncode != 0 and ours.read_text() == "nameserver 241.255.255.53\n"


def test_resolv_conf_is_left_where_the_caller_may_not_mount(run_dir: Path) -> None:
    with fake_daemon(run_dir, reply=OK + b"resolv=/dev/null\n"):
        (run_dir / "daemon.sock").chmod(0o666)
        result = ax(
            world_readable(run_dir), "run", "--new-netns=false", "wc", "-c", "/etc/resolv.conf", uid=65534
        )
    assert result.stdout.split()[0] == str(Path("/etc/resolv.conf").stat().st_size)


def test_an_ordinary_user_gets_a_user_namespace(run_dir: Path) -> None:
    """Itself and nobody else in it, with no right over it that outlives exec."""
    (run_dir / "resolv.conf").write_text("nameserver 241.255.255.53\n")
    script = (
        "id -u; id -g; cat /etc/resolv.conf; ip -4 -br address; grep Cap[IPEA] /proc/self/status; ls -ln /"
    )
    with fake_daemon(run_dir, reply=OK + f"ip=1.1.1.1\nresolv={run_dir}/resolv.conf\n".encode()) as daemon:
        (run_dir / "daemon.sock").chmod(0o666)
        result = ax(world_readable(run_dir), "run", "sh", "-ec", script, uid=4711)
    lines = result.stdout.splitlines()
    assert lines[:4] == ["4711", "0", "nameserver 241.255.255.53", lines[3]], result
    assert lines[3].split() == ["lo", "UNKNOWN", "127.0.0.1/8", "1.1.1.1/32"]
    assert {line.split()[1] for line in lines[4:8]} == {"0" * 16}
    assert daemon.peers[0][1:] == (4711, 0)
    assert daemon.messages == [(b"filter", 1)]


def test_where_no_namespace_may_be_made(run_dir: Path) -> None:
    """As with kernel.unprivileged_userns_clone=0: in a chroot, unshare(2) of a user namespace is EPERM."""
    root = run_dir / "root"
    root.mkdir()
    script = (
        'ip link add br0 up type bridge; mount --rbind / "$0" && exec chroot --userspec=4711:4711 "$0" "$@"'
    )
    with fake_daemon(world_readable(run_dir)):
        result = subprocess.run(
            [
                "unshare",
                "--mount",
                "--net",
                "sh",
                "-c",
                script,
                root,
                AX,
                "run",
                "--run-dir",
                run_dir,
                "true",
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert result.stderr == (
        "ax run: cannot make a network namespace: Operation not permitted (be root or let users make user "
        "namespaces, or give --new-netns=false)\n"
    )
    assert result.returncode == 77


def world_readable(path: Path) -> Path:
    """`path`; and the launcher may be run by others than the builder."""
    if AX.stat().st_mode & 0o001 == 0 or not _others_reach(AX):
        pytest.skip(f"{AX} is out of reach of other users")
    return path


def _others_reach(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


def test_user(run_dir: Path) -> None:
    with fake_daemon(run_dir, reply=OK + b"uid=65534\ngid=65534\n"):
        for flag in "--new-netns=true", "--new-netns=false":
            result = ax(run_dir, "run", flag, "--user", "nobody", "id")
            assert result.stdout.startswith("uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)")


SOCKETS = """
import errno, socket
def attempt(*arguments):
    try:
        socket.socket(*arguments).close()
        return "made"
    except OSError as error:
        return errno.errorcode[error.errno]
flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
for family in socket.AF_INET, socket.AF_INET6:
    print(*(attempt(family, kind | flags, protocol) for kind, protocol in (
        (socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 0), (socket.SOCK_STREAM, 6), (socket.SOCK_DGRAM, 17))))
print(attempt(socket.AF_INET, socket.SOCK_STREAM, 262), attempt(socket.AF_INET6, socket.SOCK_STREAM, 262))
print(attempt(socket.AF_UNIX, socket.SOCK_STREAM), attempt(socket.AF_NETLINK, socket.SOCK_RAW, 0),
      attempt(socket.AF_INET, socket.SOCK_RAW, 1), attempt(socket.AF_PACKET, socket.SOCK_DGRAM, 0),
      attempt(socket.AF_INET, socket.SOCK_DGRAM, 1))
a, b = socket.socketpair()
"""


def test_filter_traps_just_tcp_and_udp(run_dir: Path) -> None:
    with fake_daemon(run_dir) as daemon:
        result = ax(run_dir, "run", sys.executable, "-c", SOCKETS)
    assert result.stdout.splitlines() == [
        "ENOMSG ENOMSG ENOMSG ENOMSG",
        "ENOMSG ENOMSG ENOMSG ENOMSG",
        "EPROTONOSUPPORT EPROTONOSUPPORT",
        "made made made made EACCES",  # a ping socket: the namespace's own answer (ping_group_range)
    ]
    assert [(family, kind & 0xF, protocol) for family, kind, protocol in daemon.trapped] == [
        (family, kind, protocol) for family in (2, 10) for kind, protocol in ((1, 0), (2, 0), (1, 6), (2, 17))
    ]


FOREIGN = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
def call(number):
    page.seek(0)
    page.write(b"\\xb8" + number.to_bytes(4, "little") + b"\\xcd\\x80\\xc3")  # mov eax, N; int 0x80; ret
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(0x40000000 | 41, 2, 1, 0), ctypes.get_errno())
print(call(102), call(359), call(20) > 0, flush=True)
import os; os._exit(0)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="i386 and x32 are x86-64's")
def test_filter_refuses_sockets_of_foreign_calling_conventions(run_dir: Path) -> None:
    with fake_daemon(run_dir) as daemon:
        result = ax(run_dir, "run", sys.executable, "-c", FOREIGN)
    if result.returncode == -signal.SIGSEGV:
        pytest.skip("this kernel runs no 32-bit programs")
    assert result.stdout.splitlines() == ["-1 38", "-38 -38 True"]
    assert daemon.trapped == []


def test_run_within_run(run_dir: Path) -> None:
    """One listener per filter chain: the inner launcher says so, and the outer filter goes on."""
    with fake_daemon(run_dir) as daemon:
        result = ax(run_dir, "run", str(AX), "run", sys.executable, "-c", SOCKETS)
    assert result.stdout.startswith("ENOMSG ENOMSG")
    assert daemon.messages == [(b"filter", 1), (b"nested", 0)]


def test_other_commands_are_pythons(run_dir: Path, tmp_path: Path) -> None:
    alone = tmp_path / "ax"
    alone.write_bytes(AX.read_bytes())
    alone.chmod(0o755)
    result = ax(run_dir, "get", "apps", ax_path=alone)
    assert result.stderr == f"ax: only 'ax run' works here: no Python beside {alone}\n"
    assert result.returncode == 69
    (tmp_path / "python3").write_text('#!/bin/sh\nprintf "[%s]" "$@"\nexit 5\n')
    (tmp_path / "python3").chmod(0o755)
    (tmp_path / "link").symlink_to(alone)
    for path in alone, tmp_path / "link":
        result = ax(run_dir, "get", "apps", "-o", "a b", ax_path=path)
        assert (result.stdout, result.returncode) == ("[-P][-m][appswitch][get][apps][-o][a b]", 5)


def test_help(run_dir: Path) -> None:
    result = ax(run_dir, "run", "-h")
    assert result.returncode == 0
    for flag in [
        "ip",
        "name",
        "labels",
        "expose",
        "user",
        "interface",
        "new-netns",
        "dns-override",
        "namespace",
        "service-account",
    ]:
        assert f"  --{flag}" in result.stdout
