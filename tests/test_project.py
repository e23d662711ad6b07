"""The project's own promises: short files, its table of architectures, documents, requirements."""

import ast
import re

import pytest

from scripts.list_archs import DOCUMENT, updated
from tests.conftest import ROOT

SOURCES = [
    path
    for folder in (".", "models", "datasets", "engine", "opt", "scripts", "tests")
    for path in ROOT.glob("*.py" if folder == "." else f"{folder}/**/*.py")
]


def test_files_and_functions_stay_short():
    for path in SOURCES:
        if "tests" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        limit = (
            60 if re.fullmatch(r"two_stream\w*2|spatial_demo\w+|combined_demo", path.stem) else 300
        )
        assert len(text.splitlines()) < limit, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_nothing_is_read_off_an_architecture_name():
    pattern = re.compile(r"""['"]\w+['"] (not )?in (\w+\.)?(arch|name|arch_name|architecture)\b""")
    for path in SOURCES:
        if "tests" not in path.parts:
            assert not pattern.search(path.read_text(encoding="utf-8")), path


def test_the_table_of_architectures_is_the_registry():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert updated(text) == text, "run python scripts/list_archs.py --update"


def test_the_readme_names_only_files_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 220
    for script in re.findall(r"python ((?:scripts/)?[\w/]+\.py)", text):
        assert (ROOT / script).exists() or (ROOT / "scripts/eval" / script).exists(), script
    tree = text.partition("## The files\n\n```\n")[2].partition("```")[0].splitlines()
    assert len(tree) > 20
    for line in tree:
        assert (ROOT / line.split()[0]).exists(), line


@pytest.mark.parametrize(
    "document", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
)
def test_links_lead_to_files_and_headings(document):
    path = ROOT / document
    text = path.read_text(encoding="utf-8")
    for link, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", text):
        target = path.parent / link if link else path
        assert target.exists(), link
        if heading:
            lines = target.read_text(encoding="utf-8").splitlines()
            titles = [line.lstrip("# ").lower().replace(" ", "-") for line in lines if "# " in line]
            assert heading in titles, (link, heading)


def test_requirements_are_pinned_and_conda_uses_them():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in packages)
    assert "- -r requirements.txt" in (ROOT / "environment.yml").read_text()
