"""`ax daemon --cpu-profile` and `--mem-profile`: files that public viewers open."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from e2e.node import Node


def run_node(folder: Path, *flags: str) -> None:
    """A daemon that starts an app and ends."""
    node = Node(folder, *flags)
    try:
        node.run("--new-netns=false", "true").ok()
    finally:
        assert not node.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces, cgroups and eBPF")
@pytest.mark.parametrize("what", ["cpu", "mem"])
def test_a_profile_of_the_daemon(what: str) -> None:
    with tempfile.TemporaryDirectory(prefix="axp-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / ("cpu.json" if what == "cpu" else "mem.bin")
        run_node(folder, f"--{what}-profile", str(path))
        if what == "cpu":
            shared = json.loads(path.read_text())["shared"]["frames"]
            assert any("appswitch" in (frame.get("file") or "") for frame in shared), shared[:20]
        else:
            import memray

            with memray.FileReader(path) as reader:
                assert "daemon" in reader.metadata.command_line
                assert reader.metadata.total_allocations > 1000
