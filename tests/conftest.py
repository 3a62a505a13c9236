"""Tiny random models: ours, with the shortest of tunings, and other families in folders as the hub lays them out."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

TEXTS = ["The film was good and the film was long.", "What is the capital of France? Paris is the capital of France.",
         "positive negative neutral", "Ein guter Film, der lang war."] * 20
WINDOW = 64
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertForMaskedLM", {"intermediate_size": 48, "num_hidden_layers": 2, "hidden_size": 32,
                                               "num_attention_heads": 4, "max_position_embeddings": WINDOW}),
    "roberta": ("RobertaConfig", "RobertaForMaskedLM", {
        "intermediate_size": 48, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
        "max_position_embeddings": WINDOW + 1, "type_vocab_size": 1}),
    "modernbert": ("ModernBertConfig", "ModernBertForMaskedLM", {
        "intermediate_size": 48, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
        "max_position_embeddings": WINDOW, "local_attention": 8}),
    "t5": ("T5Config", "T5ForConditionalGeneration", {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2,
                                                      "num_heads": 4, "decoder_start_token_id": 0}),
    "bart": ("BartConfig", "BartForConditionalGeneration", {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": WINDOW,
        "decoder_start_token_id": 3, "forced_eos_token_id": None}),
    "marian": ("MarianConfig", "MarianMTModel", {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": WINDOW,
        "decoder_start_token_id": 0, "forced_eos_token_id": None}),
}
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]  # ids 0 to 4


def tiny_tokenizer(kind: str) -> Any:
    """Byte-level BPE with the special tokens each kind puts around its texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=360, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    if kind in ("t5", "marian"):
        one, two = "$A </s>", "$A </s> $B </s>"
    else:
        one, two = "<s> $A </s>", "<s> $A </s> $B:1 </s>:1" if kind == "bert" else "<s> $A </s> $B </s>"
    core.post_processor = processors.TemplateProcessing(
        single=one, pair=two, special_tokens=[("<s>", 2), ("</s>", 3)])
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if kind == "bert" else [])]
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        cls_token="<s>", sep_token="</s>", mask_token="<mask>", model_input_names=names, model_max_length=WINDOW)


def tiny_config(kind: str, vocab_size: int = 360, window: int = WINDOW) -> Any:
    """Two layers of width 32; weights large enough to matter."""
    import transformers

    name, _, shape = SHAPES[kind]
    if "max_position_embeddings" in shape:
        shape = {**shape, "max_position_embeddings": shape["max_position_embeddings"] - WINDOW + window}
    spread = {"initializer_factor": 3.0} if kind == "t5" else {"init_std": 0.3} if kind in ("bart", "marian") else {
        "initializer_range": 0.3}
    return getattr(transformers, name)(vocab_size=vocab_size, pad_token_id=0, bos_token_id=2, eos_token_id=3,
                                       **shape, **spread)


@pytest.fixture(scope="session")
def family_tokenizer() -> Callable[[str], Any]:
    """(bert, roberta, modernbert, t5, bart or marian) -> its tokenizer."""
    return tiny_tokenizer


@pytest.fixture(scope="session")
def family_config() -> Callable[..., Any]:
    """(kind) -> its tiny configuration."""
    return tiny_config


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(kind, window) -> a folder with a random model of that kind and its tokenizer, made once."""
    made: dict[tuple[str, int], Path] = {}

    def get(kind: str, window: int = WINDOW) -> Path:
        key = (kind, window)
        if key not in made:
            import torch
            import transformers

            torch.manual_seed(0)
            tokenizer = tiny_tokenizer(kind)
            model = getattr(transformers, SHAPES[kind][1])(tiny_config(kind, len(tokenizer), window))
            made[key] = tmp_path_factory.mktemp("families") / kind
            model.save_pretrained(made[key])
            tokenizer.save_pretrained(made[key])
        return made[key]

    return get


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So that tests do not fight for the cores, and sums come out the same."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread_in_english(one_thread: None) -> Iterator[None]:
    """Messages in English whatever the machine speaks, too."""
    from treetune.core.language import choose_language

    choose_language("en")
    yield
    choose_language("")


@pytest.fixture(scope="session")
def tiny_gpt3(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(tasks) -> a two-layer GPT-3 of random weights, with a tokenizer of some 400 entries learnt on their rows."""

    def make(*tasks: str) -> Path:
        import torch

        from treetune.data.sample import sample_path
        from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, train_tokenizer

        texts = [line for task in tasks for line in sample_path(task, "train").read_text("utf-8").splitlines()[:20]]
        tokenizer = train_tokenizer(texts, 400, 512)
        torch.manual_seed(0)
        config = GPT3Config(
            vocab_size=len(tokenizer), n_positions=512, n_embd=32, n_layer=2, n_head=2, attention_band=64,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        folder = tmp_path_factory.mktemp("models") / "tiny"
        GPT3LMHeadModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def short_runs(tiny_gpt3: Callable[..., Path]) -> Callable[..., dict[str, Path]]:
    """(folder, tasks) -> a run of two steps for each task, over one tiny model."""

    def make(root: Path, *tasks: str) -> dict[str, Path]:
        from treetune.cli.app import run
        from treetune.data.sample import sample_path

        model = tiny_gpt3(*tasks)
        for task in tasks:
            words = ["tune", "--task", task, "--model", model, "--data", sample_path(task, "train"),
                     "--validation-data", sample_path(task, "validation"), "--output-dir", root / task, "--max-steps",
                     2, "--per-device-train-batch-size", 4, "--max-new-tokens", 8, "--torch-threads", 1]
            assert run([str(word) for word in words], False, False) == 0
        return {task: root / task for task in tasks}

    return make


@pytest.fixture
def stand_in_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub on 127.0.0.1 that this process's client writes to, with a token it knows; nothing waits between tries."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    spec = importlib.util.spec_from_file_location("stand_in_hub", Path(__file__).with_name("stand_in_hub.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "stand_in_hub", module)  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    monkeypatch.setenv("HF_TOKEN", module.TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(_http, "time", SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None}))
    with module.running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        _http.close_session()
        yield hub
        _http.close_session()
