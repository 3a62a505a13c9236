"""The settings of a run: one schema for YAML files, command-line flags and Python calls.

Names follow transformers and peft. A field's description is its help text. Unknown keys are refused with the
nearest known one; values are not coerced from text of the wrong kind (``"no"`` is not a number).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from treetune.core.errors import UsageError

TASK_NAMES = ("translation", "summarization", "sentiment", "question_answering")
TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
MAX_CONFIG_BYTES = 1 << 20


class LoopSettings(BaseModel):
    """What the training loop needs, whatever the data."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads yes and no as truth values, which would pass for 1 and 0
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("a number or a text, not yes or no")
        return value

    output_dir: str = Field(description="run folder; the same command on the same folder resumes")
    seed: int = Field(0, ge=0, description="seed of order, dropout and initialisation")
    optim: Literal["adamw", "adam", "sgd", "muon"] = Field("adamw", description="optimizer")
    learning_rate: float = Field(5e-4, gt=0, description="peak learning rate")
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="decay after the warm-up, to 0 at the last step"
    )
    warmup_ratio: float = Field(0.05, ge=0, le=1, description="share of the steps spent warming up")
    weight_decay: float | None = Field(
        None, ge=0, description="weight decay of matrices; default 0.01 for adamw and muon, 0 for adam and sgd"
    )
    max_grad_norm: float = Field(1.0, ge=0, description="clip the gradient to this norm; 0 switches it off")
    num_train_epochs: float = Field(3.0, gt=0, description="passes over the rows")
    max_steps: int = Field(0, ge=0, description="stop after this many steps; 0: as the epochs say")
    per_device_train_batch_size: int = Field(32, ge=1, description="rows of one forward and backward pass")
    gradient_accumulation_steps: int = Field(1, ge=1, description="passes added up before a step")
    logging_steps: int = Field(10, ge=1, description="steps between log lines")
    eval_steps: int = Field(0, ge=0, description="steps between evaluations; 0: once an epoch")
    save_steps: int = Field(0, ge=0, description="steps between checkpoints; 0: at each evaluation")
    save_total_limit: int = Field(2, ge=1, description="valid checkpoints kept")
    early_stopping_patience: int = Field(
        0, ge=0, description="stop after this many evaluations without a better loss; 0: never"
    )
    on_bad_loss: Literal["stop", "skip", "rollback"] = Field(
        "stop", description="a loss or gradient that is no number: stop; skip the step; or rollback to the newest "
        "checkpoint and leave out the steps since"
    )
    bad_loss_factor: float = Field(
        0.0, ge=0, description="a loss this many times the usual one counts as bad, too; 0: never"
    )
    max_memory_gb: float = Field(
        0.0, ge=0, description="memory the process may use; passes halve once when it runs out; 0: no ceiling"
    )
    bf16: bool = Field(False, description="bfloat16 autocast, where the device has it")
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
    torch_threads: int = Field(0, ge=0, description="CPU threads; 0: as many as there are cores")
    report_to: str = Field("", description="also draw the run's numbers in tensorboard, mlflow, wandb or trackio; "
                           "several with commas (an extra each; on this machine unless you set them up otherwise)")

    @field_validator("report_to")
    @classmethod
    def _known_trackers(cls, value: str) -> str:
        unknown = [name for name in _names(value) if name not in TRACKERS]
        if unknown:
            raise ValueError(f"{', '.join(TRACKERS)}; several with commas")
        return value


