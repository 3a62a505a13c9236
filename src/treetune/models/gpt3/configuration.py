"""GPT-3's architecture as a configuration, with the eight sizes of the paper.

Source: Brown et al. 2020, "Language Models are Few-Shot Learners" (arXiv 2005.14165), section 2.1 and Table 2.1.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PretrainedConfig

PAPER_SIZES: dict[str, dict[str, int]] = {
    # name: layers, width, heads, head width, exactly as printed in Table 2.1. Two rows do not multiply out and are
    # kept as printed: XL has 24 heads of 128 (3072, not its width 2048); 13B has 40 of 128 (5120, not 5140).
    "125M": {"n_layer": 12, "n_embd": 768, "n_head": 12, "d_head": 64},
    "350M": {"n_layer": 24, "n_embd": 1024, "n_head": 16, "d_head": 64},
    "760M": {"n_layer": 24, "n_embd": 1536, "n_head": 16, "d_head": 96},
    "1.3B": {"n_layer": 24, "n_embd": 2048, "n_head": 24, "d_head": 128},
    "2.7B": {"n_layer": 32, "n_embd": 2560, "n_head": 32, "d_head": 80},
    "6.7B": {"n_layer": 32, "n_embd": 4096, "n_head": 32, "d_head": 128},
    "13B": {"n_layer": 40, "n_embd": 5140, "n_head": 40, "d_head": 128},
    "175B": {"n_layer": 96, "n_embd": 12288, "n_head": 96, "d_head": 128},
}
PAPER_ALIASES = {"Small": "125M", "Medium": "350M", "Large": "760M", "XL": "1.3B"}


@strict
class GPT3Config(PretrainedConfig):  # type: ignore[misc]
    """Settings of a GPT-3 decoder.

    Attributes:
        vocab_size: entries of the vocabulary. n_positions: context length in tokens (2048 in the paper).
        n_embd: width. n_layer: layers. n_head: heads. d_head: width of one head; None means n_embd / n_head.
        n_inner: width of the feed-forward part; None means 4 * n_embd.
        attention_pattern: ``alternating``: layers 0, 2, 4 … dense, layers 1, 3, 5 … locally banded (the paper's
            "alternating dense and locally banded sparse attention patterns"); ``dense``: all layers dense.
        attention_band: tokens a banded layer sees, itself included. The paper prints no number; 128 is ours.
    """

    model_type = "gpt3"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 50257
    n_positions: int = 2048
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    d_head: int | None = None
    n_inner: int | None = None
    attention_pattern: Literal["alternating", "dense"] = "alternating"
    attention_band: int = 128
    activation_function: str = "gelu_new"
    resid_pdrop: float | int = 0.0
    embd_pdrop: float | int = 0.0
    attn_pdrop: float | int = 0.0
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True

    @classmethod
    def paper(cls, size: str, **changes: Any) -> GPT3Config:
        """The configuration of one row of Table 2.1, e.g. ``GPT3Config.paper("175B")``.

        Args:
            size: 125M, 350M, 760M, 1.3B, 2.7B, 6.7B, 13B, 175B, or Small, Medium, Large, XL.
            changes: fields to set on top.

        Raises:
            ValueError: unknown size.
        """
        name = PAPER_ALIASES.get(size, size)
        if name not in PAPER_SIZES:
            raise ValueError(f"no GPT-3 size {size!r}; the paper has {', '.join(PAPER_SIZES)}")
        return cls(**{**PAPER_SIZES[name], **changes})

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.d_head if self.d_head is not None else self.n_embd // self.n_head

    @property
    def inner_width(self) -> int:
        """Width of the feed-forward part."""
        return self.n_inner if self.n_inner is not None else 4 * self.n_embd

    def band_of_layer(self, layer: int) -> int | None:
        """Band of layer ``layer`` (0-based) in tokens; None where it attends to everything before it."""
        return self.attention_band if self.attention_pattern == "alternating" and layer % 2 == 1 else None
