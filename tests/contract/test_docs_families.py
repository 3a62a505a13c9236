"""The pages on families and adapters tell the truth: flags are known, names of their programs exist."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / name).read_text("utf-8") for name in ("families.md", "adapters.md")}
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [block for page in PAGES.values() for block in FENCED.findall(page)]
IMPORTS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("from ")]
FLAGS = sorted({flag for page in PAGES.values() for flag in re.findall(r"`(--[a-z0-9-]+)", page)})


def test_every_flag_and_name_is_there(verbs: Any) -> None:
    known = {option for command in verbs.values() for each in command.params for option in each.opts}
    assert set(FLAGS) <= known, set(FLAGS) - known
    assert IMPORTS
    for line in IMPORTS:
        exec(line, {})
