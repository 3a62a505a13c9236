"""GPT-3 in PyTorch: a pre-norm decoder with learned positions and alternating dense and banded attention.

Source: Brown et al. 2020 (arXiv 2005.14165) section 2.1; what it takes over from GPT-2: Radford et al. 2019,
section 2.3 (pre-norm, final norm, residual projections initialised smaller by 1/sqrt(2 * layers)).
Names of the weights follow GPT-2's checkpoints, so that these load (`from_gpt2`).

Letters in comments: B rows, T query tokens, S key tokens, D width, H heads, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, GPT2LMHeadModel, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from treetune.models.cache_name import CACHE
from treetune.models.embedded import resolve
from treetune.models.gpt3.configuration import GPT3Config
from treetune.models.last_layer import labelled_attention
from treetune.models.sdpa import attention
from treetune.models.tree_attention import Layout, TreeLayout, attend


def allowed_pairs(
    position_ids: torch.Tensor, attention_mask: torch.Tensor | None, num_keys: int, band: int | None
) -> torch.Tensor | None:
    """Which query may see which key.

    Args:
        position_ids: (B, T) positions of the queries.
        attention_mask: None, (B, S) with 0 at padding, or (B, 1, T, S): bool, or additive with 0 where allowed.
            A four-dimensional mask is trusted to be causal; with it, keys are the queries themselves.
        num_keys: S, cached tokens included. band: tokens a query sees, itself included; None for all.

    Returns:
        (B or 1, 1, T, S) bool, or None where plain causal attention says the same.

    The band is measured in positions along the branch, so a tree of rows and the separate rows agree.
    """
    num_queries = position_ids.shape[1]
    if attention_mask is not None and attention_mask.dim() == 4:
        allowed = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
        if band is None:
            return allowed
        distance = position_ids[:, :, None] - position_ids[:, None, :]
        return allowed & (distance < band)[:, None]
    whole = num_queries == num_keys and (band is None or band >= num_keys)
    padded = attention_mask is not None and not bool(attention_mask.all())
    if whole and not padded:
        return None
    query = torch.arange(num_keys - num_queries, num_keys, device=position_ids.device)[:, None]
    key = torch.arange(num_keys, device=position_ids.device)[None, :]
    allowed = key <= query
    if band is not None:
        allowed = allowed & (query - key < band)
    allowed = allowed[None, None]
    if padded:
        assert attention_mask is not None
        # a padding query sees itself, so that no row of the softmax is empty
        allowed = (allowed & attention_mask[:, None, None, :].bool()) | (key == query)
    return allowed


def residual_projection(width: int, n_embd: int) -> nn.Linear:
    """A projection into the residual stream, marked so that initialisation makes it smaller."""
    projection = nn.Linear(width, n_embd)
    projection.into_residual = True  # type: ignore[assignment]
    return projection


class GPT3Attention(nn.Module):
    """Multi-head self-attention; ``band`` limits how far back a token sees."""

    def __init__(self, config: GPT3Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.n_head
        self.head_width = config.head_width
        self.dropout = config.attn_pdrop
        self.band = config.band_of_layer(layer)
        inner = config.n_head * config.head_width
        self.c_attn = nn.Linear(config.n_embd, 3 * inner)
        self.c_proj = residual_projection(inner, config.n_embd)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self, hidden: torch.Tensor, allowed: torch.Tensor | None, cache: Cache | None, need_weights: bool,
        tree: Layout | None = None, at: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Args: hidden (B, T, D); allowed as `allowed_pairs` gives it. Returns (B, T, D) and (B, H, T, S) or None."""
        rows, tokens, _ = hidden.shape
        dropout = self.dropout if self.training else 0.0
        if tree is not None and at is not None:
            mixed = labelled_attention(self.c_attn, hidden, at, self.num_heads, tree, window=self.band, dropout=dropout)
            return self.resid_dropout(self.c_proj(mixed.transpose(1, 2).flatten(2))), None
        heads = self.c_attn(hidden).view(rows, tokens, 3, self.num_heads, self.head_width)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        weights = None
        if tree is not None:
            mixed = attend(query, key, value, tree, window=self.band, dropout=dropout)
        elif need_weights:
            mixed, weights = explicit_attention(query, key, value, allowed, dropout)
        else:
            causal = allowed is None and tokens > 1
            mixed = attention(query, key, value, allowed, dropout=dropout, causal=causal)
        mixed = mixed.transpose(1, 2).reshape(rows, tokens, self.num_heads * self.head_width)
        return self.resid_dropout(self.c_proj(mixed)), weights


def explicit_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, allowed: torch.Tensor | None, dropout: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same attention with its weights (B, H, T, S) in the open, for those who want to look at them."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if allowed is None:
        size = scores.shape[-2:]
        allowed = torch.ones(size, dtype=torch.bool, device=scores.device).tril(size[1] - size[0])
    weights = torch.softmax(scores.masked_fill(~allowed, torch.finfo(scores.dtype).min), dim=-1)
    return functional.dropout(weights, dropout) @ value, weights


