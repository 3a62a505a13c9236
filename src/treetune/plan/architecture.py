"""The weights of a model, counted from its ``config.json`` alone: every matrix with its sizes, every vector.

The counts are exact (a test holds them against the real classes on the meta device), so that memory, FLOPs and adapters
can be worked out for models nobody has on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from treetune.core.errors import UsageError

Config = Mapping[str, Any]
LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")
BERT_LIKE = ("bert", "roberta", "xlm-roberta", "camembert")
BART_LIKE = ("bart", "mbart", "marian")
GELU_BY_FORMULA = ("gelu_new", "gelu_fast")
T5_LIKE = ("t5", "mt5", "umt5")


@dataclass(frozen=True, slots=True)
class Matrix:
    """``count`` linear layers of one shape. ``adapted``: whether LoRA on all linear layers takes them."""

    part: str
    inputs: int
    outputs: int
    bias: bool
    count: int = 1
    adapted: bool = True

    @property
    def size(self) -> int:
        """Weights of all of them."""
        return self.count * (self.inputs * self.outputs + (self.outputs if self.bias else 0))


@dataclass(frozen=True, slots=True)
class Stack:
    """Equal layers, one after the other.

    Attributes:
        layers, width, inner: as usual. attention: heads x head width. keys: key heads x head width.
        heads: query heads. inner_values: values the feed-forward part keeps for its backward pass, in inner widths.
        norms: norms of a layer. norm_values: values one keeps, in widths (LayerNorm 2, RMSNorm 3).
        formula_values: those it keeps beyond that where its GELU is a formula of many small steps.
        norm_again, inner_again: of ``norm_values`` and ``inner_values`` those that are made again instead of kept
            (`treetune.models.recomputed`).
        crossed: whether each layer also looks at another stack. query_norm: whether queries and keys are normed.
        explicit: whether attention scores stand in memory (a bias or dropout on them; no fused kernel).
        dropout: whether the layer drops values. window: tokens that ``windowed`` of the layers see; None: all.
    """

    layers: int
    width: int
    inner: int
    attention: int
    keys: int
    heads: int
    inner_values: int
    norms: int
    norm_values: int
    formula_values: int = 0
    norm_again: int = 0
    inner_again: int = 0
    crossed: bool = False
    query_norm: bool = False
    explicit: bool = False
    dropout: bool = False
    window: int | None = None
    windowed: int = 0


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model's parts.

    Attributes:
        kind: ``model_type``. family: decoder, encoder or seq2seq. vocabulary, width, positions: as usual.
        stacks: of layers; an encoder-decoder has two. matrices: linear layers. vectors: part -> weights of norms.
        tables: name -> weights of lookup tables. saved_whole: matrices that LoRA trains whole, as a copy.
        tied: whether the output matrix is the embedding.
    """

    kind: str
    family: str
    vocabulary: int
    width: int
    positions: int
    stacks: tuple[Stack, ...]
    matrices: tuple[Matrix, ...]
    vectors: Mapping[str, int]
    tables: Mapping[str, int]
    tied: bool
    output: Matrix | None = None
    saved_whole: tuple[Matrix, ...] = ()
    odd: str = ""

    @property
    def by_part(self) -> dict[str, int]:
        """Weights by part; their sum is what the model has."""
        found: dict[str, int] = dict(self.tables)
        for matrix in self.matrices:
            found[matrix.part] = found.get(matrix.part, 0) + matrix.size
        for part, size in self.vectors.items():
            found[part] = found.get(part, 0) + size
        if self.output is not None:
            found["output"] = (0 if self.tied else self.output.inputs * self.output.outputs) + (
                self.output.outputs if self.output.bias else 0)
        return {part: size for part, size in found.items() if size}

    @property
    def parameters(self) -> int:
        """All weights, a tied matrix counted once."""
        return sum(self.by_part.values())

    @property
    def matrix_weights(self) -> int:
        """Weights a token is multiplied with in the layers (not the output matrix): inputs x outputs."""
        return sum(matrix.count * matrix.inputs * matrix.outputs for matrix in self.matrices)

    @property
    def layers(self) -> int:
        return sum(stack.layers for stack in self.stacks)

    def trained_parameters(self, *, lora_r: int = 0, frozen: int = 0, head_only: bool = False) -> int:
        """Weights that training changes.

        Args:
            lora_r: rank of adapters; 0: none. frozen: first layers held as they are, with the embeddings.
            head_only: everything but the head is held; of a decoder, everything but its last norm.
        """
        if lora_r:
            return self.lora_parameters(lora_r)
        if head_only:
            head = sum(matrix.size for matrix in self.matrices if matrix.part == "head")
            return head or sum(self.vectors.values()) // (2 * self.layers + 1)
        if not frozen:
            return self.parameters
        share = 1 - min(1.0, frozen / self.layers)
        layers = sum(matrix.size for matrix in self.matrices if matrix.part != "head") + sum(self.vectors.values())
        rest = self.parameters - layers - sum(self.tables.values())
        return round(layers * share) + rest

    def lora_parameters(self, rank: int) -> int:
        """Weights of LoRA adapters of that rank on all linear layers but the output, and of heads trained whole.

        Source: Hu et al. 2022 (arXiv 2106.09685): a matrix of I x O gets I x r and r x O.
        """
        adapters = sum(m.count * rank * (m.inputs + m.outputs) for m in self.matrices if m.adapted)
        return adapters + sum(matrix.size for matrix in self.saved_whole)


