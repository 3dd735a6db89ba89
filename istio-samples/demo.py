"""The main job, end to end, explaining itself: `make demo` (root, at most three minutes).

Everything runs on a machine of its own: a network namespace without a route out, where 1.1.1.1 cannot be
reached unless AppSwitch does it.  Each command is printed before its output; each result is checked; the
first wrong one ends the demo with exit status 1.  However it ends, nothing is left behind.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "istio-samples")]

from e2e.node import AX, Node  # noqa: E402
from e2e.sandbox import NODE_IP, Process, wait_until  # noqa: E402
from e2e.servers import nginx_argv  # noqa: E402

BOOKINFO = ROOT / "istio-samples/bookinfo"
ISTIOD = "127.0.0.1:15010"
NODE_ID = "sidecar~10.244.9.1~client-1.default~default.svc.cluster.local"
REVIEWS = "10.96.1.3:9080"
PODS = {"reviews-v1": "10.244.1.31", "reviews-v2": "10.244.1.32", "reviews-v3": "10.244.1.33"}
CLIENT = "10.244.9.1"
HELLO = "Hello from nginx\n"


class Wrong(Exception):
    """A command did not show what it should."""


class Demo:
    """Types commands on a node, and looks at what they print."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(folder, start=False)
        self.checks = 0
        self.env = {
            "PATH": f"{Path(AX).parent}:{os.environ['PATH']}:/usr/sbin",
            "AX_RUN_DIR": str(self.node.run_dir),
        }

    def title(self, text: str) -> None:
        """Starts a chapter."""
        print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)

    def daemon(self, *flags: str) -> None:
        """`ax daemon FLAGS &`, until it answers."""
        print(f"\n$ ax daemon --node-name host0 {' '.join(flags)} &".replace("  ", " "), flush=True)
        self.node.start_daemon(*flags)

    def background(self, command: str, address: str = "", number: int = 1) -> Process:
        """`COMMAND &`, until ADDRESS (IP:port) has NUMBER servers."""
        print(f"\n$ {command} &", flush=True)
        process = self.node.start_shell(command, self.env, BOOKINFO)
        if address:
            ip, port = address.split(":")
            self.node.wait_service(ip, int(port), number)
        return process

    def run(self, command: str, what: str, right: Callable[[str], object], code: int = 0) -> str:
        """Runs COMMAND in the foreground, prints what it says, and checks it."""
        print(f"\n$ {command}", flush=True)
        result = self.node.shell(command, self.env, BOOKINFO)
        text = result.out + result.err
        print(text.rstrip("\n"), flush=True)
        verdict = what if result.code == code else f"{what} (exit status {result.code}, not {code})"
        self.check(result.code == code and bool(right(text)), verdict)
        return result.out

    def check(self, right: bool, what: str) -> None:
        """Prints the verdict; raises Wrong."""
        print(f"{'ok' if right else 'WRONG'}: {what}", flush=True)
        if not right:
            raise Wrong(what)
        self.checks += 1


def addresses_and_names(demo: Demo) -> None:
    """The first page of the manual."""
    demo.title("A server on any address, a client that keeps its own")
    web = demo.node.base / "web"
    nginx_argv(web, HELLO)
    demo.env["WEB"] = str(web)
    print(f"\n$ WEB={web}")
    nginx = "nginx -p $WEB -c $WEB/nginx.conf -g 'daemon off;'"
    demo.background(f"ax run --ip 1.1.1.1 --name web {nginx}", "1.1.1.1:80")
    demo.run("curl -sS --max-time 3 1.1.1.1", "the host has no way to 1.1.1.1", lambda t: "curl: (7)" in t, 7)
    demo.run("ax run --ip 2.2.2.2 curl -sSI 1.1.1.1", "nginx answers on 1.1.1.1", lambda t: "200 OK" in t)
    demo.run("cat $WEB/access.log", "nginx saw the client as 2.2.2.2", lambda t: t.startswith("2.2.2.2 "))
    demo.run("ax run -- curl -sS http://web", "it is reached by name", lambda t: t == HELLO)
    without = "ax run --new-netns=false curl -sS http://web"
    demo.run(without, "and without a namespace of the client's own", lambda t: t == HELLO)


def balance_and_labels(demo: Demo) -> None:
    """Two servers on one address; labels."""
    demo.title("Two servers on one address, balanced")
    for name in ("one", "two"):
        demo.background(f"ax run --ip 3.3.3.3 python3 pod.py {name} 80")
    demo.node.wait_service("3.3.3.3", 80, 2)
    hundred = "ax run -- python3 count.py 3.3.3.3 80 100"
    split = demo.run(hundred, "both answer", lambda t: set(counts(t)) == {"one", "two"})
    demo.check(min(counts(split).values()) >= 25, "in about equal parts")

    demo.title("Labels: who shares one may talk")
    demo.background("ax run --ip 4.4.4.4 --labels role=prod python3 pod.py prod 80", "4.4.4.4:80")
    admitted = "ax run --labels role=prod curl -sS 4.4.4.4"
    demo.run(admitted, "role=prod is admitted", lambda t: t == "prod\n")
    refused = "ax run --labels role=test curl -sS 4.4.4.4"
    demo.run(refused, "role=test is refused", lambda t: "curl: (7)" in t, 7)
    table = demo.run("ax get servers", "the service table lists all", lambda t: t.count(" tcp ") >= 4)
    why = "ax explain --labels role=test 4.4.4.4:80"
    demo.run(why, "the decision can be asked for", lambda t: "EACCES" in t)
    _, _, app, _, _, real = next(line.split() for line in table.splitlines() if "1.1.1.1:80" in line)
    demo.run(
        f"ax explain --from {app} 3.3.3.3:80", "for a running app too", lambda t: t.count("3.3.3.3:80") > 2
    )
    stranger = f"curl -sS --max-time 2 {real}"
    demo.run(stranger, "the real port is closed to strangers", lambda t: "curl: (7)" in t, 7)


