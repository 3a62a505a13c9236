"""The notebooks: in the form Jupyter reads, cleared, linked, and each runs from its first cell to its last."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
# as a kernel does: one cell after the other, in one space of names
DRIVER = """
import json, sys
space = {"__name__": "__main__"}
with open(sys.argv[1], encoding="utf-8") as file:
    cells = json.load(file)["cells"]
for number, cell in enumerate(cells):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), space)
"""


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8")))


def test_there_are_four_and_the_page_links_to_each() -> None:
    page = (DOCS / "notebooks.md").read_text("utf-8")
    assert re.findall(r"\]\((notebooks/[^)]+)\)", page) == [f"notebooks/{name}.ipynb" for name in NAMES]
    assert len(NAMES) == 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_is_a_cleared_notebook_of_version_4(path: Path) -> None:
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert notebook["cells"][0]["cell_type"] == "markdown"
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        assert text.strip()
        if cell["cell_type"] == "code":
            assert set(cell) == {"cell_type", "execution_count", "id", "metadata", "outputs", "source"}
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            ast.parse(text)
        else:
            assert set(cell) == {"cell_type", "id", "metadata", "source"}
            assert set(re.findall(r"\]\(([^)]+\.ipynb)\)", text)) <= {each.name for each in NOTEBOOKS}


@pytest.mark.parametrize("path", [pytest.param(path, marks=() if path.stem.startswith("1-") else pytest.mark.slow)
                                  for path in NOTEBOOKS], ids=NAMES)
def test_its_cells_run_without_a_warning(path: Path, tmp_path: Path) -> None:
    if path.stem == "4-use-it":
        pytest.importorskip("uvicorn")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", DRIVER, str(path)], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert done.stdout.strip()
    assert [each.is_dir() for each in tmp_path.iterdir()] == [True]  # it keeps to a folder of its own
