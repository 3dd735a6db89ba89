"""Habits that a machine can check: layers, purity, package docstrings, sizes of files."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("agent", "gateways", "interceptor", "xds")
PURE = """
    model errors
    interceptor.abi interceptor.alias interceptor.decision interceptor.events interceptor.tables
    agent.dns_answer agent.hello agent.registry agent.render
    xds.ads xds.decode xds.delta xds.dialogue xds.held xds.resources xds.sotw xds.translate
""".split()
"""Modules without I/O, clock or chance; those that exist must be in the contract."""


def sources() -> Iterator[Path]:
    """Every Python file of the product, generated ones left out."""
    yield from (ROOT / "src" / "appswitch").glob("*.py")
    for folder in FOLDERS:
        yield from (path for path in (ROOT / folder).rglob("*.py") if not path.name.endswith("_pb2.py"))


def packages() -> list[Path]:
    """Every package's `__init__.py`."""
    return [path for path in sources() if path.name == "__init__.py"]


def relative(path: Path) -> str:
    """How a file is named in a failure."""
    return str(path.relative_to(ROOT))


@pytest.mark.timeout(120)
def test_import_contracts() -> None:
    lint = "from importlinter.cli import lint_imports_command as main; main(standalone_mode=True)"
    result = subprocess.run(
        [sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_contract_names_every_pure_module() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (
        each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "forbidden"
    )
    exists = {
        f"appswitch.{name}"
        for name in PURE
        if (ROOT / "src" / "appswitch" / name.replace(".", "/")).with_suffix(".py").exists()
    }
    assert exists - set(contract["source_modules"]) == set()


def test_no_import_cycle() -> None:
    graph = grimp.build_graph("appswitch", exclude_type_checking_imports=True, cache_dir=None)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for imported in sorted(graph.find_modules_directly_imported_by(module)):
                visit(imported, (*path, module))
            done.add(module)

    for module in sorted(graph.modules):
        visit(module, ())


@pytest.mark.parametrize("path", packages(), ids=relative)
def test_package_is_a_docstring_that_names_its_files(path: Path) -> None:
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring and len(tree.body) == 1
    assert len(docstring.splitlines()) <= 25
    missing = [
        name for name in re.findall(r"`([\w/]+\.\w+|\w+/)`", docstring) if not (path.parent / name).exists()
    ]
    assert missing == []


def test_sizes_of_files() -> None:
    sizes = {relative(path): len(path.read_text().splitlines()) for path in sources()}
    assert {name: size for name, size in sizes.items() if size > 600} == {}
    assert statistics.median(sizes.values()) <= 120


@pytest.mark.parametrize(("folder", "limit"), [("launcher", 712), ("bpf", 1840)])
def test_c_stays_small(folder: str, limit: int) -> None:
    """Lines of code, without blank ones and comments."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "interceptor" / folder).glob("*.[ch]")))
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    assert sum(1 for line in code.splitlines() if line.strip()) <= limit


def test_tasks_are_made_in_one_place() -> None:
    """`agent/tasks.py` names tasks and keeps references to them."""
    made = re.compile(r"\b(create_task|ensure_future)\(")
    users = {relative(path) for path in sources() if made.search(path.read_text())}
    assert users <= {"agent/tasks.py"}
