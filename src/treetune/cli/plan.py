"""``treetune plan``: what a run will take, before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from treetune.cli.flags import with_flags
from treetune.cli.show import Watcher
from treetune.core.settings import TuneSettings, read_settings, read_yaml


def plan(
    config: str | None, overrides: dict[str, Any], *,
    preset: Annotated[str, typer.Option(help="a GPT-3 model of the paper: gpt3-125m to gpt3-175b")] = "",
    layers: Annotated[int, typer.Option(help="layers of a model given by hand")] = 0,
    width: Annotated[int, typer.Option(help="its width")] = 0,
    heads: Annotated[int, typer.Option(help="its attention heads")] = 0,
    vocabulary: Annotated[int, typer.Option(help="entries of its vocabulary")] = 0,
    rows: Annotated[int, typer.Option(help="training rows, where --data is not given")] = 0,
    length: Annotated[int, typer.Option(help="tokens of a row, where --data is not given")] = 0,
    answer_length: Annotated[int, typer.Option(help="tokens of an answer, where --data is not given")] = 0,
    tokens: Annotated[float, typer.Option(help="plan a pretraining on so many tokens, e.g. 3e11")] = 0.0,
    device: Annotated[str, typer.Option(help="here, or a device of the table: a100, h100, t4 …")] = "here",
    devices: Annotated[int, typer.Option(help="how many of them", min=1)] = 1,
    samples: Annotated[int, typer.Option(help="answers drawn a question, for the cost of answering", min=1)] = 1,
    runs: Annotated[str, typer.Option(help="folder of past runs to learn from")] = "",
    probe: Annotated[bool, typer.Option("--probe", help="run the first 20 steps and measure (loads torch)")] = False,
    learning_curve: Annotated[bool, typer.Option(
        "--learning-curve", help="tune on growing shares of the rows and extrapolate the score (loads torch)")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="print the plan as JSON")] = False,
) -> int:
    """Say what a run will take before anything is spent: parameters, FLOPs, memory, time, energy, CO2, money."""
    from treetune.cli.show_plan import show, show_curve
    from treetune.workflow.plan import ASSUMED, Question, plan

    written = read_yaml(Path(config)) if config else {}
    for name, value in ASSUMED.items():
        if name not in written and overrides.get(name) is None:
            overrides[name] = value
    settings = read_settings(TuneSettings, Path(config) if config else None, overrides)
    sizes = {"layers": layers, "width": width, "heads": heads, "vocabulary": vocabulary}
    question = Question(
        sizes if any(sizes.values()) else {}, preset, rows, length, answer_length, device, devices, tokens, runs,
        samples)
    if learning_curve:
        from treetune.workflow.curve import learning_curve as draw

        curve = draw(settings, Watcher(quiet=json_output))
        print(json.dumps(curve, ensure_ascii=False)) if json_output else show_curve(curve)
        return 0
    if probe:
        from treetune.workflow.first_steps import probe as measure

        found = measure(settings, question)
    else:
        found = plan(settings, question)
    print(json.dumps(found, ensure_ascii=False)) if json_output else show(found)
    return 0


run = with_flags(TuneSettings, plan)
