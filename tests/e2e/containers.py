"""Containers by runc, with what docker gives an unprivileged one: no Python, no network, few capabilities.

The image is busybox; `ax` and the run directory are mounted as the manual's docker lines do it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import count
from pathlib import Path
from typing import Any, Final

from .node import AX, Node
from .sandbox import Process, Result, cgroup2_root, wait_until

CAPABILITIES: Final = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
        "SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)
"""Docker's default set (moby, oci/caps/defaults.go)."""
REFUSED: Final = (
    "acct bpf clock_settime delete_module fsopen init_module kexec_load keyctl mount move_mount open_tree "
    "perf_event_open pivot_root ptrace quotactl reboot setns settimeofday swapon umount umount2 unshare"
).split()
"""Of docker's default profile, what an app might try: EPERM without CAP_SYS_ADMIN."""
MASKED: Final = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
HOST_FOLDERS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
"""What makes an image with glibc, nginx, curl and Python, without a download."""


def _mount(source: Path | str, target: str, *options: str, kind: str = "bind") -> dict[str, Any]:
    bind = ("rbind",) if kind == "bind" else ()
    return {"destination": target, "type": kind, "source": str(source), "options": [*bind, *options]}


class Containers:
    """Makes and ends them; every one is in the sandbox of a node, network none."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.base = node.base / "containers"
        self.base.mkdir()
        self._runc = ["runc", "--root", str(self.base / "state")]
        self._count = count()
        self._running: dict[str, Process | None] = {}
        self.image = self._make_image()
        self._host_image = self._make_host_image()

    def _make_image(self) -> Path:
        root = self.base / "image"
        for folder in ("bin", "dev", "etc", "proc", "sys", "tmp", "usr/bin", "var/run/appswitch", "www"):
            (root / folder).mkdir(parents=True)
        busybox = root / "bin/busybox"
        shutil.copy(shutil.which("busybox") or "/bin/busybox", busybox)
        listing = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
        for applet in listing.stdout.split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
        (root / "usr/bin/ax").touch()
        (root / "www/index.html").write_text("from a container\n")
        return root

    def _make_host_image(self) -> Path:
        root = self.base / "host-image"
        for folder in ("dev", "etc", "proc", "sys", "tmp", "var/run/appswitch"):
            (root / folder).mkdir(parents=True)
        for folder in map(Path, HOST_FOLDERS):
            inside = root / folder.relative_to("/")
            if folder.is_symlink():
                inside.symlink_to(folder.readlink())
            elif folder.exists():
                inside.mkdir()
        (root / "ax").touch()
        (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
        (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        return root

    def argv(self, name: str, args: tuple[str, ...], **changes: Any) -> list[str]:
        """The runc line of a container; see `config` for the changes."""
        bundle = self.base / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self.config(name, args, **changes)))
        self._running[name] = None
        return [*self._runc, "run", "--bundle", str(bundle), name]

    def config(
        self,
        name: str,
        args: tuple[str, ...],
        *,
        uid: int = 0,
        extra: tuple[str, ...] = (),
        netns: str = "",
        host_programs: bool = False,
        run_dir: Path | None = None,
        resolv: str | None = None,
        user_namespace: bool = False,
    ) -> dict[str, Any]:
        """OCI runtime configuration: `extra` capabilities, `netns` a namespace that is there,
        `resolv` the text of its /etc/resolv.conf, mounted as docker does."""
        capabilities = [*CAPABILITIES, *extra]
        refused = [call for call in REFUSED if "CAP_SYS_ADMIN" not in extra or call in ("bpf", "ptrace")]
        mounts = [
            _mount("proc", "/proc", kind="proc"),
            _mount("tmpfs", "/dev", "nosuid", "mode=755", kind="tmpfs"),
            _mount("tmpfs", "/tmp", "nosuid", "mode=1777", kind="tmpfs"),
            _mount("/sys", "/sys", "nosuid", "noexec", "nodev", "ro"),
            _mount(AX, "/ax" if host_programs else "/usr/bin/ax", "ro"),
            _mount(run_dir or self.node.run_dir, "/var/run/appswitch"),
        ]
        if host_programs:
            whole = [
                folder for folder in map(Path, HOST_FOLDERS) if folder.is_dir() and not folder.is_symlink()
            ]
            mounts += [_mount(folder, str(folder), "ro") for folder in whole]
            mounts.append(_mount(self.node.base, str(self.node.base)))
        if resolv is not None:
            file = self.base / f"{name}-resolv.conf"
            file.write_text(resolv)
            mounts.append(_mount(file, "/etc/resolv.conf"))
        namespaces: list[dict[str, str]] = [
            {"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")
        ]
        namespaces.append({"type": "network"} | ({"path": netns} if netns else {}))
        linux: dict[str, Any] = {
            "namespaces": namespaces,
            "cgroupsPath": self.cgroup(name),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            },
        }
        if user_namespace:
            namespaces.append({"type": "user"})
            mapping = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
            linux |= {"uidMappings": mapping, "gidMappings": mapping}
        sets = ("bounding", "effective", "permitted") if not uid else ("bounding",)
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": uid, "gid": uid},
                "args": args,
                "env": ["PATH=/bin:/usr/bin"],
                "cwd": "/",
                "capabilities": dict.fromkeys(sets, capabilities),
            },
            "root": {"path": str(self._host_image if host_programs else self.image), "readonly": True},
            "mounts": mounts,
            "linux": linux,
        }

    def cgroup(self, name: str) -> str:
        """Its cgroup below the mount of each hierarchy: flat, since runc removes only the last folder."""
        return f"/{self.node.sandbox.cgroup.name}-{name}"

    def cgroup_path(self, name: str) -> Path:
        """The same of cgroup v2, as the host sees it."""
        return cgroup2_root() / self.cgroup(name)[1:]

    def run(self, *args: str, **changes: Any) -> Result:
        """`docker run --rm --network none … ARGS` to its end."""
        if changes.get("host_programs") and args[0] == "/usr/bin/ax":
            args = ("/ax", *args[1:])
        name = f"c{next(self._count)}"
        try:
            return self.node.sandbox.run(self.argv(name, args, **changes), cgroup="apps")
        finally:
            self.remove(name)

    def ax(self, *args: str, **changes: Any) -> Result:
        """The same with `ax run ARGS`."""
        return self.run("/usr/bin/ax", "run", *args, **changes)

    def start(self, name: str, *args: str, **changes: Any) -> Process:
        """`ax run ARGS` in a container, in the background."""
        ax = "/ax" if changes.get("host_programs") else "/usr/bin/ax"
        process = self.node.sandbox.start(self.argv(name, (ax, "run", *args), **changes), cgroup="apps")
        self._running[name] = process
        return process

    def exec(self, name: str, *args: str) -> Result:
        """`docker exec NAME ARGS`."""
        return self.node.sandbox.run([*self._runc, "exec", name, *args], cgroup="apps")

    def remove(self, name: str) -> None:
        """`docker rm -f NAME`."""
        process = self._running.pop(name)
        subprocess.run([*self._runc, "delete", "--force", name], capture_output=True, check=False)
        if process is not None:
            process.wait(10)
        wait_until(lambda: not self.cgroup_path(name).exists(), f"the cgroup of container {name} goes")

    def close(self) -> None:
        """Ends those that are left."""
        for name in tuple(self._running):
            self.remove(name)
        shutil.rmtree(self.base)
