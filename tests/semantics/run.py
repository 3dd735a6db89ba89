"""Runs the programs natively and under `ax run` and says where they differ: tests/semantics/run.py [MODULE].

Root.  Natively: two network namespaces joined by one wire, one for each side.  Inside: two apps of one
node, with namespaces of their own (`empty`) or without (`own`).  All of it without a route out.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.node import Node
from e2e.sandbox import Process, Sandbox, wait_until
from e2e.servers import PYTHON

from semantics.stage import CLIENT, OWN, SERVER

HERE = Path(__file__).parent
MODULES = sorted(path.stem for path in (HERE / "cases").glob("*.py"))
STYLES = ("blocking", "nonblocking")
ADDRESSES = {"one": OWN, "server": SERVER, "client": CLIENT}
PLACES = {"empty": [], "own": ["--new-netns=false"]}
PAGE = HERE.parents[1] / "docs" / "differences.md"
BEGIN, END = "<!-- semantics -->\n", "<!-- /semantics -->\n"

Transcript = dict[str, list[str]]
"""Lines by `MODULE.CASE SIDE`."""


@dataclass(frozen=True)
class Difference:
    """One line of a transcript that is not as it is natively."""

    case: str
    place: str
    native: str
    inside: str

    def __str__(self) -> str:
        return f"{self.case} ({self.place})\n    native: {self.native}\n    inside: {self.inside}"


class Machines:
    """Two machines on one wire, and a third alone, without AppSwitch."""

    def __init__(self, base: Path) -> None:
        self._sides = {side: Sandbox(base / side) for side in ADDRESSES}
        server, client = self._sides["server"], self._sides["client"]
        self._peer = peer = client.start(["sleep", "infinity"])  # in the namespace that the wire leads to
        wait_until(lambda: "sleep" in Path(f"/proc/{peer.pid}/comm").read_text(), "it is there")
        server.run(["ip", "link", "add", "wire", "type", "veth", "peer", "wire", "netns", str(peer.pid)]).ok()
        for side, own, other in ((server, SERVER, CLIENT), (client, CLIENT, SERVER)):
            side.run(["ip", "address", "add", f"{own}/32", "dev", "wire"]).ok()
            side.run(["ip", "link", "set", "wire", "up"]).ok()
            side.run(["ip", "route", "add", f"{other}/32", "dev", "wire", "src", own]).ok()
            side.run(["sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"]).ok()
        self._sides["one"].run(["ip", "address", "add", f"{OWN}/32", "dev", "br0"]).ok()

    def start(self, side: str, argv: list[str]) -> Process:
        """Runs one side's program."""
        return self._sides[side].start(argv)

    def close(self) -> None:
        """Ends them."""
        self._peer.stop()
        for side in self._sides.values():
            side.close()


class Inside:
    """Two apps of a node."""

    def __init__(self, node: Node, flags: list[str]) -> None:
        self._node = node
        self._flags = flags

    def start(self, side: str, argv: list[str]) -> Process:
        """Runs one side's program as an app."""
        return self._node.start("--ip", ADDRESSES[side], *self._flags, *argv)


def perform(where: Machines | Inside, module: str, style: str, base: Path) -> Transcript:
    """One module's transcript in one place."""
    found: Transcript = {}
    with tempfile.TemporaryDirectory(dir=base, prefix="play-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        link = folder / "link"

        def start(side: str) -> tuple[str, Path, Process]:
            report = folder / side
            argv = [PYTHON, str(HERE / "play.py"), module, side, style, str(report)]
            return side, report, where.start(side, argv if side == "one" else [*argv, str(link)])

        running = [start("one"), start("server")]
        wait_until(lambda: link.exists() or running[1][2].popen.poll() is not None, "the server's side is up")
        running.append(start("client"))
        try:
            codes = [process.wait(60) for _, _, process in running]
        except AssertionError as error:
            raise AssertionError(
                f"{error}\n{[(side, report.read_text()) for side, report, _ in running]}"
            ) from None
        said = "\n".join(f"{side}: {process.output()}" for side, _, process in running)
        assert codes == [0, 0, 0], f"{module}: {codes}\n{said}"
        for side, report, _ in running:
            for line in report.read_text().splitlines():
                case, lines = json.loads(line)
                found[f"{module}.{case} {side}".removesuffix(" one")] = lines
    return found


def compare(native: Transcript, inside: Transcript, place: str, style: str) -> list[Difference]:
    """Line by line."""
    found = []
    for case, lines in native.items():
        others = inside.get(case, [])
        for at in range(max(len(lines), len(others))):
            one = lines[at] if at < len(lines) else "(nothing)"
            two = others[at] if at < len(others) else "(nothing)"
            if one != two:
                found.append(Difference(case, f"{place}, {style}", one, two))
                if "failed" in one + two:
                    break  # the rest is its consequence
    return found


def explained() -> list[dict[str, str]]:
    """The data file: case (a pattern), native and inside (patterns of lines), what, why, place."""
    rows: list[dict[str, str]] = tomllib.loads((HERE / "explained.toml").read_text())["explained"]
    return rows


def explains(row: dict[str, str], difference: Difference) -> bool:
    """Whether the row foresees it."""
    return all(
        fnmatchcase(said, row.get(field, "*").replace("[", "[[]")) for field, said in vars(difference).items()
    )


def document(page: str) -> str:
    """The page with its table as the data says."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = dict.fromkeys(f"| {row['what']} | {row['why']} |" for row in explained())
    return before + BEGIN + "\n".join(["| what | why |", "|---|---|", *rows]) + "\n" + END + after


@contextmanager
def machines(base: Path) -> Iterator[Machines]:
    """Two machines, and none afterwards."""
    made = Machines(base)
    try:
        yield made
    finally:
        made.close()


def main() -> int:
    """The script; its exit status."""
    if sys.argv[1:] == ["--document"]:
        PAGE.write_text(document(PAGE.read_text()))
        return 0
    unexplained: dict[tuple[str, str, str], list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="axs-") as name:
        base = Path(name)
        base.chmod(0o755)
        with machines(base) as native, Node(base / "node") as node:
            for module in sys.argv[1:] or MODULES:
                for style in STYLES:
                    began = time.monotonic()
                    expected = perform(native, module, style, base)
                    lines = sum(map(len, expected.values()))
                    for place, flags in PLACES.items():
                        inside = perform(Inside(node, flags), module, style, base)
                        node.stop_apps()
                        found = compare(expected, inside, place, style)
                        rest = [d for d in found if not any(explains(row, d) for row in explained())]
                        for difference in rest:
                            what = (difference.case, difference.native, difference.inside)
                            unexplained.setdefault(what, []).append(difference.place)
                    print(f"{module}, {style}: {lines} lines, {time.monotonic() - began:.1f} s", flush=True)
    for (case, one, two), places in unexplained.items():
        print(f"NOT EXPLAINED: {case} ({'; '.join(places)})\n    native: {one}\n    inside: {two}")
    return int(bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
