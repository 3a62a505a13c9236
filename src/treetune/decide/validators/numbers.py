"""Every number in the answer stands in the source, in whatever form; a translation also loses none."""

from __future__ import annotations

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason
from treetune.decide.validators.quantities import Quantity, quantities_in, values_in

NAME = "numbers"
TASKS = ("translation", "summarization")
FLAG_ONLY = False


def find(prediction: Prediction, example: Example) -> Reason | None:
    answer, source = prediction.answer, example.source
    written = quantities_in(answer)
    if written:
        known = values_in(source)
        added = [each for each in written if not _stands(each, known)]
        if added:
            return Reason(NAME, say("a number that the source does not have"), float(len(added)), 0.0, added[0].text,
                          (added[0].start, added[0].end))
    if example.question or not _is_translation(example):
        return None
    asked = quantities_in(source)
    if asked:
        kept = values_in(answer)
        lost = [each for each in asked if not _stands(each, kept)]
        if lost:
            return Reason(NAME, say("a number of the source is missing"), float(len(lost)), 0.0, lost[0].text,
                          (lost[0].start, lost[0].end), "source")
    return None


def _stands(each: Quantity, known: set[str]) -> bool:
    """Also with the scale that follows it in the other text: 3 million against 3,000,000."""
    value = float(each.value)
    return each.value in known or any(f"{value * scale:.10g}" in known for scale in (1e3, 1e4, 1e6, 1e8, 1e9)) or any(
        f"{value / scale:.10g}" in known for scale in (1e3, 1e4, 1e6, 1e8, 1e9) if value >= scale)


def _is_translation(example: Example) -> bool:
    """Its prompt begins with the name of a language, not with the text itself."""
    return not example.prompt[0].cuttable