def counts(text: str) -> Counter[str]:
    """What `count.py` printed: `NUMBER NAME` lines."""
    found = re.findall(r"^\s*(\d+) (\S+)$", text, re.MULTILINE)
    return Counter({name: int(number) for number, name in found})


def istio(demo: Demo) -> None:
    """bookinfo, from the recorded pushes of a real istiod."""
    demo.title("Istio: the recorded pushes of a real istiod move real connections")
    replay = demo.background(f"python3 play.py --port {ISTIOD[-5:]}")
    demo.node.stop_daemon()
    print("\n(the daemon is stopped; nginx goes on, and the next daemon takes over)")
    demo.daemon("--istio", ISTIOD, "--istio-node-id", NODE_ID)
    demo.run("ax run -- curl -sS http://web", "nginx was not disturbed", lambda t: t == HELLO)
    for name, ip in PODS.items():
        demo.background(f"ax run --ip {ip} python3 pod.py {name} 9080", f"{ip}:9080")
    wait_until(lambda: "10.96.1.3" in str(demo.node.get("vservices")), "the first push arrives", 20)
    vservices = "ax get vservices | grep -E 'VSNAME|reviews'"
    demo.run(vservices, "reviews is a vservice", lambda t: "10.96.1.3" in t)
    address, port = REVIEWS.split(":")
    hundreds = f"ax run --ip {CLIENT} python3 count.py {address} {port} 400"
    split = counts(demo.run(hundreds, "400 connections to reviews", lambda t: counts(t).total() == 400))
    shares = set(split) == {"reviews-v1", "reviews-v2"} and 280 <= split["reviews-v1"] <= 360
    demo.check(shares, "split 80/20 between v1 and v2, as the VirtualService says")
    held = demo.background(f"ax run --ip {CLIENT} python3 hold.py {address} {port}")
    wait_until(lambda: "reviews-v" in held.output(), "the long connection is up")
    before = held.output().split()[0]
    print("\n(istiod's next push: the VirtualService now sends all to v3)\n$ kill -USR1 %replay", flush=True)
    replay.popen.send_signal(signal.SIGUSR1)
    wait_until(lambda: PODS["reviews-v3"] in reviews(demo), "the next push arrives", 20)
    demo.run(hundreds, "all 400 go to v3", lambda t: counts(t) == {"reviews-v3": 400})
    lines = len(held.output().splitlines())
    wait_until(lambda: len(held.output().splitlines()) > lines + 2, "the long connection goes on")
    answers = {line.split()[0] for line in held.output().splitlines()}
    print(f"\n$ tail -1 held.log\n{held.output().splitlines()[-1]}")
    alive = answers == {before} and held.popen.poll() is None
    demo.check(alive, f"the long connection lives on with {before}")
    print(f"\n$ tail -4 play.log\n{chr(10).join(replay.output().splitlines()[-4:])}")
    content = replay.popen.poll() is None and "fault" not in replay.output()
    demo.check(content, "every push was acknowledged as a real istiod expects it")


def reviews(demo: Demo) -> str:
    """The backends of reviews' vservice."""
    rows = [row for row in demo.node.get("vservices") if "10.96.1.3" in row["ips"]]
    return str([row["backends"] for row in rows])


def play(folder: Path) -> int:
    """The whole demo; how many checks it passed."""
    demo = Demo(folder)
    leaks: list[str] = []
    try:
        print(f"This machine has the address {NODE_IP} and no route to anywhere.")
        demo.daemon()
        addresses_and_names(demo)
        balance_and_labels(demo)
        istio(demo)
        demo.title("The end: apps and daemon stop")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C must not stop the clean-up
        leaks += demo.node.close()
    demo.check(not leaks, f"no process, namespace, cgroup, pinned object or mount is left{leaks or ''}")
    return demo.checks


def main() -> int:
    """Exit status 0 only if every check passed."""
    if os.geteuid() != 0:
        print("demo: needs root: network namespaces, cgroups and eBPF (try: sudo make demo)", file=sys.stderr)
        return 71
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="axd-"))
    folder.chmod(0o755)
    try:
        checks = play(folder)
    except (Wrong, AssertionError) as wrong:
        print(f"\ndemo: wrong: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything was ended and removed", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder)
    print(f"\ndemo: {checks} checks passed in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
