"""Real pretrained encoder weights, where the minilm extra is installed: the body is read, and tuning gets somewhere."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from treetune.core.errors import ModelError
from treetune.core.settings import TuneSettings
from treetune.models.embedded import minilm_folder
from treetune.models.load import load_model
from treetune.workflow.evaluate import evaluate
from treetune.workflow.path import tune

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "sentiment" / "sst3"
ALIKE = ("The cat sleeps on the sofa.", "A kitten is napping on the couch.")
OTHER = "Interest rates rose by half a percent."


@pytest.fixture(autouse=True)
def with_the_extra() -> None:
    torch.set_num_threads(1)
    try:
        minilm_folder()
    except ModelError as error:
        pytest.skip(str(error))


def test_the_body_knows_which_sentences_are_alike() -> None:
    loaded = load_model("minilm", head="classes", labels=("a", "b"))
    given = loaded.tokenizer([*ALIKE, OTHER], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = loaded.model.bert(**given).last_hidden_state
    mask = given["attention_mask"][..., None]
    means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    near, far = float(means[0] @ means[1]), float(means[0] @ means[2])
    assert near > 0.6
    assert far < 0.2


def test_it_has_no_masked_word_head_and_none_is_made_up() -> None:
    with pytest.raises(ModelError) as caught:
        load_model("minilm", head="masked")
    assert caught.value.code == "E3009"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
def test_a_minute_of_tuning_learns_sentiment(tmp_path: Path) -> None:
    files = {}
    for split, count in (("train", 1600), ("validation", 300)):
        with gzip.open(DATA / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            kept = [line for line in lines if json.loads(line)["label"] != "neutral"][:count]
        files[split] = tmp_path / f"{split}.jsonl"
        files[split].write_text("".join(kept), "utf-8")
    tune(TuneSettings(task="sentiment", model="minilm", data=str(files["train"]), output_dir=str(tmp_path / "run"),
                      num_train_epochs=1, learning_rate=2e-4, per_device_train_batch_size=16, max_length=64,
                      max_tokens_per_pass=400), lambda event: None)
    record = evaluate(str(tmp_path / "run"), str(files["validation"]), lambda event: None, compare_base=False)
    assert record["scores"]["tuned"][0]["value"] > 0.75
