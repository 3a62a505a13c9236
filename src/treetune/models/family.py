"""What a model's configuration says it is, and which answers it can give: the table of family and kind of output.

| family | label | span | text | its own language |
|---|---|---|---|---|
| decoder (GPT-3, Llama, Qwen3 …) | `causal` | | `causal` | `causal` |
| encoder (BERT, RoBERTa, ModernBERT …) | `classes` | `spans` | | `masked` |
| seq2seq (T5, BART, Marian …) | `seq2seq` | | `seq2seq` | |

A filled cell names a head: a module of this folder that offers what `Head` asks for. An empty cell is refused from
``config.json`` alone, before any weight is read. This file needs no torch.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from treetune.core.errors import ModelError, UsageError
from treetune.core.records import Example, OutputKind
from treetune.core.settings import TuneSettings
from treetune.models.adapters import ADAPTER_CONFIG, base_of
from treetune.models.embedded import resolve
from treetune.tasks.contract import Task, load_task, outputs_of, task_names

OFFSET_POSITIONS = (
    "camembert", "data2vec-text", "ibert", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl",
    "xmod",
)
DECODER, ENCODER, SEQ2SEQ = "decoder", "encoder", "seq2seq"
HEADS: Mapping[tuple[str, OutputKind], str] = {
    (DECODER, OutputKind.TEXT): "causal",
    (DECODER, OutputKind.LABEL): "causal",
    (ENCODER, OutputKind.LABEL): "classes",
    (ENCODER, OutputKind.SPAN): "spans",
    (SEQ2SEQ, OutputKind.TEXT): "seq2seq",
    (SEQ2SEQ, OutputKind.LABEL): "seq2seq",
}
LANGUAGE_HEADS = {DECODER: "causal", ENCODER: "masked"}
BARE_HEADS, BARE_MODELS = ("classes", "spans"), ("marian",)
"""What reads a row's bare text, without the words that a task puts around it."""
ENCODERS = (
    "albert", "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "deberta", "deberta-v2",
    "distilbert", "electra", "ernie", "eurobert", "ibert", "megatron-bert", "mobilebert", "modernbert", "mpnet",
    "nomic_bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "squeezebert", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
)
SEQ2SEQS = (
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "fsmt", "led", "longt5", "m2m_100", "marian",
    "mbart", "mt5", "mvp", "nllb-moe", "pegasus", "pegasus_x", "plbart", "prophetnet", "switch_transformers", "t5",
    "umt5",
)


class Head(Protocol):
    """A module of this folder: how one kind of model reads examples and what its loss is.

    Attributes:
        AUTO_CLASS: the class of transformers that loads it. PEFT_TASK: what peft calls it.
        BRANCHES: whether rows that share a beginning can be computed as a token tree.
        PACKS: whether rows can stand side by side in one pass without padding.
        MAX_LENGTH: tokens a row may have where nobody says otherwise; 0: the model's window.
    """

    AUTO_CLASS: str
    PEFT_TASK: str
    BRANCHES: bool
    PACKS: bool
    MAX_LENGTH: int

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Any]:
        """What training runs over: each with ``row``, ``num_cut`` and ``num_tokens``; reference answers needed."""
        ...

    def batches_of(self, rows: Sequence[Any], layout: str, rows_per_pass: int, max_tokens: int) -> Iterator[Any]:
        """The forward passes of one step: each with ``to``, ``num_tokens`` and ``num_row_tokens``."""
        ...

    def loss_sum(self, model: Any, batch: Any) -> Any:
        """Negative log-likelihood of what the rows should answer, as sum and count."""
        ...

    def settle(self, examples: Sequence[Example]) -> dict[str, Any]:
        """What predictions must know of the training rows, as entries of the model's configuration."""
        ...


def first_position(model_type: str, pad_token_id: int | None) -> int:
    """The position of a row's first token: RoBERTa and its kin count from behind the padding token."""
    return int(pad_token_id or 0) + 1 if model_type in OFFSET_POSITIONS else 0


