"""Threads that wait fall asleep soon, unless the user has said how they should wait."""

import subprocess
import sys

import pytest

from treetune.core.threads import wait_asleep


@pytest.mark.parametrize(("before", "after"), [
    ({}, {"GOMP_SPINCOUNT": "5000"}),
    ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
])
def test_what_the_user_has_set_stays(before: dict[str, str], after: dict[str, str]) -> None:
    wait_asleep(before)
    assert before == after


def test_the_command_says_so_before_torch_is_loaded() -> None:
    code = ("import os, sys\n"
            "from treetune.cli import app\n"
            "app.run = lambda *words: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules) or 0\n"
            "sys.argv = ['treetune', 'doctor']\n"
            "app.main()\n")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": ":".join(sys.path)})
    assert said.stdout.split() == ["5000", "False"]