class TuneSettings(LoopSettings):
    """Everything `treetune tune` takes."""

    task: Literal["translation", "summarization", "sentiment", "question_answering"] = Field(
        description="what the model learns to do (qa is short for question_answering)"
    )
    model: str = Field("gpt3", description="base model: gpt3, minilm, a folder, or a hub name")
    revision: str | None = Field(None, description="revision of a hub model")
    random_init: bool = Field(False, description="keep the model's shape but start from random weights")
    data: str = Field(description="training rows: a file, a folder, or hub:NAME")
    validation_data: str | None = Field(None, description="validation rows; else a share of --data")
    validation_share: float = Field(0.1, gt=0, lt=1, description="share split off when no validation data")
    columns: dict[str, str] = Field(
        default_factory=dict, description="name of a column in your file, e.g. text=review"
    )
    max_refused_share: float = Field(0.05, ge=0, le=1, description="stop when more rows than this are refused")
    max_length: int = Field(0, ge=0, description="tokens a row may have; 0: the model's window")
    max_new_tokens: int = Field(0, ge=0, description="tokens an answer may have; 0: the task's default")
    no_repeat_ngram_size: int = Field(
        0, ge=0, description="no run of this many tokens comes twice in a generated answer; 0: it may"
    )
    answers_from: Literal["auto", "source", "anything"] = Field(
        "auto", description="source: a decoder's answer to a question is a piece of the context, or that there is "
        "none; anything: whatever it writes; auto: source where the task's answers are checked to be such pieces"
    )
    prompt_language: Literal["auto", "en", "zh"] = Field(
        "auto", description="language of the task's own words in a prompt, such as Review:"
    )
    instruction: str = Field(
        "", description="text in front of every prompt of the run: what to do, how, examples; all rows share it, so "
        "decoders compute it once a pass"
    )
    lora_r: int = Field(0, ge=0, description="rank of LoRA adapters; 0: tune all weights")
    lora_alpha: int = Field(16, ge=1, description="scale of LoRA adapters")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout of LoRA adapters")
    use_dora: bool = Field(False, description="LoRA that learns the size of each weight's columns apart (DoRA)")
    use_rslora: bool = Field(False, description="LoRA scaled by the root of its rank, for high ranks (rsLoRA)")
    load_in: Literal["", "8bit", "4bit"] = Field(
        "", description="hold the frozen base under LoRA in 8bit or 4bit (extra: quantized)"
    )
    fsdp: Literal["", "full_shard"] = Field(
        "", description="where several processes train: full_shard keeps a part of weights, gradients and optimizer "
        "in each; by default each keeps all"
    )
    freeze_layers: int = Field(0, ge=0, description="hold the embeddings and this many first layers as they are")
    freeze_base: bool = Field(False, description="train the head alone (of a decoder: its last norm)")
    distill_from: str | None = Field(None, description="run or model whose probabilities are learnt beside the labels")
    distill_temperature: float = Field(2.0, gt=0, description="softens teacher and student; 1: as they are")
    distill_weight: float = Field(0.5, ge=0, le=1, description="share of the teacher in the loss; 0: labels alone")
    layout: Literal["tree", "packed", "padded"] = Field(
        "tree", description="tree: shared prefixes computed once; packed: padding-free rows; padded: plain"
    )
    row_order: Literal["auto", "grouped", "shuffled"] = Field(
        "auto", description="grouped: rows with the same source (passage, document) follow one another, so that trees "
        "share it; shuffled: all rows at random; auto: grouped where sources repeat"
    )
    max_tokens_per_pass: int = Field(
        1536, ge=64, description="unique tokens of one packed forward pass, beside those of the instruction"
    )
    max_time: str = Field("", description="time the run may take, e.g. 90m or 1h30m; then it saves and stops")
    max_energy: float = Field(0.0, ge=0, description="kilowatt-hours the run may take; 0: no limit")
    max_cost: float = Field(0.0, ge=0, description="money the run may cost, in the unit of the prices; 0: no limit")
    price_per_hour: float | None = Field(None, ge=0, description="price of an hour of one device")
    price_per_kwh: float | None = Field(None, ge=0, description="price of a kilowatt-hour")
    grid: str = Field("", description="electricity: a country's code (de, cn, us) or grams of CO2 a kilowatt-hour; "
                      "default: the world's mean")
    energy_meter: Literal["auto", "codecarbon"] = Field(
        "auto", description="auto: the machine's own counters (RAPL, NVML), else an estimate; codecarbon: its figure"
    )


