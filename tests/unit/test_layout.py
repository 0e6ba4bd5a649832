"""Who may import whom. A room imports only from rooms to its left in the flow."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "ebpflab"
AGENT = PACKAGE / "agent"

# From the kernel's side to the reader's. `errors` and `diagnostics` are one room: the text of
# an error, and the exceptions that carry it.
ROOMS = (
    "protocol",
    "arguments",
    "agent.faults",
    "agent.kernel",
    "agent.processes",
    "agent.streams",
    "agent.probes",
    "agent.programs",
    "agent",
    "errors diagnostics",
    "display",
    "transport",
    "replay",
    "vm",
    "targets",
    "decode",
    "binaries",
    "plots",
    "live",
    # What a notebook imports.
    "arrivals attachments check fleet lab perf_events program recordings stacks streams tables"
    " usdt",
    "notebook",
    "cli",
)


def imports(tree: ast.AST, at_import: bool = False) -> Iterator[str]:
    """Every module that is imported when the code runs, wherever the statement stands; or those
    alone that are imported when this one is."""
    for node in ast.iter_child_nodes(tree):
        if at_import and isinstance(node, ast.FunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue  # names for the type checker; nothing is imported
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)
        yield from imports(node, at_import)


def room_of(module: str) -> int:
    """The place in ROOMS of a dotted name below `ebpflab`."""
    best = [
        (len(name), index)
        for index, names in enumerate(ROOMS)
        for name in names.split()
        if module == name or module.startswith(name + ".")
    ]
    assert best, f"ebpflab.{module} is in no room: give it a place in ROOMS of {__file__}"
    return max(best)[1]


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("path", sources(AGENT), ids=lambda path: path.name)
def test_agent_imports_only_the_standard_library_bcc_and_itself(path: Path) -> None:
    own = ("ebpflab.agent.", "ebpflab.protocol.")
    found = {name for name in imports(ast.parse(path.read_text())) if not name.startswith(own)}
    assert {name.split(".")[0] for name in found} <= sys.stdlib_module_names | {"bcc"}


@pytest.mark.parametrize("path", sources(AGENT), ids=lambda path: path.name)
def test_agent_is_python_3_9(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize(
    "path",
    [path for path in sources(PACKAGE) if path != PACKAGE / "__init__.py"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_rooms_import_only_leftwards(path: Path) -> None:
    me = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for module in imports(ast.parse(path.read_text())):
        if module.startswith("ebpflab."):
            other = module.removeprefix("ebpflab.")
            assert room_of(other) <= room_of(me), f"{me} imports {other}, to its right in the flow"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {module_of(path): path for path in sources(PACKAGE)}
    graph = {}
    for module, path in modules.items():
        named = set(imports(ast.parse(path.read_text()), at_import=True))
        reached = {name if name in modules else name.rpartition(".")[0] for name in named}
        graph[module] = reached & modules.keys()
    # Raises CycleError, which names the cycle.
    assert len([*graphlib.TopologicalSorter(graph).static_order()]) == len(modules)


def test_imports_for_the_type_checker_alone_do_not_become_more() -> None:
    blocks = sum(
        isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for path in sources(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text()))
    )
    assert blocks <= 9


def test_no_source_file_has_much_more_than_400_lines_beside_its_docstrings() -> None:
    files = [*sources(PACKAGE), *sources(REPOSITORY / "provision")]
    long = {str(path): lines_beside_docstrings(path.read_text()) for path in files}
    assert {name: lines for name, lines in long.items() if lines > 425} == {}


def lines_beside_docstrings(text: str) -> int:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    lines = len(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return lines


def test_wheel_holds_the_recipe_and_the_labs_once(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    packed = {name for name in names if name.startswith("ebpflab/")}
    assert "ebpflab/provision/packages.txt" in packed
    assert {str(path.relative_to(REPOSITORY)) for path in sources(AGENT)} <= packed
    assert {name.split("/")[0] for name in names} == {"ebpflab", wheel_metadata()}


def wheel_metadata() -> str:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return f"{project['name']}-{project['version']}.dist-info"


def test_no_two_test_files_share_a_name() -> None:
    # pytest imports each by its bare name, and stops before the first test where two are alike.
    names = [path.name for path in (REPOSITORY / "tests").rglob("*.py")]
    twice = {name for name in names if names.count(name) > 1} - {"conftest.py"}
    assert twice == set()


PAGES = [str(page.relative_to(REPOSITORY)) for page in sorted(REPOSITORY.glob("docs/*.md"))]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_links_lead_to_files(page: str) -> None:
    path = REPOSITORY / page
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    missing = [link for link in linked if not (path.parent / link).exists()]
    # Sphinx, which makes a book of docs/, knows files alone.
    folders = [link for link in linked if page in PAGES and (path.parent / link).is_dir()]
    assert (missing, folders) == ([], [])
