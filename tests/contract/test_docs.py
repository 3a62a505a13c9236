"""The documentation: every page stands in a table of contents, every link leads somewhere, Sphinx has no complaint."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from treetune.cli.app import VERBS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
INDEX = (DOCS / "index.md").read_text("utf-8")
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def listed() -> set[Path]:
    """Pages that the tables of contents name."""
    entries = [line for block in TOCTREE.findall(INDEX) for line in block.splitlines()
               if line and not line.startswith(":")]
    return {path for entry in entries for path in DOCS.glob(f"{entry}.md")}


def anchors(path: Path) -> set[str]:
    """Names of its headings, as Sphinx and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def test_every_page_is_in_a_table_of_contents() -> None:
    assert set(PAGES) - {DOCS / "index.md"} == listed()


def test_every_verb_has_a_page_and_the_page_shows_it() -> None:
    pages = {verb: page for line in INDEX.splitlines() if line.startswith("| `") for verb, page in
             [(verb, re.findall(r"\(([\w-]+\.md)\)", line)[0]) for verb in re.findall(r"`([\w-]+)`", line)]}
    assert set(pages) == set(VERBS)
    for verb, page in pages.items():
        assert f"treetune {verb}" in (DOCS / page).read_text("utf-8"), (verb, page)


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md", ROOT / "README.zh.md"],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_every_internal_link_resolves(path: Path) -> None:
    for target in LINK.findall(CODE.sub("", path.read_text("utf-8"))):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.slow
def test_sphinx_builds_it_without_a_warning(tmp_path: Path) -> None:
    missing = [name for name in ("sphinx", "myst_parser") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: pip install 'treetune[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-d", str(tmp_path / "trees"),
         str(DOCS), str(tmp_path / "html")],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / "html").glob("*.html")}
    assert {"index.html", "gate.html", "guarantees.html", "quickstart.zh.html"} <= made
    settings = (tmp_path / "html" / "reference" / "settings.html").read_text("utf-8")
    assert "learning_rate" in settings
    assert "peak learning rate" in settings
    assert "treetune.verbs.tune" in (tmp_path / "html" / "reference" / "verbs.html").read_text("utf-8")
