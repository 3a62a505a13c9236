"""Small examples."""

from collections.abc import Callable, Sequence

import pytest

from treetune.core.records import Example, PromptPart

MakeExamples = Callable[..., list[Example]]


@pytest.fixture
def make_examples() -> MakeExamples:
    """(answers a row, language(s), source(s), question(s), candidates) -> examples."""

    def make(
        answers: Sequence[Sequence[str]],
        language: str | Sequence[str] = "en",
        sources: Sequence[str] = (),
        questions: Sequence[str] = (),
        candidates: Sequence[str] = (),
    ) -> list[Example]:
        count = len(answers)
        languages = [language] * count if isinstance(language, str) else language
        sources = sources or [""] * count
        questions = questions or [""] * count
        return [
            Example(
                row=row, row_id=f"test:{row}", split="test",
                prompt=(
                    PromptPart("Answer from the text.\n\n"), PromptPart(sources[row], cuttable=True),
                    PromptPart(f"\n\nQuestion: {questions[row]}\nAnswer:"),
                ),
                completion=next(iter(answers[row]), ""), answers=tuple(answers[row]),
                candidates={name: name for name in candidates},
                source=sources[row], language=languages[row],
            )
            for row in range(count)
        ]

    return make
