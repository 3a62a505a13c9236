"""The eight GPT-3 models: the paper's operations from its own figures, and its oddities kept."""

import pytest

from treetune.core.errors import UsageError
from treetune.plan.architecture import read
from treetune.plan.flops import PETAFLOPS_DAY, training_flops
from treetune.plan.presets import ALIASES, PRESETS, TOKENS, WINDOW, Preset, preset_named
from treetune.plan.workload import of_tokens

PAPER = {  # Tables 2.1 and D.1 of arXiv 2005.14165: operations, PF-days
    "gpt3-125m": (2.25e20, 2.60), "gpt3-350m": (6.41e20, 7.42), "gpt3-760m": (1.37e21, 15.8),
    "gpt3-1.3b": (2.38e21, 27.5), "gpt3-2.7b": (4.77e21, 55.2), "gpt3-6.7b": (1.20e22, 139), "gpt3-13b": (2.31e22, 268),
    "gpt3-175b": (3.14e23, 3640),
}


@pytest.mark.parametrize("name", PRESETS)
def test_operations_and_pf_days_are_the_papers_within_half_a_per_cent(name: str) -> None:
    preset, (flops, days) = PRESETS[name], PAPER[name]
    assert preset.counted_flops == pytest.approx(flops, rel=0.005)
    assert preset.counted_pf_days == pytest.approx(days, rel=0.005)
    assert (preset.flops, preset.pf_days) == (flops, days)


def test_there_are_eight_and_the_largest_is_the_one_everybody_quotes() -> None:
    assert len(PRESETS) == len(PAPER) == 8
    assert f"{PRESETS['gpt3-175b'].counted_flops:.2e}" == "3.14e+23"
    assert round(PRESETS["gpt3-175b"].counted_pf_days, -1) == 3640


def test_sizes_are_those_of_the_configuration_class() -> None:
    from treetune.models.gpt3.configuration import PAPER_ALIASES, PAPER_SIZES, GPT3Config

    assert [name.removeprefix("gpt3-").upper() for name in PRESETS] == [name.upper() for name in PAPER_SIZES]
    for preset, name in zip(PRESETS.values(), PAPER_SIZES, strict=True):
        config = GPT3Config.paper(name).to_dict()
        assert {key: config[key] for key in preset.config()} == preset.config()
    assert {alias.removeprefix("gpt3-"): name.removeprefix("gpt3-") for alias, name in ALIASES.items()} == {
        alias.lower(): name.lower() for alias, name in PAPER_ALIASES.items()}


def test_the_papers_oddities_are_kept_and_said() -> None:
    odd = {name for name, preset in PRESETS.items() if read(preset.config()).odd}
    assert odd == {"gpt3-1.3b", "gpt3-13b"}
    assert read(PRESETS["gpt3-1.3b"].config()).odd == "24 x 128 = 3072 != 2048"
    assert read(PRESETS["gpt3-13b"].config()).odd == "40 x 128 = 5120 != 5140"


@pytest.mark.parametrize("preset", [p for p in PRESETS.values() if p.name not in ("gpt3-1.3b",)], ids=lambda p: p.name)
def test_counted_parameters_are_near_the_printed_ones(preset: Preset) -> None:
    assert read(preset.config()).parameters == pytest.approx(preset.parameters, rel=0.01)


def test_attention_scores_add_what_the_paper_left_out() -> None:
    added = {}
    for name in ("gpt3-125m", "gpt3-175b"):
        model = read({**PRESETS[name].config(), "attention_pattern": "dense"})
        flops = training_flops(model, of_tokens(int(TOKENS), WINDOW, int(PRESETS[name].batch)))
        added[name] = flops.with_attention / flops.paper - 1
        assert flops.pf_days == flops.paper / PETAFLOPS_DAY
    assert added["gpt3-125m"] == pytest.approx(0.30, abs=0.01)
    assert added["gpt3-175b"] == pytest.approx(0.028, abs=0.001)


def test_names_and_a_name_that_is_none() -> None:
    assert preset_named("GPT3-XL") is PRESETS["gpt3-1.3b"]
    with pytest.raises(UsageError, match="E2054"):
        preset_named("gpt4")