def read(config: Config, head: str = "", labels: int = 2) -> Architecture:
    """The architecture a configuration describes.

    Args:
        head: what the model is to do, as `treetune.models.family` names it; ``""``: the family's own language.
        labels: classes, for the head ``classes``.

    Raises:
        UsageError: E2050 a kind that cannot be counted, E2051 a configuration that lacks an entry.
    """
    kind = str(config.get("model_type", ""))
    reader = READERS.get(kind)
    if reader is None:
        raise UsageError("E2050", "the weights of a model of the kind {kind!r} cannot be counted from its "
                         "configuration", kind=kind, found=kind, allowed=", ".join(sorted(READERS)),
                         do="give the nearest architecture by --layers, --width, --heads and --vocabulary")
    try:
        return reader(config, head, labels)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise UsageError("E2051", "the configuration lacks what the plan needs", where=kind, found=repr(error),
                         do="fetch the model's config.json again") from error


def _given(config: Config, *names: str, default: Any = None) -> Any:
    """The first entry there is (None counts as absent)."""
    for name in names:
        if config.get(name) is not None:
            return config[name]
    if default is None:
        raise KeyError(names[0])
    return default


def _gpt(config: Config, head: str, labels: int) -> Architecture:
    """GPT-2 and GPT-3: LayerNorm before, learnt positions, one joint projection, biases everywhere."""
    width, layers = int(_given(config, "n_embd", default=768)), int(_given(config, "n_layer", default=12))
    heads = int(_given(config, "n_head", default=12))
    inner = int(_given(config, "n_inner", default=4 * width))
    vocabulary = int(_given(config, "vocab_size", default=50257))
    three = config.get("model_type") == "gpt3"
    positions = int(_given(config, "n_positions", default=2048 if three else 1024))
    head_width = int(_given(config, "d_head", default=width // heads)) if three else width // heads
    attention = heads * head_width
    rates = [float(config.get(name, 0.0 if three else 0.1)) for name in ("resid_pdrop", "attn_pdrop")]
    banded = layers // 2 if three and config.get("attention_pattern", "alternating") == "alternating" else 0
    by_formula = not three and str(config.get("activation_function", "gelu_new")) in GELU_BY_FORMULA
    stack = Stack(layers, width, inner, attention, attention, heads, 2, 2, 2, 3 * by_formula, 1, 1,
                  dropout=rates[0] > 0, explicit=rates[1] > 0, windowed=banded,
                  window=int(config.get("attention_band", 128)) if banded else None)
    odd = "" if attention == width else f"{heads} x {head_width} = {attention} != {width}"
    return Architecture(
        str(config["model_type"]), "decoder", vocabulary, width, positions, (stack,),
        (Matrix("attention", width, 3 * attention, True, layers), Matrix("attention", attention, width, True, layers),
         Matrix("feed-forward", width, inner, True, layers), Matrix("feed-forward", inner, width, True, layers)),
        {"norms": (2 * layers + 1) * 2 * width},
        {"embedding": vocabulary * width, "positions": positions * width},
        bool(config.get("tie_word_embeddings", True)), Matrix("output", width, vocabulary, False), odd=odd,
    )


def _neox(config: Config, head: str, labels: int) -> Architecture:
    """GPT-NeoX (Pythia): as GPT-2 with rotary positions and an output matrix of its own."""
    width, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    inner, heads = int(config["intermediate_size"]), int(config["num_attention_heads"])
    vocabulary, bias = int(config["vocab_size"]), bool(config.get("attention_bias", True))
    stack = Stack(layers, width, inner, width, width, heads, 2, 2, 2, norm_again=1, inner_again=1,
                  explicit=float(config.get("attention_dropout") or 0) > 0,
                  dropout=float(config.get("hidden_dropout") or 0) > 0)
    return Architecture(
        "gpt_neox", "decoder", vocabulary, width, int(config.get("max_position_embeddings", 2048)), (stack,),
        (Matrix("attention", width, 3 * width, bias, layers), Matrix("attention", width, width, bias, layers),
         Matrix("feed-forward", width, inner, True, layers), Matrix("feed-forward", inner, width, True, layers)),
        {"norms": (2 * layers + 1) * 2 * width}, {"embedding": vocabulary * width},
        bool(config.get("tie_word_embeddings", False)), Matrix("output", width, vocabulary, False),
    )


def _llama(config: Config, head: str, labels: int) -> Architecture:
    """Llama, Mistral, Qwen2, Qwen3: RMSNorm, rotary positions, shared key heads, a gated feed-forward part."""
    kind = str(config["model_type"])
    width, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    inner, heads = int(config["intermediate_size"]), int(config["num_attention_heads"])
    key_heads = int(_given(config, "num_key_value_heads", default=heads))
    head_width = int(_given(config, "head_dim", default=128 if kind == "qwen3" else width // heads))
    attention, keys, vocabulary = heads * head_width, key_heads * head_width, int(config["vocab_size"])
    asked = bool(config.get("attention_bias", False)) if kind != "qwen2" else True
    closing = asked and kind in ("llama", "qwen3")
    thick = bool(config.get("mlp_bias", False))
    window = config.get("sliding_window") if config.get("use_sliding_window", kind == "mistral") else None
    types = config.get("layer_types") or ()
    windowed = sum("sliding" in str(each) for each in types) if types else layers if window else 0
    stack = Stack(layers, width, inner, attention, keys, heads, 4, 2, 3, norm_again=2, inner_again=2,
                  query_norm=kind == "qwen3",
                  explicit=float(config.get("attention_dropout") or 0) > 0,
                  window=int(window) if window and windowed else None, windowed=windowed if window else 0)
    return Architecture(
        kind, "decoder", vocabulary, width, int(config.get("max_position_embeddings", 2048)), (stack,),
        (Matrix("attention", width, attention, asked, layers), Matrix("attention", width, keys, asked, 2 * layers),
         Matrix("attention", attention, width, closing, layers),
         Matrix("feed-forward", width, inner, thick, 2 * layers), Matrix("feed-forward", inner, width, thick, layers)),
        {"norms": (2 * layers + 1) * width + (2 * layers * head_width if kind == "qwen3" else 0)},
        {"embedding": vocabulary * width},
        bool(config.get("tie_word_embeddings", False)), Matrix("output", width, vocabulary, False),
    )


def _bert(config: Config, head: str, labels: int) -> Architecture:
    """BERT and RoBERTa: LayerNorm after, three lookup tables, a head that depends on what it is to do."""
    kind = str(config["model_type"])
    width, layers = int(_given(config, "hidden_size", default=768)), int(_given(config, "num_hidden_layers",
                                                                                default=12))
    inner = int(_given(config, "intermediate_size", default=3072))
    heads, vocabulary = int(_given(config, "num_attention_heads", default=12)), int(config["vocab_size"])
    positions = int(_given(config, "max_position_embeddings", default=512))
    stack = Stack(layers, width, inner, width, width, heads, 2, 2, 2,
                  explicit=float(config.get("attention_probs_dropout_prob", 0.1)) > 0,
                  dropout=float(config.get("hidden_dropout_prob", 0.1)) > 0)
    body = [Matrix("attention", width, width, True, 4 * layers), Matrix("feed-forward", width, inner, True, layers),
            Matrix("feed-forward", inner, width, True, layers)]
    norms, output, saved = (2 * layers + 1) * 2 * width, None, []
    if head == "classes":
        last = Matrix("head", width, labels, True, adapted=False)
        inside = Matrix("head", width, width, True, adapted=kind == "bert")
        body += [inside, last]
        saved = [last] if kind == "bert" else [inside, last]
    elif head == "spans":
        body.append(Matrix("head", width, 2, True, adapted=False))
        saved = [body[-1]]
    else:
        body.append(Matrix("head", width, width, True))
        norms += 2 * width
        output = Matrix("output", width, vocabulary, True)
    return Architecture(
        kind, "encoder", vocabulary, width, positions, (stack,), tuple(body), {"norms": norms},
        {"embedding": vocabulary * width, "positions": positions * width,
         "segments": int(_given(config, "type_vocab_size", default=2)) * width},
        bool(config.get("tie_word_embeddings", True)), output, tuple(saved),
    )


def _t5(config: Config, head: str, labels: int) -> Architecture:
    """T5 and mT5: two stacks without biases, a bias on attention by distance, scores that stand in memory."""
    kind = str(config["model_type"])
    width, inner = int(config["d_model"]), int(config["d_ff"])
    heads = int(config["num_heads"])
    attention = heads * int(config["d_kv"])
    encoding = int(config["num_layers"])
    decoding = int(_given(config, "num_decoder_layers", default=encoding))
    vocabulary = int(config["vocab_size"])
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    dropout = float(config.get("dropout_rate", 0.1)) > 0
    kept = (4 if gated else 1) + (2 if dropout else 0)  # ReLU keeps its output only; values are dropped inside, too
    stacks = tuple(
        Stack(count, width, inner, attention, attention, heads, kept, norms, 3, crossed=crossed, explicit=True,
              dropout=dropout)
        for count, norms, crossed in ((encoding, 2, False), (decoding, 3, True))
    )
    layers = encoding + decoding
    looks = encoding + 2 * decoding
    buckets = int(config.get("relative_attention_num_buckets", 32)) * heads
    return Architecture(
        kind, "seq2seq", vocabulary, width, 512, stacks,
        (Matrix("attention", width, attention, False, 3 * looks), Matrix("attention", attention, width, False, looks),
         Matrix("feed-forward", width, inner, False, layers * (2 if gated else 1)),
         Matrix("feed-forward", inner, width, False, layers)),
        {"norms": (2 * encoding + 3 * decoding + 2) * width},
        {"embedding": vocabulary * width, "positions": buckets * (layers if kind == "umt5" else 2)},
        bool(config.get("tie_word_embeddings", kind == "t5")), Matrix("output", width, vocabulary, False),
    )


def _bart(config: Config, head: str, labels: int) -> Architecture:
    """BART, mBART, Marian: two stacks with biases and learnt or fixed positions."""
    kind = str(config["model_type"])
    width, vocabulary = int(config["d_model"]), int(config["vocab_size"])
    encoding, decoding = int(config["encoder_layers"]), int(config["decoder_layers"])
    positions = int(config.get("max_position_embeddings", 1024))
    dropout = float(config.get("dropout", 0.1)) > 0
    weighed = float(config.get("attention_dropout", 0.0)) > 0
    stacks, body = [], []
    for count, side, norms in ((encoding, "encoder", 2), (decoding, "decoder", 3)):
        inner, heads = int(config[f"{side}_ffn_dim"]), int(config[f"{side}_attention_heads"])
        stacks.append(Stack(count, width, inner, width, width, heads, 2, norms, 2, crossed=side == "decoder",
                            explicit=weighed, dropout=dropout))
        body += [Matrix("attention", width, width, True, 4 * count * (norms - 1)),
                 Matrix("feed-forward", width, inner, True, count), Matrix("feed-forward", inner, width, True, count)]
    outside = {"bart": 2, "mbart": 4, "marian": 0}[kind]
    extra = 0 if kind == "marian" else 2
    return Architecture(
        kind, "seq2seq", vocabulary, width, positions, tuple(stacks), tuple(body),
        {"norms": (2 * encoding + 3 * decoding + outside) * 2 * width},
        {"embedding": vocabulary * width, "positions": 2 * (positions + extra) * width},
        bool(config.get("tie_word_embeddings", True)), Matrix("output", width, vocabulary, False),
    )


READERS: dict[str, Callable[[Config, str, int], Architecture]] = {
    "gpt2": _gpt, "gpt3": _gpt, "gpt_neox": _neox, **dict.fromkeys(LLAMA_LIKE, _llama),
    **dict.fromkeys(BERT_LIKE, _bert), **dict.fromkeys(T5_LIKE, _t5), **dict.fromkeys(BART_LIKE, _bart),
}
