"""The pages on answers and on pretraining tell the truth: settings are as they say."""

import re
from pathlib import Path

import yaml

from treetune.core.settings import PretrainSettings, TuneSettings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / name).read_text("utf-8") for name in ("answers.md", "pretraining.md")}
DEFAULTS = re.findall(r"^\| `--([a-z-]+)` \| `?([^`|]+?)`? \|", PAGES["answers.md"], flags=re.MULTILINE)


def test_defaults_are_those_of_the_schema() -> None:
    assert len(DEFAULTS) == 3
    for flag, said in DEFAULTS:
        value = TuneSettings.model_fields[flag.replace("-", "_")].default
        assert said == "by task" if flag == "max-new-tokens" else str(value) == said


def test_the_file_of_settings_is_one() -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```$", PAGES["pretraining.md"], flags=re.MULTILINE | re.DOTALL)
    settings = PretrainSettings.model_validate(yaml.safe_load(text))
    assert (settings.init_from, settings.total_tokens) == (None, 100_000)
