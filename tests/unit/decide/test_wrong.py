"""Definitions of wrong: read, shown, refused with a code."""

import pytest

from treetune.core.errors import UsageError
from treetune.decide.wrong import Wrong, check_wrong, known_metrics, parse_wrong

QA = {"f1": 1.0, "exact_match": 1.0}


@pytest.mark.parametrize(("text", "expected"), [
    ("label differs", Wrong("accuracy", 1.0)), ("  label   differs ", Wrong("accuracy", 1.0)),
    ("f1<0.5", Wrong("f1", 0.5)), (" f1 < .5 ", Wrong("f1", 0.5)), ("chrf<40", Wrong("chrf", 40.0)),
    ("rougeL < 0.2", Wrong("rougeL", 0.2)),
])
def test_definitions_are_read_and_written_back(text: str, expected: Wrong) -> None:
    assert parse_wrong(text) == expected
    assert parse_wrong(str(expected)) == expected


@pytest.mark.parametrize("text", ["f1", "f1>0.5", "f1<=0.5", "f1<", "<0.5", "f1<0.5 and em<1", "f1<-1", "f1<nan",
                                  "f1<0,5", "label", "f1<0.5.1", "__import__('os')"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="E2502"):
        parse_wrong(text)


def test_a_task_has_its_own_metrics_defaults_and_limits() -> None:
    assert check_wrong("", "question_answering", QA, "f1<0.5") == Wrong("f1", 0.5)
    assert check_wrong("exact_match<1", "question_answering", QA, "f1<0.5") == Wrong("exact_match", 1.0)
    for text, code in (("chrf<40", "E2503"), ("f1<1.5", "E2505"), ("f1<0", "E2505"), ("label differs", "E2503")):
        with pytest.raises(UsageError, match=code):
            check_wrong(text, "question_answering", QA, "f1<0.5")
    with pytest.raises(UsageError, match="E2504") as caught:
        check_wrong(" ", "translation", {"chrf": 100.0}, "")
    assert 'chrf<40' in str(caught.value)


def test_metrics_of_a_whole_corpus_judge_no_single_answer() -> None:
    best = {"accuracy": 1.0, "macro_f1": 1.0, "chrf": 100.0, "bleu": 100.0}
    assert known_metrics(("accuracy", "macro_f1"), best) == {"accuracy": 1.0}
    assert known_metrics(("chrf", "bleu"), best) == {"chrf": 100.0}
