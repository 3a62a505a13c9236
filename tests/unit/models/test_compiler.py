"""torch's compiler: absent until something is compiled, and then told all it would have been told."""

import subprocess
import sys

import pytest

from treetune.core.deferred import StandIn
from treetune.models.compiler import Compiler

UNUSED = ("torch._dynamo.eval_frame", "torch._inductor", "sympy", "scipy.optimize._optimize")


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_is_loaded_and_a_step_taken_without_the_compiler_and_what_it_needs() -> None:
    out = run(f"""
import sys
from treetune.train import loop, optimizers
import torch
from treetune.models.load import load_model
load_model("gpt3")
model = torch.nn.Linear(2, 2)
for name in ("adamw", "adam", "sgd"):
    for optimizer in optimizers.build_optimizers(model, name, 1e-3, None):
        model(torch.ones(2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
print([name for name in {UNUSED} if name in sys.modules])
""")
    assert out.strip() == "[]"


def test_what_is_compiled_afterwards_is_compiled_as_ever() -> None:
    out = run("""
import treetune.models
import torch

@torch.compiler.disable
def left_alone(value):
    return value * (2 if torch.compiler.is_compiling() else 3)

@torch.compiler.disable(recursive=False)
def also(value):
    return value * (2 if torch.compiler.is_compiling() else 3)

def whole(value):
    return left_alone(value + 1) + also(value)

assert whole(torch.ones(1)).item() == 9
compiled = torch.compile(whole, backend="eager")
print(type(torch._dynamo).__name__, compiled(torch.ones(1)).item(), whole(torch.ones(1)).item())
""")
    assert out.split() == ["module", "9.0", "9.0"]


class Told:
    def __init__(self) -> None:
        self.heard: list[object] = []

    def allow_in_graph(self, fn: object) -> object:
        self.heard.append(fn)
        return fn

    assume_constant_result = allow_in_graph

    def disable(self, fn: object, recursive: bool) -> object:
        self.heard.append(("disabled", recursive))
        return fn


def test_the_compiler_hears_what_was_said_before_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    def one() -> int:
        return 1

    def two() -> int:
        return 2

    told, compiler = Told(), Compiler("a_compiler")
    monkeypatch.setitem(sys.modules, "a_compiler", compiler)
    assert compiler.allow_in_graph(one) is one
    assert compiler.assume_constant_result(two) is two
    left_alone = compiler.disable(one, recursive=False)
    assert left_alone() == 1
    compiler.graph_break()
    assert compiler.is_needed()

    monkeypatch.setattr(StandIn, "itself", lambda self: told)
    monkeypatch.setattr(StandIn, "is_needed", lambda self: False)
    compiler.has_come(told)
    assert left_alone() == 1
    assert left_alone() == 1
    assert told.heard == [one, two, ("disabled", False)]
