"""The watch: quiet while rows are alike, an alarm after a change, the same again when it is played again."""

import numpy as np

from treetune.core.records import Example, PromptPart
from treetune.decide.drift import Profile, Reference, Watch, audit_state, profile_of, reference_of


def example(text: str, row: int = 0) -> Example:
    return Example(row, str(row), "test", (PromptPart(text, cuttable=True),), "", (), {}, text, "en")


ENGLISH = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "while", "a", "slow", "grey", "cat",
           "watches", "from", "warm", "window", "sill"]
CHINESE = "这部电影非常好看演员的表演令人感动剧情也很紧凑值得推荐给大家一起来观看"


def sentence(random: np.random.Generator, words: list[str] | str = ENGLISH) -> str:
    return ("" if isinstance(words, str) else " ").join(random.choice(list(words), size=12))


def reference(random: np.random.Generator, rows: int = 150) -> Reference:
    texts = [example(sentence(random)) for _ in range(2 * rows)]
    return reference_of(texts[:rows], texts[rows:], random.uniform(size=rows).tolist())


def test_the_same_kind_of_rows_is_quiet_and_another_language_is_not() -> None:
    random = np.random.default_rng(0)
    own = reference(random)
    watch = Watch(own)
    for row in range(300):
        watch.add(own.values_of(float(random.uniform()), example(sentence(random))), str(row))
    assert watch.alarm is None
    before = watch.rows
    while watch.alarm is None and watch.rows < before + 100:
        watch.add(own.values_of(float(random.uniform()), example(sentence(random, CHINESE))), str(watch.rows))
    assert watch.alarm is not None
    assert watch.alarm - before <= 20


def test_lower_scores_alarm_without_any_change_of_text() -> None:
    random = np.random.default_rng(1)
    own, rows = reference(random), 0
    watch = Watch(own)
    while watch.alarm is None and rows < 300:
        watch.add(own.values_of(float(random.beta(1, 4)), example(sentence(random))), str(rows))
        rows += 1
    assert watch.alarm is not None
    assert watch.capitals["score"] > watch.capitals["text"]


def test_false_alarms_keep_to_their_chance() -> None:
    random, alarms = np.random.default_rng(2), 0
    empty = Profile({}, 1.0)
    for stream in range(150):
        own = Reference(empty, {"score": tuple(random.uniform(size=40))})
        watch = Watch(own, alarm_chance=0.1)
        for row in range(60):
            watch.add({"score": float(random.uniform())}, f"{stream}-{row}")
        alarms += watch.alarm is not None
    assert alarms <= 15 + 3 * np.sqrt(150 * 0.1 * 0.9)


def test_ties_and_faults_are_no_alarm_by_themselves() -> None:
    own = Reference(Profile({}, 1.0), {"score": (1.0,) * 30 + ((-1e9),) * 10})
    watch = Watch(own)
    for row in range(200):
        watch.add({"score": 1.0 if row % 4 else -1e9}, str(row))
    assert watch.alarm is None


def test_a_replay_gives_the_same_numbers() -> None:
    random = np.random.default_rng(3)
    own = reference(random, 30)
    values = [own.values_of(float(random.uniform()), example(sentence(random))) for _ in range(40)]
    one, two = Watch(own), Watch(Reference.from_dict(own.as_dict()))
    for place, each in enumerate(values):
        assert one.add(each, str(place)) == two.add(each, str(place))


def test_unknown_pairs_are_less_usual() -> None:
    profile = profile_of(["abababab", "abab"])
    assert profile.usualness("abab") > profile.usualness("abxy") > profile.usualness("xyzw")
    assert profile.usualness("a") == 0.0


def test_audited_outcomes_alarm_when_the_bound_is_refuted() -> None:
    quiet, loud = audit_state([False] * 100, 0.05), audit_state([True, False] * 20, 0.05)
    assert (quiet.alarm, quiet.wrong, quiet.low) == (None, 0, 0.0)
    assert loud.alarm is not None
    assert loud.low > 0.05
    assert audit_state([], 0.05).rows == 0
