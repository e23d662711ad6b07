"""Who may import whom inside datasets/: no circles, at most five floors, reading below making."""

import ast
from functools import cache

from tests.conftest import ROOT

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "datasets").rglob("*.py")
}
FORBIDDEN = {
    "sources": {"flow", "prepare", "doctor"},
    "flow": {"sources", "prepare", "doctor"},
    "prepare": {"doctor"},
    "doctor": {"prepare"},
    "fingerprint": {"prepare", "doctor"},
    "preparation": {"prepare", "doctor"},
}


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of datasets/ that a module imports, wherever in its text."""
    names = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(names & FILES.keys() - {module})


def floor(module: str, above: tuple[str, ...] = ()) -> int:
    assert module not in above, f"a circle: {' -> '.join([*above, module])}"
    return 1 + max((floor(name, (*above, module)) for name in imported(module)), default=0)


def test_there_are_no_circles_and_five_floors():
    assert max(map(floor, FILES)) <= 5


def test_reading_does_not_import_making():
    for module in FILES:
        room = module.split(".")[1] if "." in module else ""
        rooms = {name.split(".")[1] for name in imported(module) if "." in name}
        assert not rooms & FORBIDDEN.get(room, set()), module
