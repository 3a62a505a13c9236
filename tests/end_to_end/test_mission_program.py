"""The program that this package starts from, word for word, on the shipped base."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from treetune.models.embedded import folder

PROGRAM = """\
from treetune import GPT3LMHeadModel, GPT3Tokenizer
model = GPT3LMHeadModel.from_pretrained('gpt3')
tokenizer = GPT3Tokenizer.from_pretrained('gpt3')
inputs = tokenizer("Hello, I'm a language model.", return_tensors='pt')
outputs = model(**inputs)
from torch.optim import Adam
optimizer = Adam(model.parameters(), lr=1e-5)
loss = outputs.loss
loss.backward()
optimizer.step()
"""
pytestmark = pytest.mark.skipif(not (folder() / "config.json").is_file(), reason="the shipped base is not there yet")


def test_it_runs_and_leaves_with_0(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_loss_falls_when_its_step_is_repeated() -> None:
    names: dict[str, Any] = {}
    exec(compile(PROGRAM, "program.py", "exec"), names)
    losses = [float(names["loss"].detach())]
    assert math.isfinite(losses[0])
    before = [weight.detach().clone() for weight in names["model"].parameters()]
    for _ in range(20):
        names["optimizer"].zero_grad()
        loss = names["model"](**names["inputs"]).loss
        loss.backward()
        names["optimizer"].step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert any(not old.equal(new) for old, new in zip(before, names["model"].parameters(), strict=True))