class TextSource(BaseModel):
    """One source of pretraining text."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    path: str = Field(description="text file (one document or paragraph a line) or rows; .gz, .xz, .zst allowed")
    share: float = Field(gt=0, description="weight of this source in the training tokens")
    document: Literal["line", "file"] = Field("line", description="what one document is")
    template: str = Field("", description="for files of rows: how a row reads as text, e.g. '{question} {answer}'")
    each: str = Field("", description="rows whose template reads alike become one document; this is added for each row")
    cloze: int = Field(0, ge=0, description="questions made from each document and added to it (see data/cloze.py)")


class PretrainSettings(LoopSettings):
    """Everything `treetune pretrain` takes."""

    data: list[TextSource] = Field(description="where the text comes from, with shares")
    data_root: str = Field(".", description="folder that relative paths of the sources start from")
    held_out_tokens: int = Field(20_000, ge=1, description="tokens of each source kept out of training, at most 5 %")
    total_tokens: int = Field(ge=1, description="training tokens in all, before epochs")
    init_from: str | None = Field(
        None, description="model to go on from (gpt3, a folder, or a hub name): its shape and its tokenizer are kept"
    )
    tokenizer: str | None = Field(None, description="folder of a tokenizer to keep; else one is trained")
    vocab_size: int = Field(8192, ge=300, description="entries of the byte-level BPE")
    tokenizer_bytes: int = Field(40_000_000, ge=1000, description="bytes of text the BPE is trained on")
    n_positions: int = Field(512, ge=8, description="context length in tokens")
    n_embd: int = Field(192, ge=8, description="width")
    n_layer: int = Field(6, ge=1, description="layers")
    n_head: int = Field(3, ge=1, description="attention heads")
    attention_band: int = Field(128, ge=1, description="band of the locally banded layers, in tokens")


class EvidenceSettings(BaseModel):
    """Scores of a gate that cost more than the answer: each is one more candidate, off unless asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    agreement: int = Field(0, ge=0, le=100, description="try the agreement of this many drawn answers with the one "
                           "given, where answers are written; costs as many answers a row; 0: do not")
    agreement_temperature: float = Field(1.0, gt=0, description="temperature they are drawn at")
    agreement_seed: int = Field(0, ge=0, description="seed they are drawn by")
    distance: bool = Field(False, description="try how near a row is to the training rows in the model's states")
    background: str = Field("", description="rows of other kinds, to compare that distance with; [default: of labels "
                            "the training rows, else the packaged rows of every task]")
    entailment_model: str = Field("", description="folder of an encoder that says whether a source bears a sentence "
                                  "of its summary out; its number is tried, and noted beside every answer")
    quality_model: str = Field("", description="folder of an encoder with one output that judges source and answer; "
                               "its number is tried, and noted beside every answer")


Settings = TypeVar("Settings", bound=BaseModel)


def reported_to(settings: LoopSettings) -> list[str]:
    """Names of the trackers that were asked for, each once."""
    return list(dict.fromkeys(_names(settings.report_to)))


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def read_settings(kind: type[Settings], config: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """Settings from a YAML file (may be absent) with ``overrides`` on top (None means not given).

    Raises:
        UsageError: E2001 file, E2002 not YAML or not a mapping, E2003 unknown key, E2004 bad value, E2005 missing.
    """
    values = {str(key): value for key, value in read_yaml(config).items()} if config else {}
    values |= {key: value for key, value in overrides.items() if value is not None}
    if values.get("task") == "qa":
        values["task"] = "question_answering"
    where = str(config) if config else "the command line"
    for key in values:
        if key not in kind.model_fields:
            raise unknown_key(key, list(kind.model_fields), where)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise bad_value(error, where) from error


def unknown_key(key: str, known: list[str], where: str) -> UsageError:
    """The error for a key that is not in the schema, with the nearest one."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return UsageError(
        "E2003", "unknown setting {key!r}", where=where, found=key, key=key,
        allowed=near[0] if near else ", ".join(known),
        do="correct the name" if near else "see treetune tune --help",
    )


def bad_value(error: ValidationError, where: str) -> UsageError:
    """The error for the first value that does not fit its field."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return UsageError("E2005", "the setting {key!r} is missing", where=where, key=key,
                          do="give it as a flag or in the YAML file")
    return UsageError("E2004", "the setting {key!r} has a value that cannot be used", key=key,
                      where=f"{where}: {key}", found=repr(first.get("input")), allowed=first["msg"],
                      do="correct the value")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, aliases (the alias bomb) and reads 1e-4 as a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.YAMLError(f"the key {key!r} stands twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _add_float_resolver() -> None:
    import re

    # YAML 1.1 reads 1e-4 as text; users of learning rates mean a number.
    pattern = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
    _UniqueKeyLoader.add_implicit_resolver("tag:yaml.org,2002:float", pattern, list("-+0123456789."))


_add_float_resolver()


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, read safely (no tags, no aliases, no duplicate keys, at most 1 MiB)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError("E2001", "the config file cannot be read", where=str(path), found=str(error),
                         do="check the path") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise UsageError("E2002", "the config file is not usable YAML", where=str(path),
                         found=f"{len(data)} bytes", allowed=f"at most {MAX_CONFIG_BYTES} bytes")
    try:
        value = yaml.load(data.decode("utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UsageError("E2002", "the config file is not usable YAML", where=str(path),
                         found=" ".join(str(error).split()), do="correct the file") from error
    if not isinstance(value, dict):
        raise UsageError("E2002", "the config file is not usable YAML", where=str(path),
                         found=type(value).__name__, allowed="a mapping of settings to values")
    return value


def to_yaml(settings: BaseModel) -> str:
    """All values with defaults written out, keys in the order of the schema."""
    return yaml.safe_dump(settings.model_dump(), sort_keys=False, allow_unicode=True)
