"""The eight GPT-3 models of the paper as plans: Brown et al. 2020 (arXiv 2005.14165), Tables 2.1 and D.1.

Sizes are kept as printed, also where they do not multiply out: XL has 24 heads of 128 at width 2048, 13B has 40 of 128
at width 5140. The paper's operations are 6 x its printed parameters x 300 billion tokens.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from treetune.core.errors import UsageError
from treetune.plan.flops import PETAFLOPS_DAY, paper_flops

TOKENS = 300e9
WINDOW = 2048


@dataclass(frozen=True, slots=True)
class Preset:
    """One row. ``parameters``: as printed in Table D.1. ``flops``, ``pf_days``: as printed. ``batch``: tokens."""

    name: str
    parameters: float
    layers: int
    width: int
    heads: int
    head_width: int
    batch: float
    flops: float
    pf_days: float

    def config(self) -> dict[str, Any]:
        """As `GPT3Config` has it."""
        return {"model_type": "gpt3", "vocab_size": 50257, "n_positions": WINDOW, "n_embd": self.width,
                "n_layer": self.layers, "n_head": self.heads, "d_head": self.head_width}

    @property
    def counted_flops(self) -> float:
        """6 N D of the printed parameters."""
        return paper_flops(self.parameters, TOKENS)

    @property
    def counted_pf_days(self) -> float:
        return self.counted_flops / PETAFLOPS_DAY

    def as_dict(self) -> dict[str, Any]:
        """For records, printed beside counted."""
        return {**asdict(self), "tokens": TOKENS, "counted_flops": self.counted_flops,
                "counted_pf_days": self.counted_pf_days}


PRESETS = {
    preset.name: preset for preset in (
        Preset("gpt3-125m", 125e6, 12, 768, 12, 64, 0.5e6, 2.25e20, 2.60),
        Preset("gpt3-350m", 356e6, 24, 1024, 16, 64, 0.5e6, 6.41e20, 7.42),
        Preset("gpt3-760m", 760e6, 24, 1536, 16, 96, 0.5e6, 1.37e21, 15.8),
        Preset("gpt3-1.3b", 1.32e9, 24, 2048, 24, 128, 1e6, 2.38e21, 27.5),
        Preset("gpt3-2.7b", 2.65e9, 32, 2560, 32, 80, 1e6, 4.77e21, 55.2),
        Preset("gpt3-6.7b", 6.66e9, 32, 4096, 32, 128, 2e6, 1.20e22, 139.0),
        Preset("gpt3-13b", 12.85e9, 40, 5140, 40, 128, 2e6, 2.31e22, 268.0),
        Preset("gpt3-175b", 174.6e9, 96, 12288, 96, 128, 3.2e6, 3.14e23, 3640.0),
    )
}
ALIASES = {"gpt3-small": "gpt3-125m", "gpt3-medium": "gpt3-350m", "gpt3-large": "gpt3-760m", "gpt3-xl": "gpt3-1.3b"}


def preset_named(name: str) -> Preset:
    """A row by name.

    Raises:
        UsageError: E2054 there is none.
    """
    found = PRESETS.get(ALIASES.get(name.lower(), name.lower()))
    if found is None:
        raise UsageError("E2054", "there is no preset {name!r}", name=name, found=name,
                         allowed=", ".join(PRESETS), do="take one of these")
    return found