def activation(name: str) -> nn.Module:
    """The activation of that name; GPT-2's ``gelu_new`` as torch's one kernel, four times as fast as its formula."""
    if name == "gelu_new":
        return nn.GELU(approximate="tanh")
    found: nn.Module = ACT2FN[name]
    return found


class GPT3MLP(nn.Module):
    """The position-wise feed-forward part."""

    def __init__(self, config: GPT3Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.inner_width)
        self.c_proj = residual_projection(config.inner_width, config.n_embd)
        self.act = activation(config.activation_function)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        out: torch.Tensor = self.dropout(self.c_proj(self.act(self.c_fc(hidden))))
        return out


class GPT3Block(nn.Module):
    """One layer: norm, attention, add; norm, feed-forward, add."""

    def __init__(self, config: GPT3Config, layer: int) -> None:
        super().__init__()
        self.band = config.band_of_layer(layer)
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = GPT3Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = GPT3MLP(config)

    def forward(
        self, hidden: torch.Tensor, allowed: torch.Tensor | None, cache: Cache | None, need_weights: bool,
        tree: Layout | None = None, at: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, D) -> (B, T, D), or (B, K', D) for the tokens ``at``; and the attention weights if asked for."""
        mixed, weights = self.attn(self.ln_1(hidden), allowed, cache, need_weights, tree, at)
        hidden = (hidden if at is None else hidden.index_select(1, at)) + mixed
        return hidden + self.mlp(self.ln_2(hidden)), weights


class GPT3PreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """Loading, saving and initialisation; ``from_pretrained('gpt3')`` is the model that ships in the package."""

    config_class = GPT3Config
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ("GPT3Block",)
    _supports_sdpa = True
    takes_tree = True  # see `treetune.models.engine`

    @classmethod
    def from_pretrained(cls, name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers', and ``'gpt3'`` needs no network: it is treetune's own small base model."""
        place = resolve(name_or_path)
        if place != name_or_path and "torch_dtype" not in kwargs:
            # shipped in bfloat16 to be small; small steps of an optimizer would vanish in it
            kwargs.setdefault("dtype", torch.float32)
        return super().from_pretrained(place, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if getattr(module, "into_residual", False):
            std = self.config.initializer_range / math.sqrt(2 * self.config.n_layer)
            init.normal_(module.weight, mean=0.0, std=std)


class GPT3Model(GPT3PreTrainedModel):
    """The decoder without its head: token ids to hidden states."""

    def __init__(self, config: GPT3Config) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList([GPT3Block(config, layer) for layer in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.wte

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.wte = value

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        tree: Layout | None = None,
        cache: Cache | None = None,
    ) -> BaseModelOutputWithPast:
        """Run the decoder.

        Args:
            input_ids: (B, T), or inputs_embeds: (B, T, D).
            attention_mask: None, (B, S) with 0 at padding, or (B, 1, T, S) bool or additive (trees of rows).
            position_ids: (B, T); default: places in the row, padding not counted.
            past_key_values, cache: two names of one thing (see `treetune.models.cache_name`).
            return_dict: there for transformers; a model output is returned in any case.
            tree: who sees whom, for one packed row of tree tokens; the attention mask is not read then. Where its
                layout says so, the last layer gives (1, K', D) for the labelled tokens alone.

        Raises:
            ValueError: neither or both inputs given, or a position beyond ``n_positions``.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        hidden = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        num_cached = cache.get_seq_length() if cache is not None else 0
        num_keys = num_cached + hidden.shape[1]
        if position_ids is None:
            position_ids = default_positions(attention_mask, num_cached, num_keys, hidden.device)
        if num_keys > self.config.n_positions and int(position_ids.max()) >= self.config.n_positions:
            raise ValueError(f"position {int(position_ids.max())} is beyond n_positions={self.config.n_positions}")
        bands = {self.config.band_of_layer(layer) for layer in range(self.config.n_layer)}
        masks = {band: None if tree is not None else allowed_pairs(position_ids, attention_mask, num_keys, band)
                 for band in bands}
        hidden = self.drop(hidden + self.wpe(position_ids))
        states: list[torch.Tensor] = []
        maps: list[torch.Tensor | None] = []
        used = cache if use_cache or num_cached else None
        labelled = None
        if isinstance(tree, TreeLayout) and tree.pruned:
            labelled = torch.from_numpy(tree.columns).to(hidden.device)
        for block in self.h:
            states.append(hidden)
            at = labelled if block is self.h[-1] else None
            if self.gradient_checkpointing and self.training:
                hidden, weights = checkpoint(block, hidden, masks[block.band], None, False, tree, at,
                                             use_reentrant=False)
            else:
                hidden, weights = block(hidden, masks[block.band], used, bool(output_attentions), tree, at)
            maps.append(weights)
        hidden = self.ln_f(hidden)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden,
            **{CACHE: cache if use_cache else None},
            hidden_states=(*states, hidden) if output_hidden_states else None,
            attentions=tuple(maps) if output_attentions else None,
        )


def default_positions(
    attention_mask: torch.Tensor | None, num_cached: int, num_keys: int, device: torch.device
) -> torch.Tensor:
    """(B or 1, T) places of the new tokens in their rows; padding on the left does not count."""
    if attention_mask is not None and attention_mask.dim() == 2:
        return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, num_cached:num_keys]
    return torch.arange(num_cached, num_keys, device=device)[None]


class GPT3CausalLMOutput(CausalLMOutputWithPast):  # type: ignore[misc]
    """As transformers', and ``loss`` without labels is the next-token loss of the input, computed when read."""

    def remember_inputs(self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None) -> None:
        """Keep what the next-token loss needs; nothing is computed here."""
        object.__setattr__(self, "_inputs", (input_ids, attention_mask))

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name == "loss" and value is None:
            inputs = self.__dict__.get("_inputs")
            if inputs is not None and inputs[0] is not None:
                value = next_token_loss(self["logits"], *inputs)
                object.__setattr__(self, "_inputs", None)
                if value is not None:
                    self["loss"] = value
        return value


def next_token_loss(
    logits: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
) -> torch.Tensor | None:
    """Mean cross-entropy in nats of each token given those before it; None where there is no such token.

    Args:
        logits: (B, T, V). input_ids: (B, T). attention_mask: None or (B, T) with 0 at padding.
    """
    if logits.shape[:2] != input_ids.shape or input_ids.shape[1] < 2:
        return None
    targets = input_ids[:, 1:]
    if attention_mask is not None and attention_mask.shape == input_ids.shape:
        outside = (attention_mask[:, 1:] == 0) | (attention_mask[:, :-1] == 0)
        targets = targets.masked_fill(outside, -100)
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten())


