"""One schema for YAML, flags and Python; what is wrong is named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from treetune.core import settings as module
from treetune.core.errors import UsageError
from treetune.core.settings import LoopSettings, PretrainSettings, TuneSettings, read_settings, read_yaml, to_yaml

GIVEN: dict[str, Any] = {"task": "sentiment", "data": "rows.jsonl", "output_dir": "runs/a"}


def config(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "run.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(content: str | bytes, tmp_path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_settings(TuneSettings, config(tmp_path, content), GIVEN)
    return caught.value


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(TuneSettings, None, {**GIVEN, "learning_rat": 1.0})
    assert caught.value.code == "E2003"
    assert caught.value.allowed == "learning_rate"
    assert "'learning_rat'" in str(caught.value)


def test_an_unknown_key_near_to_nothing_lists_all() -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(TuneSettings, None, {**GIVEN, "zzzzzzz": 1.0})
    assert "learning_rate" in caught.value.allowed
    assert "max_tokens_per_pass" in caught.value.allowed


@pytest.mark.parametrize(
    ("key", "value"),
    [("learning_rate", "no"), ("learning_rate", 0), ("learning_rate", float("nan")), ("seed", 1.5), ("seed", -1),
     ("optim", "rmsprop"), ("task", "poetry"), ("columns", ["text"]), ("layout", "bush"), ("data", 3),
     ("warmup_ratio", 1.1), ("validation_share", 0)],
)
def test_a_value_of_the_wrong_kind_names_key_value_and_what_is_allowed(key: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(TuneSettings, None, GIVEN | {key: value})
    assert caught.value.code == "E2004"
    assert key in caught.value.where
    assert caught.value.found == repr(value)
    assert caught.value.allowed


@pytest.mark.parametrize("key", ["learning_rate", "num_train_epochs", "seed"])
def test_yes_is_not_a_number(tmp_path: Path, key: str) -> None:
    assert refused(f"{key}: yes\n", tmp_path).code == "E2004"


@pytest.mark.parametrize("key", ["learning_rate", "num_train_epochs", "max_grad_norm"])
def test_infinity_is_not_a_usable_number(tmp_path: Path, key: str) -> None:
    assert refused(f"{key}: .inf\n", tmp_path).code == "E2004"


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(TuneSettings, None, {"task": "sentiment", "output_dir": "a"})
    assert caught.value.code == "E2005"
    assert "'data'" in str(caught.value)


def test_flags_stand_above_the_file_and_none_means_not_given(tmp_path: Path) -> None:
    path = config(tmp_path, "seed: 3\nmax_steps: 7\n")
    result = read_settings(TuneSettings, path, {**GIVEN, "seed": 4, "max_steps": None})
    assert (result.seed, result.max_steps) == (4, 7)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", ".1e-3", "0.0001"])
def test_scientific_notation_in_yaml_is_a_number(tmp_path: Path, text: str) -> None:
    result = read_settings(TuneSettings, config(tmp_path, f"learning_rate: {text}\n"), GIVEN)
    assert result.learning_rate == 1e-4


def test_qa_is_short_for_question_answering(tmp_path: Path) -> None:
    assert read_settings(TuneSettings, None, GIVEN | {"task": "qa"}).task == "question_answering"
    path = config(tmp_path, "task: qa\n")
    assert read_settings(TuneSettings, path, GIVEN | {"task": None}).task == "question_answering"


@pytest.mark.parametrize(
    "content",
    [
        "seed: 1\nseed: 2\n",
        "columns: {text: a, text: b}\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "data: !!python/object/apply:os.system ['true']\n",
        "data: !!python/name:os.system\n",
        "data: [\n",
        "just text\n",
        "- a\n- b\n",
        "",
        "a: 1\n---\nb: 2\n",
        b"data: \xff\xfe\n",
        "data: " + "[" * 5000 + "\n",
        "{[a]: 1}\n",
        "data: 2024-99-99\n",
    ],
)
def test_yaml_that_is_broken_or_unsafe_is_refused(tmp_path: Path, content: str | bytes) -> None:
    assert refused(content, tmp_path).code == "E2002"


def test_a_duplicate_key_is_named_with_its_line(tmp_path: Path) -> None:
    assert "'seed' stands twice (line 3)" in refused("seed: 1\ntask: qa\nseed: 2\n", tmp_path).found


@pytest.mark.parametrize("content", ["1: 2\n", "on: 2\n", "null: 2\n"])
def test_a_key_that_is_not_text_is_an_unknown_setting(tmp_path: Path, content: str) -> None:
    assert refused(content, tmp_path).code == "E2003"


def test_a_config_of_more_than_a_mebibyte_is_refused(tmp_path: Path) -> None:
    error = refused("#" * (module.MAX_CONFIG_BYTES + 1), tmp_path)
    assert error.code == "E2002"
    assert str(module.MAX_CONFIG_BYTES) in error.allowed


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="E2001"):
        read_yaml(tmp_path / name)


def test_written_yaml_holds_every_value_and_reads_back_equal(tmp_path: Path) -> None:
    first = read_settings(TuneSettings, None, {**GIVEN, "columns": {"text": "评论"}, "learning_rate": 1e-5})
    text = to_yaml(first)
    assert list(yaml.safe_load(text)) == list(TuneSettings.model_fields)
    assert read_settings(TuneSettings, config(tmp_path, text), {}) == first


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = LoopSettings(output_dir="a")
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 3


def test_every_setting_has_a_help_text() -> None:
    for kind in (TuneSettings, PretrainSettings):
        assert all(field.description for field in kind.model_fields.values())


def test_a_bad_value_deep_inside_names_its_whole_path(tmp_path: Path) -> None:
    path = config(tmp_path, "output_dir: a\ntotal_tokens: 5\ndata: [{path: x, share: -1}]\n")
    with pytest.raises(UsageError) as caught:
        read_settings(PretrainSettings, path, {})
    assert "data.0.share" in caught.value.where
