"""The registry: names to numbers with intervals."""

import math

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.errors import DataError, UsageError
from treetune.core.records import Example
from treetune.evaluate.score import (
    METRICS,
    Resampling,
    bits_per_byte_score,
    compare,
    evaluate,
    passages_of,
    perplexity_score,
    statistics_of,
)

LABELS = ("negative", "positive")
TEXT = ["the cat sat on the mat today", "猫今天坐在垫子上", "a dog ran by the old river"]


def test_every_metric_gives_its_best_to_a_perfect_system_and_the_worst_to_an_empty_one(make_examples) -> None:
    examples = make_examples([[text] for text in TEXT], ["en", "zh", "en"])
    for name, metric in METRICS.items():
        perfect, nothing = (evaluate(answers, examples, [name], seed=0)[0] for answers in (TEXT, [""] * 3))
        assert perfect.interval.value == pytest.approx(metric.best), name
        assert nothing.interval.value == 0, name
        assert perfect.count == 3
        assert perfect.metric == name


def test_scores_come_in_the_order_asked_and_equal_known_values(make_examples) -> None:
    examples = make_examples([["positive"], ["negative"], ["negative"], ["positive"]])
    answers = ["positive", "negative", "positive", "positive"]
    macro, accuracy = evaluate(answers, examples, ["macro_f1", "accuracy"], seed=1, labels=LABELS)
    assert accuracy.interval.value == 0.75
    assert macro.interval.value == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert accuracy.interval.low <= 0.75 <= accuracy.interval.high
    assert accuracy.signature == "accuracy|exact label|ci:percentile|bs:1000|seed:1|unit:row"
    assert macro.interval.level == 0.95


def test_bleu_is_that_of_sacrebleu_with_the_tokenizer_of_most_rows(make_examples) -> None:
    answers = ["猫坐在垫子上", "the cat sat on a mat now", "河边有房子"]
    references = ["猫坐在垫子上面", "the cat sat on the mat now", "河边有一座房子"]
    mixed = make_examples([[text] for text in references], ["zh", "en", "zh"])
    score = evaluate(answers, mixed, ["bleu"], seed=0)[0]
    assert score.interval.value == sacrebleu.corpus_bleu(answers, [references], tokenize="zh").score
    assert "|zh rows:2 of 3|" in score.signature
    mostly_english = make_examples([[text] for text in references], ["zh", "en", "en"])
    assert "tok:13a" in evaluate(answers, mostly_english, ["bleu"], seed=0)[0].signature
    english = make_examples([[references[1]]])
    assert "zh rows" not in evaluate(answers[1:2], english, ["bleu"], seed=0)[0].signature


def test_each_row_is_measured_in_its_own_language(make_examples) -> None:
    examples = make_examples([["九个隧道"], ["the nine tunnels"]], ["zh", "en"])
    for name in ("f1", "rouge1"):
        rows = statistics_of(name, ["九个", "nine tunnels"], examples).rows[:, 0]
        assert rows[0] == pytest.approx(2 / 3), name
        assert rows[1] == pytest.approx(1 if name == "f1" else 0.8), name


def test_all_right_is_not_certainty(make_examples) -> None:
    examples = make_examples([["positive"]] * 10)
    score = evaluate(["positive"] * 10, examples, ["accuracy"], seed=0)[0]
    assert score.interval.value == score.interval.high == 1
    assert score.interval.low == pytest.approx(10 / (10 + 1.959964**2))
    assert "ci:wilson" in score.signature
    clustered = evaluate(["positive"] * 10, examples, ["accuracy"], seed=0, cluster=list("aaaaabbbbb"))[0]
    assert clustered.interval.low == pytest.approx(2 / (2 + 1.959964**2))


