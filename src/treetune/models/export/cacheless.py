"""An engine outside torch in the clothes of a transformers model, so that rows are answered by the very same code.

Every token is computed from the whole row: right for comparing some rows, not for serving many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

Logits = Callable[[Sequence[Sequence[int]]], list[NDArray[np.float32]]]


class CachelessModel(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A causal language model whose logits come from elsewhere.

    Args:
        config: of the model that the engine was made from. logits: rows of ids -> (L, V) for each.
    """

    _supports_sdpa = True
    main_input_name = "input_ids"

    def __init__(self, config: Any, logits: Logits) -> None:
        super().__init__(config)
        self.anchor = nn.Parameter(torch.zeros(1), requires_grad=False)  # says where tensors belong
        self.logits_of = logits

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, logits_to_keep: Any = 0,
        **ignored: Any,
    ) -> CausalLMOutput:
        """(B, T) padded on either side, with a (B, T) mask -> logits (B, T or kept, V); zeros at padding."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        assert mask.shape == input_ids.shape
        real = mask.bool()
        found = self.logits_of([row[own].tolist() for row, own in zip(input_ids, real, strict=True)])
        result = torch.zeros(*input_ids.shape, found[0].shape[-1])
        for place, values in enumerate(found):
            result[place, real[place]] = torch.from_numpy(values)
        if isinstance(logits_to_keep, torch.Tensor):
            result = result.index_select(1, logits_to_keep)
        elif logits_to_keep:
            result = result[:, -logits_to_keep:]
        return CausalLMOutput(logits=result)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **ignored: Any
    ) -> dict[str, Any]:
        """The whole row every time."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}
