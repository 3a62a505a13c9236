"""Opening a run: the model is the one that was trained, errors name what is missing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from treetune.core.errors import UsageError
from treetune.core.settings import TuneSettings
from treetune.data.sample import sample_path
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, train_tokenizer
from treetune.tasks.contract import TaskOptions
from treetune.workflow import path as path_module
from treetune.workflow.path import tune
from treetune.workflow.run import facts_of_options, open_run, options_of, save_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = train_tokenizer(sample_path("sentiment", "train").read_text("utf-8").splitlines(), 380, 256)
    torch.manual_seed(0)
    GPT3LMHeadModel(GPT3Config(
        vocab_size=len(tokenizer), n_positions=256, n_embd=32, n_layer=2, n_head=2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
@pytest.mark.parametrize(("lora_r", "random_init"), [(0, False), (0, True), (2, False)])
def test_the_opened_model_is_the_trained_one(
    lora_r: int, random_init: bool, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []

    def keep(folder: Any, model: Any, tokenizer: Any, *base: str) -> None:
        trained.append(model)
        save_model(folder, model, tokenizer, *base)

    monkeypatch.setattr(path_module, "save_model", keep)
    settings = TuneSettings(
        task="sentiment", model=str(tiny), data=str(sample_path("sentiment", "train")), lora_r=lora_r, seed=3,
        random_init=random_init, max_steps=1, per_device_train_batch_size=4, output_dir=str(tmp_path / "run"),
    )
    facts = tune(settings, lambda event: None)
    run = open_run(tmp_path / "run")
    assert run.facts == facts
    assert (run.max_length, run.max_new_tokens, run.layout) == (256, 8, facts["layout"])
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected, found = trained[0].eval()(ids).logits, run.loaded.model(ids).logits
    assert torch.allclose(expected, found, atol=1e-6)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "sentiment").mkdir()
    with pytest.raises(UsageError) as caught:
        open_run(tmp_path / "sentimant")
    assert (caught.value.code, caught.value.allowed) == ("E2030", "sentiment")
    with pytest.raises(UsageError) as caught:
        open_run(tmp_path / "sentiment")
    assert caught.value.code == "E2031"


@pytest.mark.parametrize("options", [
    TaskOptions(("positive", "negative"), "en"), TaskOptions(("positive", "negative"), "en", "Judge the film.")])
def test_options_are_written_down_and_read_back(options: TaskOptions) -> None:
    facts = facts_of_options(options)
    assert options_of(facts) == options
    assert ("instruction" in facts) == bool(options.instruction)


def test_a_run_of_before_instructions_has_none() -> None:
    assert options_of({"labels": ["a"], "prompt_language": "zh"}) == TaskOptions(("a",), "zh", "")
