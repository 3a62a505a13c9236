"""What an example says is read, with an instruction and without."""

import pytest

from treetune.core.records import Example, PromptPart

PROMPT = (PromptPart("Review: "), PromptPart("good", cuttable=True), PromptPart("\nSentiment:"))


def example(instruction: str) -> Example:
    return Example(0, "0", "test", PROMPT, "", (), {}, "good", "en", instruction=instruction)


@pytest.mark.parametrize(("instruction", "lead"), [
    ("Judge the review.", "Judge the review.\n"), ("### Input:\n", "### Input:\n"), ("Film: ", "Film: "),
    ("\u4e2d\u6587\u3000", "\u4e2d\u6587\u3000"), ("判断影评。", "判断影评。\n")])
def test_an_instruction_is_the_first_piece_on_lines_of_its_own(instruction: str, lead: str) -> None:
    found = example(instruction)
    assert found.pieces == (PromptPart(lead), *PROMPT)
    assert found.prompt_text == lead + found.row_text == lead + "Review: good\nSentiment:"
    assert found.prompt == PROMPT  # the task's form is told by its first piece


def test_without_one_nothing_stands_there() -> None:
    found = example("")
    assert (found.lead, found.pieces, found.prompt_text) == ("", PROMPT, "Review: good\nSentiment:")
