"""An adapter added into its base: one plain model, proved to answer as the two did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from treetune.core.errors import ModelError
from treetune.core.files import write_json
from treetune.core.seeds import generator
from treetune.models.adapters import attach_adapter, quiet_peft
from treetune.models.load import LoadedModel, load_model, locate, quiet_transformers

TOLERANCE = 1e-4
PROBE_ROWS, PROBE_TOKENS = 4, 48
RECORD = "merge.json"
SAID = ("logits", "start_logits", "end_logits")


@dataclass(frozen=True, slots=True)
class Merged:
    """A plain model made of a base and its adapter.

    Attributes:
        loaded: the merged model, float32. difference: largest difference of a logit on rows of random tokens, by the
            largest logit. tolerance: what it was held against.
    """

    loaded: LoadedModel
    difference: float
    tolerance: float

    def save(self, target: Path) -> None:
        """The model in Hugging Face layout, with the record of the comparison in ``merge.json``."""
        self.loaded.model.save_pretrained(target)
        self.loaded.tokenizer.model_max_length = self.loaded.window
        self.loaded.tokenizer.save_pretrained(target)
        write_json(target / RECORD, {"merged_from": self.loaded.name, "difference": self.difference,
                                     "tolerance": self.tolerance, "rows": PROBE_ROWS, "tokens": PROBE_TOKENS})


def merge_adapter(
    folder: str | Path, *, head: str = "causal", labels: Sequence[str] = (), load_in: str = "",
    revision: str | None = None, tolerance: float = TOLERANCE,
) -> Merged:
    """The adapter in ``folder`` merged into its base, which is found by the name kept beside the adapter.

    A base held in 4 bits is turned back into float32 first, so that the rounding the adapter was trained on stays in.
    One held in 8 bits rounds its states, too, which no merged model does: it fails the comparison.

    Raises:
        ModelError: E3008 no adapter there, E3019 the merged model answers otherwise; what `load_model` raises.
    """
    place, adapter = locate(str(folder), revision)
    if adapter is None:
        raise ModelError("E3008", "the adapter does not fit its base model", where=str(folder),
                         found="no adapter_config.json", do="name a run that was tuned with --lora-r")
    apart = load_model(str(folder), revision=revision, head=head, labels=labels, load_in=load_in)
    before = answers(apart.model, head)
    if load_in:
        base = load_model(place, head=head, labels=labels, load_in=load_in).model
        with quiet_transformers():
            base = base.dequantize(torch.float32)
        model = attach_adapter(base, adapter).eval()
    else:
        model = apart.model
    with quiet_peft():
        merged = model.merge_and_unload(safe_merge=True).eval()
    after = answers(merged, head)
    difference = float((after - before).abs().max() / before.abs().max())
    if not difference <= tolerance:  # not a number is no equality either
        raise ModelError("E3019", "the merged model answers otherwise than base and adapter", where=str(folder),
                         found=f"{difference:.1e}", allowed=f"{tolerance:.0e}",
                         do="keep base and adapter apart; a base in 8bit cannot be merged exactly")
    return Merged(LoadedModel(merged, apart.tokenizer, apart.window, str(folder), head, place), difference, tolerance)


@torch.no_grad()
def answers(model: Any, head: str) -> torch.Tensor:
    """All logits for a few rows of random tokens, always the same ones, as one vector."""
    size = min(int(model.config.vocab_size), model.get_input_embeddings().num_embeddings)
    ids = torch.from_numpy(generator(0, "merge").integers(0, size, (PROBE_ROWS, PROBE_TOKENS)))
    ids = ids.to(next(model.parameters()).device)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if head == "seq2seq":
        given["decoder_input_ids"] = ids.flip(0)
    found = model(**given)
    parts = [found[name] for name in SAID if name in found]
    return torch.cat([part.double().flatten() for part in parts])
