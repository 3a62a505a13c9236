"""The report of a run: one HTML file that needs nothing else, opens offline, and reads and prints well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from treetune.core.language import language, say
from treetune.report import compute, explanation, fairness, quality, sections, trust
from treetune.report.blocks import Section
from treetune.report.wording import clean, task_name

HTML_LANGUAGES = {"en": "en", "zh": "zh-Hans"}


def render_report(record: Mapping[str, Any]) -> str:
    """The page, in the language in force; the same record gives the same bytes.

    Args:
        record: task, model (needed); created, treetune_version, command, settings, data (`DataReport.as_dict`),
            events (lines of ``metrics.jsonl``), evaluation (`Evaluation.as_dict` or ``evaluation.json``),
            examples (input, reference, answer, correct, probability), parameters, seconds, tokens (computed),
            row_tokens, machine. What is missing is named as not there yet.
    """
    title = say("{task} with {model}", task=task_name(str(record.get("task", ""))),
                model=clean(record.get("model", "")))
    return render_page(title, sections_of(record), clean(record.get("treetune_version") or ""))


def render_page(title: str, sections: Sequence[Section], version: str) -> str:
    """Sections as one HTML file in the language in force."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("treetune.report").joinpath("templates", "report.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        language=HTML_LANGUAGES[language()], title=title, contents=say("Contents"), sections=sections, svg=Markup,
        made_by=say("Made by treetune {version}", version=version),
    )


def sections_of(record: Mapping[str, Any]) -> list[Section]:
    """All sections in the order of the page."""
    found = [
        sections.what_it_is(record), sections.data_check(record), sections.training(record),
        quality.quality(record), quality.confusion(record), trust.trust(record), fairness.fairness(record),
        quality.examples(record), explanation.explanations(record), sections.compute(record), compute.account(record),
        sections.reproduce(record), sections.limits(record),
    ]
    return [section for section in found if section]
