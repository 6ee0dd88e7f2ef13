"""The plan of the packages: imports go down, no circles, nothing depends on experiments, names mean one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Which packages each package may import, in addition to itself.
MAY_IMPORT = {
    "prompt_core": set(),
    "pomp_engine": {"prompt_core"},
    "pomp_det": {"prompt_core", "pomp_engine"},
    "pomp_seg": {"prompt_core", "pomp_engine"},
    "pomp": {"prompt_core", "pomp_engine", "pomp_det", "pomp_seg"},
    "pomp_lab": {"prompt_core", "pomp_engine", "pomp_det", "pomp_seg", "pomp"},
}
FRONT = {
    "classifier",
    "clip",
    "command_line",
    "config",
    "doctor",
    "errors",
    "files",
    "lazy",
    "losses",
    "metrics",
    "negatives",
    "plugins",
    "prompt",
    "ranges",
    "safe_load",
    "temporary_files",
    "visible",
    "vocabulary",
}
# Names of files that stand in several rooms, and mean the same in each.
SHARED_NAMES = {
    "__init__",
    "__main__",
    "build",
    "catalog",
    "check_files",
    "checkpoint",
    "checks",
    "classifier",
    "clip",
    "config",
    "evaluate",
    "evaluator",
    "loader",
    "loop",
    "losses",
    "metrics",
    "pictures",
    "predictor",
    "protocol",
    "ranges",
    "records",
    "registration",
    "scoring",
    "task",
    "vocabulary",
}


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    names = {}
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of this project that a file imports anywhere in it, inside functions and for type checking too."""
    targets = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            targets |= {name if name in known else node.module for name in inner}
    return {name for name in targets if name.partition(".")[0] in MAY_IMPORT}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    assert len(known) > 150
    return {name: imports(path, known) - {name} for name, path in known.items()}


def test_imported_modules_exist(graph: dict[str, set[str]]) -> None:
    assert {target for targets in graph.values() for target in targets} <= graph.keys()


def test_imports_go_down(graph: dict[str, set[str]]) -> None:
    upward = []
    for name, targets in graph.items():
        package = name.partition(".")[0]
        allowed = MAY_IMPORT[package] | {package}
        upward += [f"{name} -> {target}" for target in targets if target.partition(".")[0] not in allowed]
    assert upward == []


def test_there_is_no_circle_of_modules(graph: dict[str, set[str]]) -> None:
    # A package's own file lists its public names for type checkers; it is loaded before its modules, not by them.
    edges = {name: {target for target in targets if target not in MAY_IMPORT} for name, targets in graph.items()}
    edges = {name: targets for name, targets in edges.items() if name not in MAY_IMPORT}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_preparation_and_tools_are_no_packages() -> None:
    assert not (ROOT / "datasets/__init__.py").exists()
    assert not (ROOT / "tools/__init__.py").exists()


def test_the_front_of_the_core_is_short() -> None:
    assert {path.stem for path in (ROOT / "prompt_core").glob("*.py")} - {"__init__"} == FRONT


def test_a_name_means_one_thing(graph: dict[str, set[str]]) -> None:
    places = defaultdict(list)
    for path in modules().values():
        # the file of a command is called like the command, which is called like what it does
        if path.parent != ROOT / "pomp" / "commands":
            places[path.stem].append(str(path.relative_to(ROOT)))
    repeated = {name: paths for name, paths in places.items() if len(paths) > 1 and name not in SHARED_NAMES}
    assert repeated == {}


def test_files_hold_one_idea() -> None:
    long = {}
    for path in modules().values():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > 340:
            long[str(path.relative_to(ROOT))] = lines
    assert long == {}


def test_production_files_are_not_called_like_tests() -> None:
    assert [str(path) for path in modules().values() if path.name.startswith("test_")] == []
