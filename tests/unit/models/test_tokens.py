"""Cutting takes only what may be cut, is counted, and never touches the answer."""

from dataclasses import replace

import pytest

from treetune.core.errors import DataError
from treetune.core.records import Example, PromptPart
from treetune.models.gpt3 import GPT3Tokenizer
from treetune.models.tokens import instruction_length, start_ids, tokenize, tokenize_candidates
from treetune.trees import build_tree, pack


def example(*parts: PromptPart, completion: str = " good", row: int = 0) -> Example:
    return Example(row, f"train:{row}", "train", parts, completion, (completion,),
                   {"good": " good", "bad": " bad and very long indeed"}, "", "en")


FIXED, TEXT, END = PromptPart("Review: "), PromptPart("The film was good and long. " * 3, cuttable=True), \
    PromptPart("\nAnswer:")


def length(tokenizer: GPT3Tokenizer, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False).input_ids)


def test_a_row_that_fits_is_left_whole(tokenizer: GPT3Tokenizer) -> None:
    (row,) = tokenize([example(FIXED, TEXT, END)], tokenizer, 1000)
    assert row.num_cut == 0
    assert tokenizer.decode(row.prompt_ids) == "<|endoftext|>" + FIXED.text + TEXT.text + END.text
    assert tokenizer.decode(row.completion_ids) == " good<|endoftext|>"
    assert row.completion_ids[-1] == tokenizer.eos_token_id


def test_too_long_rows_lose_the_end_of_their_cuttable_part_and_it_is_counted(tokenizer: GPT3Tokenizer) -> None:
    (whole,) = tokenize([example(FIXED, TEXT, END)], tokenizer, 1000)
    size = len(whole.prompt_ids) + len(whole.completion_ids)
    (cut,) = tokenize([example(FIXED, TEXT, END)], tokenizer, size - 5)
    assert cut.num_cut == 5
    assert len(cut.prompt_ids) + len(cut.completion_ids) == size - 5
    assert cut.completion_ids.tolist() == whole.completion_ids.tolist()
    end = length(tokenizer, END.text)
    assert cut.prompt_ids.tolist() == [*whole.prompt_ids[: -end - 5], *whole.prompt_ids[-end:]]


def test_the_last_cuttable_part_is_cut_first_and_then_the_one_before(tokenizer: GPT3Tokenizer) -> None:
    first, second = PromptPart("one two three", cuttable=True), PromptPart("four five", cuttable=True)
    (whole,) = tokenize([example(first, FIXED, second, END)], tokenizer, 1000)
    gone = length(tokenizer, second.text) + 2
    (cut,) = tokenize([example(first, FIXED, second, END)], tokenizer,
                      len(whole.prompt_ids) + len(whole.completion_ids) - gone)
    text = tokenizer.decode(cut.prompt_ids)
    assert cut.num_cut == gone
    assert "four" not in text
    assert text.endswith(FIXED.text + END.text)
    assert text.startswith("<|endoftext|>one")


def test_a_row_that_cannot_fit_is_refused_by_name(tokenizer: GPT3Tokenizer) -> None:
    with pytest.raises(DataError) as caught:
        tokenize([example(FIXED, TEXT, END, row=7)], tokenizer, 6)
    assert caught.value.code == "E1301"
    assert "train:7" in caught.value.where
    fixed = 1 + length(tokenizer, FIXED.text) + length(tokenizer, END.text)
    assert caught.value.found.startswith(f"{fixed} tokens")


def test_a_completion_longer_than_the_window_is_refused_never_cut(tokenizer: GPT3Tokenizer) -> None:
    with pytest.raises(DataError, match="E1301"):
        tokenize([example(TEXT, completion=" good" * 30)], tokenizer, 20)


def test_rows_to_answer_have_no_completion(tokenizer: GPT3Tokenizer) -> None:
    (row,) = tokenize([example(FIXED, TEXT, END)], tokenizer, 30, with_completion=False)
    assert row.completion_ids.tolist() == []
    assert len(row.prompt_ids) == 30


def test_an_empty_answer_is_only_its_end(tokenizer: GPT3Tokenizer) -> None:
    (row,) = tokenize([example(FIXED, completion="")], tokenizer, 100)
    assert row.completion_ids.tolist() == [tokenizer.eos_token_id]


