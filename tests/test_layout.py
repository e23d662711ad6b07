"""Where things stand: folders, arrows, circles, names; the plan that docs and readers rely on."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("opt", "datasets", "models", "engine", "scripts", "docs")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in (".", *PACKAGES)
    for path in ROOT.glob("*.py" if package == "." else f"{package}/**/*.py")
}
# Who may import what of ours.
ALLOWED = {
    "video_transforms": set(),
    "opt": set(),
    "datasets": set(),
    "models": set(),
    "engine": {"models", "datasets", "opt", "video_transforms"},
}
# The floors of engine/: a room imports rooms of lower floors alone, and no room of its own.
FLOORS = [
    {"files", "config", "metrics", "plots"},
    {"weights", "data", "loading", "distributed", "speed"},
    {"checkpoint"},
    {"tokens"},
    {"training", "testing"},
    {"analysis", "cli"},
    {"ablation", "applying", "reporting"},
    {"explaining", "exporting", "quickstart"},
    {"command"},
]
MOST_FILES = 11  # of a folder; about 8 are wanted
MOST_COMMANDS = 20  # of scripts/, a short file each
# Names that several files define as one interface, each with its own content.
SHARED = {
    "main",  # of a script
    "parse_args",  # of a script: flags -> what they say
    "add_flags",  # of a benchmark
    "ROWS",  # of a file of backbones
    "features",  # of a backbone: channels -> network
    "reduction_block",  # of a backbone: channels -> block
    "NUM_CLASSES",  # of a dataset
    "FLOW_SUFFIXES",  # of a dataset
}


@cache
def imported(module: str) -> frozenset[str]:
    """Our modules that a module imports, wherever in its text."""
    names = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(names & FILES.keys() - {module})


@pytest.mark.parametrize("package", ALLOWED)
def test_arrows_between_packages_point_one_way(package):
    own = [module for module in FILES if module.split(".")[0] == package]
    assert own
    for module in own:
        others = {name.split(".")[0] for name in imported(module)} - {package}
        assert others <= ALLOWED[package], module


def test_arrows_inside_the_engine_point_down():
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    rooms = {module.split(".")[1] for module in FILES if module.startswith("engine.")}
    assert rooms == floor_of.keys()
    for module in FILES:
        if module.startswith("engine."):
            room = module.split(".")[1]
            for name in imported(module) - {"engine"}:
                other = name.split(".")[1] if name.startswith("engine.") else room
                below = floor_of[other] < floor_of[room]
                assert below or other == room, f"{module} imports {name}"


def test_scripts_alone_know_flags():
    for module, path in FILES.items():
        if module.startswith("engine.") and module.split(".")[1] != "cli":
            assert not imported(module) & {"engine.cli", "engine.cli.flag_types"}, module
            text = path.read_text(encoding="utf-8")
            assert "argparse" not in text and "Namespace" not in text, module


def test_there_are_no_circles():
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"a circle: {' -> '.join([*above, module])}"
        if module not in done:
            for name in imported(module):
                visit(name, (*above, module))
            done.add(module)

    for module in FILES:
        visit(module, ())


def test_folders_are_small_and_tests_mirror_them():
    folders = defaultdict(list)
    for path in FILES.values():
        if path.name != "__init__.py" and path.parent != ROOT:
            folders[path.parent].append(path.name)
    assert len(folders) > 15
    for folder, names in folders.items():
        most = MOST_COMMANDS if folder == ROOT / "scripts" else MOST_FILES
        assert len(names) <= most, folder
    for package in ("datasets", "models", "engine", "scripts"):
        for folder in (ROOT / "tests" / package).rglob("*"):
            if folder.is_dir() and folder.name != "__pycache__":
                assert (ROOT / folder.relative_to(ROOT / "tests")).is_dir(), folder


def defined_names(path: Path) -> set[str]:
    """Public functions, classes and constants of a file."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                names |= {part.id for part in parts if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_no_public_name_has_two_meanings():
    homes = defaultdict(list)
    for module, path in FILES.items():
        for name in defined_names(path) - SHARED:
            homes[name].append(module)
    twins = {name: modules for name, modules in homes.items() if len(modules) > 1}
    assert not twins