def test_questions_of_one_passage_are_one_cluster(make_examples) -> None:
    examples = make_examples([["a"]] * 4, sources=["one", "one", "", ""])
    assert passages_of(examples) == ("one", "one", "row test:2", "row test:3")
    many = make_examples([["a"]] * 80, sources=[f"passage {row // 8}" for row in range(80)])
    answers = ["a" if row // 8 % 3 else "b" for row in range(80)]
    alone = evaluate(answers, many, ["exact_match"], seed=0)[0].interval
    together = evaluate(answers, many, ["exact_match"], seed=0, cluster=passages_of(many))[0].interval
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_compare_is_paired_and_fills_in_the_metric(make_examples) -> None:
    examples = make_examples([["positive"], ["negative"]] * 20)
    right = ["positive", "negative"] * 20
    found = compare(right, ["positive"] * 40, examples, "macro_f1", seed=0)
    assert found.metric == "macro_f1"
    assert found.interval.value == pytest.approx(1 - 1 / 3)
    assert found.interval.low > 0.5
    assert 0 < found.p_value < 0.01
    back = compare(["positive"] * 40, right, examples, "macro_f1", seed=0)
    assert back.p_value == found.p_value


def test_compare_of_different_answer_labels_without_given_labels(make_examples) -> None:
    examples = make_examples([["a"], ["b"]])
    found = compare(["a", "x"], ["y", "z"], examples, "macro_f1", seed=0)
    assert found.interval.value == pytest.approx(1 / 3)  # F1 of a, b, x: 1, 0, 0


def test_unanswerable_rows_count_for_spans_only(make_examples) -> None:
    examples = make_examples([["Paris"], []])
    assert evaluate(["Paris", ""], examples, ["exact_match"], seed=0)[0].interval.value == 1
    with pytest.raises(DataError, match="E1401") as caught:
        evaluate(["Paris", ""], examples, ["rouge1"], seed=0)
    assert "test:1" in str(caught.value)
    with pytest.raises(DataError, match="E1401"):
        evaluate(["", ""], make_examples([[], []]), ["exact_match"], seed=0)


def test_refusals(make_examples) -> None:
    examples = make_examples([["a"]])
    with pytest.raises(UsageError, match="E2401") as caught:
        evaluate(["a"], examples, ["acuracy"], seed=0)
    assert "write accuracy" in str(caught.value)
    with pytest.raises(UsageError, match="choose one of them"):
        evaluate(["a"], examples, ["???"], seed=0)
    with pytest.raises(DataError, match="E1404"):
        evaluate(["a", "b"], examples, ["accuracy"], seed=0)
    with pytest.raises(DataError, match="E1402"):
        evaluate([], [], ["accuracy"], seed=0)
    with pytest.raises(DataError, match="E1403"):
        evaluate(["a"], examples, ["macro_f1"], seed=0, labels=LABELS)


def test_perplexity_and_bits_have_intervals() -> None:
    rows = [[math.log(0.5)] * 4, [math.log(0.25)] * 2, [math.log(0.125)] * 2] * 10
    how = Resampling(seed=0)
    perplexity = perplexity_score(rows, how)
    assert perplexity.interval.value == pytest.approx(2 ** (14 / 8))
    assert perplexity.interval.low < perplexity.interval.value < perplexity.interval.high
    bits = bits_per_byte_score(rows, ["abcd", "ab", "ab"] * 10, how)
    assert bits.interval.value == pytest.approx(14 / 8)
    assert bits.count == 30


TEXTS = st.text(alphabet="abc 猫狗.", max_size=12)


@given(rows=st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["en", "zh"])), min_size=1, max_size=5),
       seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_bounds_and_the_order_of_rows(rows: list[tuple[str, str, str]], seed: int) -> None:
    examples = [
        Example(number, f"t:{number}", "test", (), reference, (reference,), {}, "", language)
        for number, (_, reference, language) in enumerate(rows)
    ]
    answers = [answer for answer, _, _ in rows]
    order = np.random.default_rng(seed).permutation(len(rows))
    for name, metric in METRICS.items():
        value = statistics_of(name, answers, examples).value()
        shuffled = statistics_of(name, [answers[i] for i in order], [examples[i] for i in order]).value()
        assert -1e-9 <= value <= metric.best + 1e-9
        assert shuffled == pytest.approx(value)