@pytest.mark.parametrize("room", [1000, 40])
def test_candidates_share_one_prompt_that_leaves_room_for_the_longest(tokenizer: GPT3Tokenizer, room: int) -> None:
    rows = tokenize_candidates([example(FIXED, TEXT, END), example(FIXED, row=1)], tokenizer, room)
    assert [(row.row, row.choice) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert rows[0].prompt_ids.tolist() == rows[1].prompt_ids.tolist()
    assert rows[0].num_cut == rows[1].num_cut
    assert tokenizer.decode(rows[1].completion_ids) == " bad and very long indeed<|endoftext|>"
    assert max(len(row.prompt_ids) + len(row.completion_ids) for row in rows) <= room


def test_the_text_of_a_special_token_in_a_row_does_not_end_it(tokenizer: GPT3Tokenizer) -> None:
    (row,) = tokenize([example(PromptPart("a <|endoftext|> b"))], tokenizer, 100)
    assert row.prompt_ids.tolist().count(tokenizer.eos_token_id) == 1


def test_a_row_starts_with_the_tokenizers_own_start(tokenizer: GPT3Tokenizer) -> None:
    assert start_ids(tokenizer) == [tokenizer.bos_token_id]


SAID = "Judge the film. Answer with one word."


def told(*parts: PromptPart, instruction: str = SAID, **given: object) -> Example:
    return replace(example(*parts, **given), instruction=instruction)  # type: ignore[arg-type]


def own_ids(tokenizer: GPT3Tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def test_an_instruction_stands_behind_the_start_as_tokens_of_its_own(tokenizer: GPT3Tokenizer) -> None:
    said = own_ids(tokenizer, SAID + "\n")
    for rows in (tokenize([told(FIXED, TEXT, END)], tokenizer, 1000),
                 tokenize_candidates([told(FIXED, TEXT, END)], tokenizer, 1000)):
        (bare, *_) = tokenize([example(FIXED, TEXT, END)], tokenizer, 1000)
        for row in rows:
            assert row.prompt_ids.tolist() == [bare.prompt_ids[0], *said, *bare.prompt_ids[1:]]
            assert (row.num_instruction, bare.num_instruction) == (len(said), 0)
    assert instruction_length(tokenizer, told(FIXED)) == len(said)
    assert instruction_length(tokenizer, example(FIXED)) == 0


def test_an_instruction_is_never_cut(tokenizer: GPT3Tokenizer) -> None:
    said = own_ids(tokenizer, SAID + "\n")
    (whole,) = tokenize([told(FIXED, TEXT, END)], tokenizer, 1000)
    cuttable = length(tokenizer, TEXT.text)
    for room in (whole.num_tokens - 5, whole.num_tokens - cuttable):
        (row,) = tokenize([told(FIXED, TEXT, END)], tokenizer, room)
        assert row.num_cut == whole.num_tokens - room
        assert row.prompt_ids.tolist()[1 : 1 + len(said)] == said
    with pytest.raises(DataError, match="E1301") as caught:
        tokenize([told(FIXED, TEXT, END)], tokenizer, whole.num_tokens - cuttable - 1)
    assert "shorten the instruction" in str(caught.value)


def test_a_special_token_spelt_in_an_instruction_stays_text(tokenizer: GPT3Tokenizer) -> None:
    (row,) = tokenize([told(FIXED, instruction="a <|endoftext|> b")], tokenizer, 100)
    assert row.prompt_ids.tolist().count(tokenizer.eos_token_id) == 1


def test_rows_of_one_instruction_share_it_as_one_prefix_of_their_tree(tokenizer: GPT3Tokenizer) -> None:
    texts = ["Good film.", "The film was long.", "\nA line break first", "这部电影很好看", "Good film!"]
    made = [told(PromptPart(text, cuttable=True), END, row=row) for row, text in enumerate(texts)]
    rows = tokenize(made, tokenizer, 200)
    said = own_ids(tokenizer, SAID + "\n")
    tree = build_tree(rows)
    once = 1 + len(said)
    assert tree.input_ids.tolist()[:once] == [tokenizer.bos_token_id, *said]
    assert tree.branch_end.tolist()[:once] == [len(tree.input_ids)] * once  # every token of every row is behind it
    alone = build_tree(tokenize([replace(each, instruction="") for each in made], tokenizer, 200))
    assert len(tree.input_ids) == len(alone.input_ids) + len(said)
    assert tree.num_row_tokens == alone.num_row_tokens + len(rows) * len(said)


def test_a_long_instruction_takes_no_room_of_the_rows_in_a_pass(tokenizer: GPT3Tokenizer) -> None:
    made = [told(PromptPart(f"The film was {'long ' * row}", cuttable=True), END, row=row, instruction=SAID * 20)
            for row in range(6)]
    bare = tokenize([replace(each, instruction="") for each in made], tokenizer, 1000)
    rows = tokenize(made, tokenizer, 1000)
    assert rows[0].num_instruction > 100
    for budget in (20, 40, 80):
        counts = [[sorted(set(tree.label_example.tolist())) for tree in pack(each, budget)] for each in (bare, rows)]
        assert counts[0] == counts[1]
        apart = pack(rows, budget, share=False)  # nothing is shared, so the budget is for all of it
        assert len(apart) == len(rows)