class GPT3LMHeadModel(GPT3PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """GPT-3 with its language-model head, tied to the token embedding."""

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}  # noqa: RUF012

    def __init__(self, config: GPT3Config) -> None:
        super().__init__(config)
        self.transformer = GPT3Model(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_dict: bool | None = None,
        tree: Layout | None = None,
        cache: Cache | None = None,
        **loss_kwargs: Any,
    ) -> Any:
        """Logits of the next token, and the loss.

        Args:
            labels: (B, T) token ids, -100 where no loss is wanted; shifted inside, as in transformers.
            logits_to_keep: 0 for all tokens, n for the last n, or (K,) indices.
            loss_kwargs: for transformers' loss; refused without labels.
            Others: see `GPT3Model.forward`.

        Returns:
            `GPT3CausalLMOutput`: ``logits`` (B, T or kept, V); ``loss`` scalar in nats a token.
        """
        if labels is None and loss_kwargs:
            raise TypeError(f"unexpected arguments: {', '.join(loss_kwargs)}")
        outputs = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, cache=cache, inputs_embeds=inputs_embeds, use_cache=use_cache,
            output_attentions=output_attentions, output_hidden_states=output_hidden_states, tree=tree,
        )
        hidden = outputs.last_hidden_state
        if isinstance(logits_to_keep, torch.Tensor):
            hidden = hidden.index_select(1, logits_to_keep)
        elif logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **loss_kwargs)
        result = GPT3CausalLMOutput(
            loss=loss, logits=logits, **{CACHE: outputs.get(CACHE)},
            hidden_states=outputs.hidden_states, attentions=outputs.attentions,
        )
        if labels is None:
            result.remember_inputs(input_ids, attention_mask)
        return result.to_tuple() if return_dict is False else result

    @classmethod
    def from_gpt2(cls, gpt2: GPT2LMHeadModel) -> GPT3LMHeadModel:
        """The same function as a GPT-2 model: its weights in a GPT-3 with dense attention everywhere.

        Raises:
            ValueError: the GPT-2 scales its attention in a way GPT-3 has not.
        """
        old = gpt2.config
        if old.scale_attn_by_inverse_layer_idx or not old.scale_attn_weights or old.add_cross_attention:
            raise ValueError("this GPT-2 scales its attention by layer, not at all, or attends across: not GPT-3")
        config = GPT3Config(
            vocab_size=old.vocab_size, n_positions=old.n_positions, n_embd=old.n_embd, n_layer=old.n_layer,
            n_head=old.n_head, n_inner=old.n_inner, attention_pattern="dense",
            activation_function=old.activation_function, layer_norm_epsilon=old.layer_norm_epsilon,
            resid_pdrop=old.resid_pdrop, embd_pdrop=old.embd_pdrop, attn_pdrop=old.attn_pdrop,
            bos_token_id=old.bos_token_id, eos_token_id=old.eos_token_id, pad_token_id=old.pad_token_id,
            tie_word_embeddings=old.tie_word_embeddings,
        )
        model = cls(config)
        matrices = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # GPT-2 keeps them transposed (Conv1D)
        weights = {
            name: tensor.T.contiguous() if name.endswith(matrices) else tensor
            for name, tensor in gpt2.state_dict().items()
        }
        model.load_state_dict(weights, strict=True)
        model.tie_weights()
        model.eval()
        return model


AutoConfig.register("gpt3", GPT3Config, exist_ok=True)
AutoModelForCausalLM.register(GPT3Config, GPT3LMHeadModel, exist_ok=True)
