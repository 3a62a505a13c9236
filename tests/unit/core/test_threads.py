"""Threads that wait fall asleep soon, unless the user has said how they should wait."""

import subprocess
import sys

import pytest

from treetune.core.threads import sleep_soon, wait_asleep


@pytest.mark.parametrize(("before", "after"), [
    ({}, {"GOMP_SPINCOUNT": "5000", "OPENBLAS_THREAD_TIMEOUT": "14"}),
    ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "OPENBLAS_THREAD_TIMEOUT": "14"}),
    ({"OMP_WAIT_POLICY": "active", "OPENBLAS_THREAD_TIMEOUT": "20"},
     {"OMP_WAIT_POLICY": "active", "OPENBLAS_THREAD_TIMEOUT": "20"}),
])
def test_what_the_user_has_set_stays(before: dict[str, str], after: dict[str, str]) -> None:
    wait_asleep(before)
    assert before == after


@pytest.mark.parametrize(("environment", "soon"), [
    ({}, False),
    ({"GOMP_SPINCOUNT": "5000"}, False),
    ({"OPENBLAS_THREAD_TIMEOUT": "14"}, False),
    ({"GOMP_SPINCOUNT": "5000", "OPENBLAS_THREAD_TIMEOUT": "14"}, True),
    ({"GOMP_SPINCOUNT": "300000", "OPENBLAS_THREAD_TIMEOUT": "14"}, False),
    ({"GOMP_SPINCOUNT": "infinite", "OPENBLAS_THREAD_TIMEOUT": "14"}, False),
    ({"GOMP_SPINCOUNT": "5000", "OPENBLAS_THREAD_TIMEOUT": "26"}, False),
    ({"OMP_WAIT_POLICY": "passive", "OPENBLAS_THREAD_TIMEOUT": "4"}, True),
    ({"OMP_WAIT_POLICY": "active", "OPENBLAS_THREAD_TIMEOUT": "4"}, False),
])
def test_two_libraries_take_turns_only_where_both_sleep_soon(environment: dict[str, str], soon: bool) -> None:
    assert sleep_soon(environment) is soon


def test_the_command_says_so_before_torch_and_numpy_are_loaded() -> None:
    code = ("import os, sys\n"
            "from treetune.cli import app\n"
            "said = ('GOMP_SPINCOUNT', 'OPENBLAS_THREAD_TIMEOUT')\n"
            "app.run = lambda *_: print(*map(os.environ.get, said), {'torch', 'numpy'} & set(sys.modules)) or 0\n"
            "sys.argv = ['treetune', 'doctor']\n"
            "app.main()\n")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": ":".join(sys.path)})
    assert said.stdout.split() == ["5000", "14", "set()"]
