"""GPT-3 as a model of transformers: configuration, model, tokenizer, registered with the Auto classes."""

from treetune.models.gpt3.configuration import PAPER_SIZES, GPT3Config
from treetune.models.gpt3.modeling import GPT3LMHeadModel, GPT3Model
from treetune.models.gpt3.tokenization import GPT3Tokenizer, GPT3TokenizerFast, train_tokenizer

__all__ = [
    "PAPER_SIZES", "GPT3Config", "GPT3LMHeadModel", "GPT3Model", "GPT3Tokenizer", "GPT3TokenizerFast",
    "train_tokenizer",
]
