"""BLEU, chrF and ROUGE equal the packages that papers use."""

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from treetune.metrics.text import ROUGE_KINDS, bleu_statistics, chrf_statistics, rouge_statistics

ANSWERS = [
    "The cat sat on the mat .",
    "There is a house by the river, isn't there?",
    "",
    "Prices rose 3.5% in May.",
    "completely unrelated",
]
REFERENCES = [
    ["The cat sat on the mat.", "A cat was sitting on the mat."],
    ["There is a house near the river, is there not?"],
    ["Something was said."],
    ["Prices rose by 3.5% in May.", "In May, prices went up 3.5%.", "3.5% more in May"],
    ["Quite another sentence of seven words here."],
]
CHINESE = ["猫坐在垫子上。", "河边有一座房子", "GPT-3在2020年发布。"]
CHINESE_REFERENCES = [["猫坐在垫子上面。"], ["河边有一座小房子。"], ["GPT-3于2020年发布。"]]
SOME_WORDS = ("the", "a", "cat", "dog", "sat", "ran", "on", "mat", "river", "3.5%", "猫", "河", "房子")
WORDS = st.lists(st.sampled_from(SOME_WORDS), max_size=9)


def streams(references: list[list[str]]) -> list[list[str | None]]:
    most = max(map(len, references))
    return [[row[place] if place < len(row) else None for row in references] for place in range(most)]


def test_bleu_and_chrf_of_the_summed_rows_equal_sacrebleu_exactly() -> None:
    bleu = sacrebleu.corpus_bleu(ANSWERS, streams(REFERENCES), force=True)
    chrf = sacrebleu.corpus_chrf(ANSWERS, streams(REFERENCES))
    assert bleu_statistics(ANSWERS, REFERENCES).value() == bleu.score
    assert chrf_statistics(ANSWERS, REFERENCES).value() == chrf.score
    assert 0 < bleu.score < chrf.score < 100


def test_chinese_bleu_equals_sacrebleu_with_its_chinese_tokenizer() -> None:
    expected = sacrebleu.corpus_bleu(CHINESE, streams(CHINESE_REFERENCES), tokenize="zh").score
    found = bleu_statistics(CHINESE, CHINESE_REFERENCES, tokenizer="zh")
    assert found.value() == expected
    assert expected > 2 * bleu_statistics(CHINESE, CHINESE_REFERENCES).value()
    assert "tok:zh" in found.signature


@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_texts_equal_sacrebleu(rows: list[tuple[list[str], list[list[str]]]]) -> None:
    answers = [" ".join(answer) for answer, _ in rows]
    references = [[" ".join(one) for one in row] for _, row in rows]
    bleu = bleu_statistics(answers, references, tokenizer="zh")
    chrf = chrf_statistics(answers, references)
    expected = sacrebleu.corpus_bleu(answers, streams(references), tokenize="zh", force=True)
    assert bleu.value() == expected.score
    assert chrf.value() == sacrebleu.corpus_chrf(answers, streams(references)).score
    assert 0 <= bleu.value() <= 100 + 1e-9
    assert 0 <= chrf.value() <= 100 + 1e-9


def test_a_perfect_answer_scores_100() -> None:
    perfect = [row[0] for row in REFERENCES]
    assert bleu_statistics(perfect, REFERENCES).value() == pytest.approx(100)
    assert chrf_statistics(perfect, REFERENCES).value() == pytest.approx(100)


def test_many_sums_at_once_score_as_one_by_one() -> None:
    statistics = bleu_statistics(ANSWERS, REFERENCES)
    sums = np.stack([statistics.rows.sum(axis=0), statistics.rows[:2].sum(axis=0)])
    assert statistics.score(sums).tolist() == [float(statistics.score(line)) for line in sums]
    assert statistics.rows.shape == (5, 10)
    assert chrf_statistics(ANSWERS, REFERENCES).rows.shape == (5, 18)


def test_signatures_are_those_of_sacrebleu() -> None:
    assert bleu_statistics(ANSWERS, REFERENCES).signature == (
        f"nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    )
    assert chrf_statistics(CHINESE, CHINESE_REFERENCES).signature == (
        f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{sacrebleu.__version__}"
    )


@pytest.mark.parametrize("kind", ROUGE_KINDS)
def test_rouge_equals_rouge_score(kind: str) -> None:
    scorer = RougeScorer([kind], use_stemmer=True)
    expected = [
        scorer.score_multi(row, answer)[kind].fmeasure
        for answer, row in zip(ANSWERS, REFERENCES, strict=True)
    ]
    found = rouge_statistics(ANSWERS, REFERENCES, ["en"] * 5, kind=kind)
    assert found.rows[:, 0].tolist() == expected
    assert found.value() == pytest.approx(sum(expected) / 5)


def test_rouge_stems_english() -> None:
    assert rouge_statistics(["he is running"], [["he is runs"]], ["en"], kind="rouge1").value() == 1


def test_rouge_counts_han_characters() -> None:
    # 猫 坐 在 上 against 猫 在 坐 上: 4 characters shared, no pair, a common subsequence of 3.
    def score(kind: str) -> float:
        return rouge_statistics(["猫坐在上。"], [["猫在坐上"]], ["zh"], kind=kind).value()

    assert score("rouge1") == 1
    assert score("rouge2") == 0
    assert score("rougeL") == 0.75
    plain = RougeScorer(["rouge1"]).score("猫坐在上", "猫坐在上")
    assert plain["rouge1"].fmeasure == 0  # why the mode exists


def test_rouge_keeps_latin_words_in_chinese_and_picks_the_best_reference() -> None:
    found = rouge_statistics(["GPT-3写诗"], [["别的"], ["gpt 3写字"]][1:], ["zh-CN"], kind="rouge1")
    assert found.value() == 0.75  # gpt, 3, 写 of 4
    best = rouge_statistics(["写诗"], [["别的", "写诗", "写"]], ["zh"], kind="rouge1")
    assert best.value() == 1


def test_rouge_of_other_scripts_is_not_zero_whatever_the_language_says() -> None:
    found = rouge_statistics(["привет мир"], [["привет, мир"]], ["ru"], kind="rougeL")
    assert found.value() == 1
    assert "characters 1 rows" in found.signature


def test_an_unknown_rouge_is_refused() -> None:
    with pytest.raises(ValueError, match="rouge9"):
        rouge_statistics(["a"], [["a"]], ["en"], kind="rouge9")
