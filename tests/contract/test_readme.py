"""The README tells the truth: its verbs are there, its program runs."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from treetune.models.embedded import folder

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
INLINE = re.findall(r"`(treetune [a-z][^`]*)`", README)


@pytest.mark.parametrize("line", INLINE)
def test_every_verb_named_in_the_text_is_there(line: str, verbs: Any) -> None:
    assert line.split()[1] in verbs


def test_the_program_runs_verbatim() -> None:
    if not (folder() / "config.json").is_file():
        pytest.skip("the shipped base is not in src/treetune/models/embedded/gpt3 yet")
    [program] = [block for kind, block in BLOCKS if kind == "python" and "from_pretrained('gpt3')" in block]
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(program, "README.md", "exec"), names)
    assert float(names["loss"].detach()) > 0
