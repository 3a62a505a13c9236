"""packing.py in processes of its own, and the rows it makes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from treetune.core.records import TokenizedExample

pytestmark = pytest.mark.usefixtures("benchmark_module")  # the scripts can be imported

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "packing.py"


def test_the_script_measures_each_size(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--synthetic", "--tokens", "2000", "8000", "--repeats", "1",
                           "--results", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (section,) = json.loads((tmp_path / "packing.json").read_text("utf-8")).values()
    assert "error" not in section, section
    small, large = section["sizes"]
    assert 2000 <= small["tokens"] < 2400
    assert 8000 <= large["tokens"] < 8400
    assert large["unique_tokens"] < large["tokens"] / 2  # five questions on each passage
    assert "to the power of" in done.stdout


def test_a_child_that_fails_leaves_its_last_words(tmp_path: Path) -> None:
    from children import run_child

    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('no such thing')\n", "utf-8")
    assert run_child(str(script), {"threads": 1}) == {"error": "no such thing"}


def test_rows_that_come_again_share_nothing_with_the_first() -> None:
    from packing import rows_of_size

    rows = [TokenizedExample(0, 0, np.array([1, 2, 3]), np.array([4]), 0)]
    first, second = rows_of_size(rows, 8)
    assert not set(first.prompt_ids) & set(second.prompt_ids)


def test_linear_time_has_growth_one() -> None:
    from packing import growth

    assert growth([{"tokens": n, "s": 3.0 * n} for n in (10, 100, 1000)], "s") == pytest.approx(1)
    assert growth([{"tokens": n, "s": 2.0 * n * n} for n in (10, 100, 1000)], "s") == pytest.approx(2)
