"""Where sentences end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.evaluate.sentences import sentences_of


@pytest.mark.parametrize(("text", "expected"), [
    ("One. Two! Three?", ["One.", "Two!", "Three?"]),
    ("Mr. Smith met Dr. J. Doe in the U.S. Senate. They left.",
     ["Mr. Smith met Dr. J. Doe in the U.S. Senate.", "They left."]),
    ("It costs 3.5 euros. See example.com for more.", ["It costs 3.5 euros.", "See example.com for more."]),
    ("He said “Stop.” Then he ran.", ["He said “Stop.”", "Then he ran."]),
    ("Am 3. Oktober war es z.B. kalt. Danach nicht.", ["Am 3. Oktober war es z.B. kalt.", "Danach nicht."]),
    ("Sie ist 42. Er ist 43.", ["Sie ist 42.", "Er ist 43."]),
    ("He said no. Then he left. See No. 5 for it.", ["He said no.", "Then he left.", "See No. 5 for it."]),
    ("他来了。她走了！真的？“是的。”好", ["他来了。", "她走了！", "真的？", "“是的。”", "好"]),
    ("价格是3.5元。很贵", ["价格是3.5元。", "很贵"]),
    ("等等……好吧。", ["等等……", "好吧。"]),
    ("Wait... what? Yes.", ["Wait... what?", "Yes."]),
    ("A title\n\nA sentence.", ["A title", "A sentence."]),
    ("no end", ["no end"]),
    ("", []),
    ("  \n\n ", []),
])
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences_of(text) == expected


@given(st.text(alphabet="Ab 1.!?。！…”\n\"猫3z", max_size=60))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_nothing_is_lost(text: str) -> None:
    sentences = sentences_of(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)