def family_of(config: Mapping[str, Any]) -> str:
    """``decoder``, ``encoder`` or ``seq2seq``, by the entries of a ``config.json``."""
    kind = config.get("model_type")
    if config.get("is_encoder_decoder") or kind in SEQ2SEQS:
        return SEQ2SEQ
    return ENCODER if kind in ENCODERS and not config.get("is_decoder") else DECODER


def family_of_head(head: str) -> str:
    """The family that a head belongs to."""
    return next((family for (family, _), name in HEADS.items() if name == head), ENCODER)


def family_of_model(name: str, *, revision: str | None = None) -> str:
    """The family of a model by name, from its configuration alone."""
    return family_of(configuration(name, revision))


def head_for(name: str, task: Task, *, revision: str | None = None) -> str:
    """The head with which the model of that name does the task.

    Raises:
        ModelError: E3010 when its family gives no answer of the kind the task needs.
    """
    family = family_of_model(name, revision=revision)
    for kind in outputs_of(task):
        if (family, kind) in HEADS:
            return HEADS[family, kind]
    raise ModelError(
        "E3010", "a model of the {family} family cannot do {task}", family=family, task=task.NAME, where=name,
        found=f"{family} × {', '.join(outputs_of(task))}", allowed=working_pairs(),
        do="choose a model of another family, or another task",
    )


def refuse_unread(settings: TuneSettings, head: str) -> None:
    """An instruction for a model that would not read it.

    Raises:
        UsageError: E2078.
    """
    if not settings.instruction:
        return
    kind = str(configuration(settings.model, settings.revision).get("model_type", ""))
    if head in BARE_HEADS or (head == "seq2seq" and kind in BARE_MODELS):
        raise UsageError("E2078", "this model reads a row's bare text and would never see an instruction",
                         where="--instruction", found=f"{settings.model}: {kind}",
                         allowed="decoders; sequence-to-sequence models but Marian",
                         do="leave --instruction away, or choose a decoder")


def kind_of(head: str, task: Task) -> OutputKind:
    """The kind of answer that the head gives for the task."""
    family = family_of_head(head)
    return next(kind for kind in outputs_of(task) if HEADS.get((family, kind)) == head)


def working_pairs() -> str:
    """``decoder: sentiment, …; encoder: …``: every family with the tasks it can do."""
    kinds = {name: outputs_of(load_task(name)) for name in task_names()}
    return "; ".join(
        f"{family}: " + ", ".join(name for name, own in kinds.items() if any((family, kind) in HEADS for kind in own))
        for family in (DECODER, ENCODER, SEQ2SEQ)
    )


def language_head(name: str, *, revision: str | None = None) -> str:
    """The head that shows a model's own language: next words of a decoder, masked words of an encoder.

    Raises:
        ModelError: E3011 for a sequence-to-sequence model, which has no text of its own.
    """
    family = family_of_model(name, revision=revision)
    if family not in LANGUAGE_HEADS:
        raise ModelError("E3011", "a sequence-to-sequence model has no next word without a source", where=name,
                         found=family, allowed=", ".join(LANGUAGE_HEADS), do="choose a decoder or an encoder")
    return LANGUAGE_HEADS[family]


def load_head(head: str) -> Head:
    """The module of that name."""
    return cast(Head, importlib.import_module(f"treetune.models.{head}"))


def configuration(name: str, revision: str | None = None) -> dict[str, Any]:
    """What ``config.json`` of a model says (of its base, for an adapter); {} where it cannot be read.

    Loading says what is wrong then: this looks only, and looks only once.
    """
    folder = Path(str(resolve(name)))
    if _object(folder / ADAPTER_CONFIG):
        name = base_of(folder)
        folder = Path(str(resolve(name)))
    if folder.exists() or name.startswith((".", "/", "~")):
        return _object(folder / "config.json")
    from transformers import PretrainedConfig

    try:
        found, _ = PretrainedConfig.get_config_dict(name, revision=revision)
    except (OSError, ValueError):
        return {}
    return dict(found)


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
