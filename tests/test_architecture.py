"""The rules of the house, read from the code's own imports."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import autotuner

PACKAGE = Path(autotuner.__file__).parent
TESTS = Path(__file__).parent

FLOORS = [
    {"__main__"},
    {"cli"},
    {"compare", "profiling"},
    {"loadtest"},
    {"session"},
    {"bench_record"},
    {"local_data", "run_setup", "run_report", "bench_setup", "engine_trace"},
    {"running_server"},
    {"tune", "report", "execute", "forecaster"},
    {"evaluate", "machine"},
    {"load", "simulate", "engines", "launchers", "search"},
    {"endpoints", "deploy"},
    {"config", "workload", "runs", "planning"},
    {"scoring"},
    {"rules", "predict"},
    {"model_files"},
    {"experiment", "traces"},
    {"expression"},
    {"errors", "escaping", "input_files", "kubernetes_values", "owner", "redaction", "serving"},
    {"core", "output_files"},
    {"__init__"},
]
NEIGHBOURS: set[tuple[str, str]] = set()
BROAD_EXCEPTS = {"cli/error_boundary.py", "config/layers.py", "execute/trial.py", "workload/tokenizer.py"}
PRINTS = {"cli/display.py"}
IMPORT_FROM_TESTS = re.compile(r"^ *from (tests[\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)


@cache
def modules() -> list[tuple[str, ast.Module]]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [(str(path.relative_to(PACKAGE)), ast.parse(path.read_text())) for path in paths]


@cache
def nodes_by_kind() -> list[tuple[str, dict[type[ast.AST], list[Any]]]]:
    """The nodes of each module, found in one walk for all rules."""
    kinds: list[tuple[str, dict[type[ast.AST], list[Any]]]] = []
    for path, tree in modules():
        nodes: dict[type[ast.AST], list[Any]] = defaultdict(list)
        for node in ast.walk(tree):
            nodes[type(node)].append(node)
        kinds.append((path, nodes))
    return kinds


def calls() -> Iterator[tuple[str, str]]:
    """Each call of a plain name, as (module, name)."""
    for path, nodes in nodes_by_kind():
        for node in nodes[ast.Call]:
            if isinstance(node.func, ast.Name):
                yield path, node.func.id


def room(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if name in rooms)


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Dotted names below `autotuner` that these nodes import."""
    imported = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("autotuner.") for name in imported if name.startswith("autotuner.")}


def test_every_room_has_a_floor():
    unplaced = {room(path) for path, _ in modules()} - set().union(*FLOORS)
    assert not unplaced


def test_imports_point_down():
    wrong = []
    for path, nodes in nodes_by_kind():
        if path == "__init__.py":  # the public face, which loads what it names on first use
            continue
        for name in imports([*nodes[ast.Import], *nodes[ast.ImportFrom]]):
            here, there = room(path), name.split(".")[0]
            if there == "__version__" or here == there or (here, there) in NEIGHBOURS:
                continue
            if floor(there) <= floor(here):
                wrong.append(f"{path} imports {name}")
    assert not wrong


def test_nothing_is_imported_relatively():
    assert not [path for path, nodes in nodes_by_kind() for node in nodes[ast.ImportFrom] if node.level]


def test_modules_do_not_import_each_other_in_a_circle():
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): tree for path, tree in modules()}

    def targets(tree: ast.Module) -> set[str]:
        imported = imports(tree.body)
        return names.keys() & (imported | {used.rpartition(".")[0] for used in imported})

    graph = {name: targets(tree) - {name} for name, tree in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_what_tests_share_stands_in_no_test_module_and_no_conftest():
    wrong = []
    for path in TESTS.rglob("*.py"):
        for module, imported in IMPORT_FROM_TESTS.findall(path.read_text()):
            if any(
                name.startswith("test_") or name == "conftest" for name in re.findall(r"\w+", f"{module} {imported}")
            ):
                wrong.append(f"{path.relative_to(TESTS)} imports {module}")
    assert not wrong


def test_no_two_classes_of_the_package_have_one_name():
    places: dict[str, list[str]] = {}
    for path, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(path)
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


def test_only_the_display_prints():
    assert {path for path, name in calls() if name == "print"} <= PRINTS


def test_texts_are_written_where_secrets_are_masked():
    writers = {path for path, nodes in nodes_by_kind() for node in nodes[ast.Attribute] if node.attr == "write_text"}
    assert writers == {"load/priority.py"}  # a setting of the kernel


def test_durations_are_taken_from_a_clock_that_nobody_sets():
    readers = {
        path
        for path, nodes in nodes_by_kind()
        for node in nodes[ast.Attribute]
        if node.attr == "time" and ast.unparse(node) == "time.time"
    }
    # a steady clock of its own, virtual time, instants in answers of the simulated engine and in logs, ages of files
    assert readers == {
        "evaluate/clock.py",
        "evaluate/simulated.py",
        "simulate/api.py",
        "simulate/openai.py",
        "cli/leftovers.py",
        "launchers/kubernetes/leftovers.py",
        "launchers/kubernetes/log_follower.py",
    }


def test_broad_excepts_stand_only_where_one_is_needed():
    def is_broad(handler: ast.ExceptHandler) -> bool:
        caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return any(kind is None or getattr(kind, "id", "") in ("Exception", "BaseException") for kind in caught)

    broad = {path for path, nodes in nodes_by_kind() for node in nodes[ast.ExceptHandler] if is_broad(node)}
    assert broad <= BROAD_EXCEPTS


def test_only_the_run_view_judges_and_ranks_for_renderers():
    decisions = {"judge", "rank", "conclude", "group_by_candidate", "pool_launches"}
    wrong = [
        f"{path} calls {name}"
        for path, name in calls()
        if room(path) in ("report", "cli") and path != "report/run_view.py" and name in decisions
    ]
    assert not wrong


def test_the_loop_fits_one_screen():
    tree = ast.parse((PACKAGE / "tune.py").read_text())
    loop = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "tune")
    assert loop.end_lineno is not None
    assert loop.end_lineno - loop.lineno < 40


@pytest.mark.processes
def test_the_help_page_needs_no_heavy_library():
    """What the command line imports at its top must stay light; commands import the rest themselves."""
    import subprocess
    import sys

    heavy = ("numpy", "pandas", "matplotlib", "pydantic", "docker", "httpx", "yaml", "uvloop", "optuna")
    code = f"import sys, autotuner.cli; print([m for m in {heavy} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


@pytest.mark.processes
def test_the_help_pages_of_predictions_need_no_arrays_or_tables():
    import subprocess
    import sys

    code = """import sys, autotuner.cli
try:
    autotuner.cli.app(["predict", "rank", "--help"])
finally:
    print([m for m in ("numpy", "pandas", "matplotlib") if m in sys.modules])"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.startswith("Usage")
    assert output.stdout.endswith("[]\n")


def test_no_folder_of_the_package_is_ignored_by_git_and_so_left_out_of_the_wheel():
    patterns = (PACKAGE.parent / ".gitignore").read_text().splitlines()
    ignored = {line.rstrip("/") for line in patterns if line.endswith("/") and not line.startswith("/")}
    assert not ignored & {path.name for path in PACKAGE.rglob("*") if path.is_dir()} - {"__pycache__"}
