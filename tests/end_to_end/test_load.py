"""treetune.load: what scikit-learn expects of a model, and decisions by the one door."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.metrics import accuracy_score, f1_score, get_scorer, log_loss
from sklearn.utils.validation import check_is_fitted

import treetune
from treetune.core.errors import DataError, UsageError
from treetune.data.sample import sample_path
from treetune.verbs import predict
from treetune.workflow.estimator import TunedClassifier, TunedModel

Cli = Callable[..., Any]
TEXTS = ["A warm and funny film.", "Dull from start to end.", "It runs for two hours."]


def test_labels_and_probabilities_fit_scikit_learn(runs: Callable[[str], Path], tmp_path: Path) -> None:
    model = treetune.load(str(runs("sentiment")))
    assert isinstance(model, TunedClassifier)
    assert list(model.classes_) == ["negative", "neutral", "positive"]
    probabilities = model.predict_proba(TEXTS)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-12)
    answers = model.predict({"text": TEXTS})
    assert list(answers) == list(model.classes_[probabilities.argmax(1)])
    truth = ["positive", "negative", "neutral"]
    own = -np.log(probabilities[range(3), [list(model.classes_).index(each) for each in truth]]).mean()
    assert log_loss(truth, probabilities) == pytest.approx(own)
    assert accuracy_score(truth, answers) == np.mean([one == two for one, two in zip(truth, answers, strict=True)])
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "{text}"}}\n' for text in TEXTS), "utf-8")
    assert [each.answer for each in predict(str(runs("sentiment")), str(rows))] == list(answers)
    assert model.predict_proba([]).shape == (0, 3)


def test_scorers_of_scikit_learn_take_it_for_a_fitted_classifier(runs: Callable[[str], Path]) -> None:
    model = treetune.load(str(runs("sentiment")))
    truth = ["positive", "negative", "neutral"]
    assert is_classifier(model)
    check_is_fitted(model)
    assert clone(model) is model
    answers, probabilities = model.predict(TEXTS), model.predict_proba(TEXTS)
    assert model.score(TEXTS, truth) == accuracy_score(truth, answers) == get_scorer("accuracy")(model, TEXTS, truth)
    right = [one == two for one, two in zip(truth, answers, strict=True)]
    assert model.score(TEXTS, truth, [1, 2, 3]) == pytest.approx(np.average(right, weights=[1, 2, 3]))
    assert model.score(TEXTS, list(answers)) == 1.0
    assert get_scorer("neg_log_loss")(model, TEXTS, truth) == pytest.approx(-log_loss(truth, probabilities))
    assert get_scorer("f1_macro")(model, TEXTS, truth) == f1_score(truth, answers, average="macro")
    assert 0 <= get_scorer("roc_auc_ovr")(model, TEXTS, truth) <= 1
    with pytest.raises(UsageError, match="E2067"):
        model.fit(TEXTS, truth)


def test_decisions_are_those_of_the_gate_and_kept_only_on_request(
    runs: Callable[[str], Path], cli: Cli, tmp_path: Path
) -> None:
    plain = treetune.load(str(runs("sentiment")))
    assert [each.decision.verdict for each in plain.decide(TEXTS) if each.decision] == ["ungated"] * 3
    run = tmp_path / "run"
    shutil.copytree(runs("sentiment"), run)
    assert cli("gate", run, "--data", sample_path("sentiment", "test"), "--max-error", 0.001, "--confidence",
               0.99).code == 4  # nothing can be accepted
    held = treetune.load(str(run)).decide(TEXTS)
    assert [each.decision.verdict for each in held if each.decision] == ["review"] * 3
    assert not (run / "trust" / "queue.jsonl").exists()
    treetune.load(str(run), record=True).decide(TEXTS)
    assert len((run / "trust" / "queue.jsonl").read_text("utf-8").splitlines()) == 3


def test_tasks_of_several_columns_take_them_by_name(runs: Callable[[str], Path]) -> None:
    model = treetune.load(str(runs("question_answering")))
    assert type(model) is TunedModel
    assert not hasattr(model, "predict_proba")
    assert model.columns[:2] == ("context", "question")
    rows = {"context": ["Paris lies on the Seine."] * 2, "question": ["Where is Paris?", "What is Paris?"]}
    assert model.predict(rows).shape == (2,)
    with pytest.raises(DataError, match="E1208"):
        model.predict(["Where is Paris?"])
    with pytest.raises(DataError, match="E1202"):
        model.predict({"context": ["", "a"], "question": ["b", "c"]})


def test_the_program_of_the_page_runs(
    runs: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
    [program] = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    exec(compile(program.replace("runs/a", str(runs("sentiment"))), "export.md", "exec"), {})
    assert capsys.readouterr().out.strip().endswith("ungated")


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E2030"):
        treetune.load(str(tmp_path / "none"))
