# Copyright 2026 The SENSIA authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Backpack language models (Hewitt et al., 2023) on any decoder backbone.

A Backpack writes every word as K *sense* vectors that depend on the word alone, lets a decoder (the backbone) weigh
them in context, and predicts from their sum, so that the contribution of each sense to each logit is linear:

    S[b, s]      = SenseNetwork(embedding(ids[b, s]))                          (K, d), independent of context
    alpha[b,k,t] = softmax_s(<q_k H[b, t], k_k H[b, s]> / sqrt(m)), m = d // K  causal, over positions, for each sense
    h[b, t]      = sense_scale * sum_k sum_s alpha[b, k, t, s] S[b, s, k]       the mixture
    logits       = h @ embedding^T

With a residual gate g, a learned scalar that starts at zero, senses are added to a finished language model instead:
logits = head(H + g h), with the head of that model.
"""

import contextlib
import copy
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, StaticLayer
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults

from .configuration_backpack import BackpackConfig, sense_network_settings
from .conversion_backpack import (
    PUBLISHED,
    base_of_adapter,
    copy_module,
    is_published_layout,
    load_language_model,
    refuse_inexact,
    refuse_nano_backpack,
    set_inverse_layer_scaling,
)
from .senses_backpack import (
    BackpackMLP,
    BackpackResidualGate,
    BackpackSenseNetwork,
    BackpackSenseWeightNetwork,
    causal_sense_mask,
)


logger = logging.get_logger(__name__)

# What the installed transformers calls a cache in outputs and arguments: `cache` since 5.24, `past_key_values` before.
# Both are accepted; this one is returned, and handed to the backbone.
CACHE_NAME = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"
# `Trainer` and pipelines tell causal language models, whose labels it shifts to smooth them, by this table of names.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault("backpack", "BackpackForCausalLM")
# Distinct tokens of a training batch are padded to a multiple of this.
SHAPE_STEP = 64


@dataclass
class BackpackModelOutputWithPast(BaseModelOutputWithPast):
    """
    What `BaseModelOutputWithPast` holds, the cache under the name that the installed transformers gives it, and

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`):
            What the head reads: the mixture of senses; with `residual_gate`, the backbone's final state plus the
            gated mixture.
        past_key_values or cache (`Cache`): Keys and values of the backbone, and one more layer for the senses.
        hidden_states (`tuple(torch.FloatTensor)`): The backbone's, embeddings first (`output_hidden_states=True`).
        attentions (`tuple(torch.FloatTensor)`): The backbone's (`output_attentions=True`, eager attention).
        backbone_last_hidden_state (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`):
            The backbone's final state, from which the senses are weighed.
        mixture (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`):
            The mixture of senses.
        senses (`torch.FloatTensor` of shape `(batch_size, sequence_length, num_senses, hidden_size)`):
            Sense vectors of the tokens of this call (`output_senses=True`).
        sense_weights (`torch.FloatTensor` of shape `(batch_size, num_senses, sequence_length, key_length)`):
            Weights over positions, each row summing to one (`output_sense_weights=True`).
    """

    backbone_last_hidden_state: torch.FloatTensor | None = None
    mixture: torch.FloatTensor | None = None
    senses: torch.FloatTensor | None = None
    sense_weights: torch.FloatTensor | None = None


@dataclass
class BackpackCausalLMOutputWithPast(CausalLMOutputWithPast):
    """
    What [`BackpackModelOutputWithPast`] holds, after

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`): Next-token cross-entropy in nats, when `labels` are given.
        logits (`torch.FloatTensor` of shape `(batch_size, kept_length, vocab_size)`): scores of every word.
    """

    last_hidden_state: torch.FloatTensor | None = None
    backbone_last_hidden_state: torch.FloatTensor | None = None
    mixture: torch.FloatTensor | None = None
    senses: torch.FloatTensor | None = None
    sense_weights: torch.FloatTensor | None = None


class BackpackPreTrainedModel(PreTrainedModel):
    config: BackpackConfig
    config_class = BackpackConfig
    base_model_prefix = "backpack"
    supports_gradient_checkpointing = True
    _no_split_modules = ["BackpackSenseNetwork", "BackpackSenseWeightNetwork"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    # The sense layer computes its own weights whatever the implementation; the backbone decides what it can do.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    # Buffers that old releases of transformers saved with GPT-2.
    _keys_to_ignore_on_load_unexpected = [r"\.attn\.(masked_)?bias$"]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, BackpackMLP):
            # As in the original training code: outputs of MLPs shrink with the depth of the backbone.
            std = self.config.initializer_range / (2 * self.config.num_hidden_layers) ** 0.5
            init.normal_(module.c_proj.weight, mean=0.0, std=std)
        elif isinstance(module, BackpackResidualGate):
            init.zeros_(module.weight)
        elif hasattr(module, "scalar_embed_scale"):
            # Of Gemma's embeddings, saved with none: its own `_init_weights` does not see those of the senses.
            init.constant_(module.embed_scale, module.scalar_embed_scale)

    @classmethod
    def is_custom_code(cls):
        """
        `False`: weights are written by `transformers.initialization`, as the library's own models do. It calls
        `_init_weights` of custom code with modules that hold parameters of their own only, and a GPT-2 backbone
        initialises its residual projections from the modules that contain them.
        """
        return False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config=None, state_dict=None, **kwargs):
        """
        Load our layout, or the published one (stanfordnlp/backpack-gpt2, the SENSIA checkpoints, the Levanter family).

        Published checkpoints claim `scale_attn_by_inverse_layer_idx=True`, yet some were trained with a transformers
        release (4.42 to 5.3) that ignored it; pass `scale_attn_by_inverse_layer_idx=False` for those, and see
        `conversion_backpack.inverse_layer_losses` to find out.
        """
        inverse_layer = kwargs.pop("scale_attn_by_inverse_layer_idx", None)
        wants_info = kwargs.pop("output_loading_info", False)
        name = pretrained_model_name_or_path
        # Untied only now: the senses of the checkpoint are those of its word embeddings.
        unties = not kwargs.get("tie_sense_embeddings", getattr(config, "tie_sense_embeddings", True))
        published = state_dict is None and name is not None and is_published_layout(name, **kwargs)
        if published:
            if config is None:
                # What says which revision, and whose, is for the weights as well; of an adapter it is not the base's.
                base = base_of_adapter(name, **kwargs)
                place = kwargs if base is None else kwargs | {"revision": None}
                config_dict, _ = BackpackConfig.get_config_dict(base or name, **place)
                config, kwargs = BackpackConfig.from_dict(config_dict, return_unused_kwargs=True, **kwargs)
            elif isinstance(config, (str, os.PathLike)):
                config = BackpackConfig.from_pretrained(config)
            config = copy.deepcopy(config)
            config.model_type = PUBLISHED
        refuse_nano_backpack(state_dict or ())
        model, info = super().from_pretrained(
            name, *args, config=config, state_dict=state_dict, output_loading_info=True, **kwargs
        )
        refuse_nano_backpack(info["unexpected_keys"])
        senses = {key for key in info["missing_keys"] if key.endswith("sense_embeddings.weight")}
        if unties and senses:
            model.base_model.sense_embeddings.load_state_dict(model.get_input_embeddings().state_dict())
            info["missing_keys"] = type(info["missing_keys"])(set(info["missing_keys"]) - senses)
        if published:
            # What a checkpoint of a language model has no weights for: the head of a classifier.
            lacks = sorted(key for key in info["missing_keys"] if not key.startswith("score."))
            if lacks or info["unexpected_keys"]:
                holds = sorted(info["unexpected_keys"])
                raise ValueError(
                    f"The checkpoint lacks {lacks} and holds {holds}, which are unknown: it is not a whole Backpack "
                    "of the published layout."
                )
            # From here on a Backpack like any other, saved in our layout.
            model.config.model_type, model._weight_conversions = BackpackConfig.model_type, None
        if inverse_layer is not None:
            set_inverse_layer_scaling(model, inverse_layer)
        return (model, info) if wants_info else model

    def resize_token_embeddings(self, new_num_tokens=None, pad_to_multiple_of=None, mean_resizing=True):
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        if self.base_model.sense_embeddings is not None:
            self.base_model.sense_embeddings = self._get_resized_embeddings(
                self.base_model.sense_embeddings, embeddings.num_embeddings, mean_resizing=mean_resizing
            )
        return embeddings

    def load_state_dict(self, state_dict, *args, **kwargs):
        refuse_nano_backpack(state_dict)
        return super().load_state_dict(state_dict, *args, **kwargs)


# What `is_custom_code` asks was asked of `is_remote_code` at first.
if not hasattr(PreTrainedModel, "is_custom_code"):
    BackpackPreTrainedModel.is_remote_code = BackpackPreTrainedModel.is_custom_code


class BackpackModel(BackpackPreTrainedModel):
    """The backbone, the sense network and the sense weights: everything but the head."""

    def __init__(self, config):
        super().__init__(config)
        # In the precision of the rest, whatever that of the checkpoint whose configuration it is.
        self.backbone = AutoModel.from_config(config.backbone_config, dtype=torch.get_default_dtype())
        self.sense_network = BackpackSenseNetwork(config)
        self.sense_weight_net = BackpackSenseWeightNetwork(config, layer_idx=config.num_hidden_layers)
        self.sense_embeddings = None
        # CODEPATH: a model that was trained with constant senses carries the embeddings they were computed from.
        if not config.tie_sense_embeddings:
            self.untie_sense_embeddings()
        self.residual_gate = None
        # CODEPATH: senses of a pretrained language model, and Backpacks that predict from senses alone.
        if config.residual_gate:
            self.residual_gate = BackpackResidualGate()
            self._keep_in_fp32_modules_strict = ["residual_gate"]
        self._interventions: list[Callable] = []
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self):
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.backbone.set_input_embeddings(value)

    def untie_sense_embeddings(self):
        """Give the sense network its own copy of the word embeddings, equal to them now."""
        if self.sense_embeddings is None:
            # A module of the same class: Gemma's scales its embeddings.
            self.sense_embeddings = copy.deepcopy(self.get_input_embeddings()).requires_grad_()
            self.config.tie_sense_embeddings = False

    def compute_senses(self, input_ids=None, inputs_embeds=None):
        """
        Sense vectors `(..., K, d)` of tokens `(...)` or of embeddings `(..., d)`.

        Each distinct token is computed once; in training, its dropout mask is then shared by its occurrences.
        """
        if input_ids is None:
            if self.sense_embeddings is not None:
                raise ValueError(
                    "`inputs_embeds` cannot be used with `tie_sense_embeddings=False`: the senses of this model come "
                    "from embeddings of its own. Pass `input_ids`."
                )
            if self._interventions:
                raise ValueError(
                    "`inputs_embeds` cannot be used within `intervene_on_senses`, which tells tokens by their ids. "
                    "Pass `input_ids`."
                )
            return self.sense_network(inputs_embeds)
        embeddings = self.sense_embeddings or self.get_input_embeddings()
        # The number of distinct tokens has no static shape.
        if torch.compiler.is_compiling() or input_ids.device.type == "meta":
            return self._intervened(self.sense_network(embeddings(input_ids)), input_ids)
        distinct, inverse = torch.unique(input_ids, return_inverse=True)
        self._check_ids(distinct)
        if self.training:
            # Kernels are compiled for each shape (bfloat16 on CPU: 50 ms and 5 MB a shape), so few shapes are made.
            distinct = nn.functional.pad(distinct, (0, -len(distinct) % SHAPE_STEP))
        # A row of tokens: hooks on embeddings (NEFTune's) expect a batch.
        senses = self._intervened(self.sense_network(embeddings(distinct[None])[0]), distinct)
        # An embedding lookup, because the backward of advanced indexing is slow on CPU. There it adds one occurrence
        # after another, in float32, since sums in bfloat16 lose those of frequent words.
        rows, is_half = senses.flatten(1), senses.dtype in (torch.float16, torch.bfloat16)
        rows = rows.float() if is_half and rows.device.type == "cpu" and rows.requires_grad else rows
        every = nn.functional.embedding(inverse.to(senses.device), rows).to(senses.dtype)
        return every.unflatten(-1, senses.shape[1:])

    def _check_ids(self, distinct, name="input_ids"):
        if distinct.device.type == "meta" or distinct.numel() == 0:
            return
        if distinct[0] < 0 or distinct[-1] >= self.config.vocab_size:
            raise ValueError(
                f"`{name}` must lie in [0, {self.config.vocab_size}), the vocabulary of this model; got "
                f"{int(distinct[0])} to {int(distinct[-1])}. Check that the tokenizer is the model's, or call "
                "`resize_token_embeddings`."
            )

    def _intervened(self, senses, token_ids):
        for intervention in self._interventions:
            senses = intervention(senses, token_ids)
        return senses

    @contextlib.contextmanager
    def intervene_on_senses(self, token_ids, sense, scale=None, vector=None):
        """
        Within this context, sense `sense` of the tokens `token_ids` is multiplied by `scale` or replaced by `vector`,
        in `forward` and in `generate`. Contexts nest; nothing remains afterwards, but in a copy of the model that is
        made within.

        Args:
            token_ids (`list[int]` or `torch.LongTensor`): The tokens changed.
            sense (`int`): Index of the sense, 0 to K - 1.
            scale (`float`, *optional*): Factor.
            vector (`torch.FloatTensor` of shape `(hidden_size,)`, or a list, *optional*): Replacement.

        Raises:
            `ValueError`: for both or none of `scale` and `vector`, a `vector` of another size, and a `sense` or tokens
            that do not exist; within the context, for `inputs_embeds`, which have no token ids.
        """
        if (scale is None) == (vector is None):
            raise ValueError("Give exactly one of `scale` (a factor) and `vector` (a replacement).")
        if sense not in range(self.config.num_senses):
            raise ValueError(f"`sense` must be a whole number in [0, {self.config.num_senses}), got {sense}.")
        vector = None if vector is None else torch.as_tensor(vector)
        if vector is not None and vector.shape != (self.config.hidden_size,):
            raise ValueError(
                f"`vector` must have the shape ({self.config.hidden_size},) of one sense vector, got "
                f"{tuple(vector.shape)}."
            )
        changed = _whole(token_ids).reshape(-1)
        self._check_ids(changed.unique(), "token_ids")

        def intervention(senses, ids):
            is_sense = torch.arange(senses.shape[-2], device=ids.device) == sense
            hit = torch.isin(ids, changed.to(ids.device))[..., None] & is_sense
            new = senses * scale if vector is None else vector.to(senses).expand_as(senses)
            return torch.where(hit[..., None], new, senses)

        self._interventions.append(intervention)
        try:
            yield self
        finally:
            self._interventions.remove(intervention)

    @can_return_tuple
    @merge_with_config_defaults
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_senses: bool = False,
        output_sense_weights: bool = False,
        cache: Cache | None = None,
        **kwargs,
    ) -> BackpackModelOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Token ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, key_length)`, *optional*):
                1 for tokens, 0 for padding on either side. Honoured by the backbone and by the sense weights;
                positions count tokens only, so a padded row gives the states of the unpadded one.
            position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Positions. Where they start again, without `attention_mask` and with `use_cache=False`, another text
                starts: texts packed in a row do not see each other, if the backbone makes its mask of positions
                (GPT-2, GPT-NeoX, Llama, Qwen3 do; OPT, XGLM, BioGPT, Falcon do not).
            past_key_values, cache (`Cache`, *optional*): What earlier calls returned, under either name.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                Word embeddings instead of `input_ids`; the senses are computed from them.
            use_cache (`bool`, *optional*): Whether to return `past_key_values`.
            output_senses (`bool`, *optional*, defaults to `False`): Whether to return the senses.
            output_sense_weights (`bool`, *optional*, defaults to `False`): Whether to return the sense weights.

        Raises:
            `ValueError`: for both or none of `input_ids` and `inputs_embeds`, a sequence longer than the learned
            positions of the backbone (with others it goes on, with a warning), or token ids outside the vocabulary.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of `input_ids` and `inputs_embeds`.")
        past_key_values = cache if past_key_values is None else past_key_values
        senses = self.compute_senses(input_ids, inputs_embeds)
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        length = inputs_embeds.shape[1]
        if inputs_embeds.dtype == torch.float16 and inputs_embeds.device.type == "cpu":
            logger.warning_once(
                "The weights are float16, with which a CPU computes several times slower than with float32. Load the "
                "model with `dtype=torch.float32`, or call `model.float()`."
            )

        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if past_key_values is not None:
            self._add_sense_layer(past_key_values)
        past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
        prefix_length = 0
        if past_key_values is not None:
            prefix_length = past_length - past_key_values.get_seq_length(self.config.num_hidden_layers)
        query_positions = torch.arange(length, device=inputs_embeds.device) + past_length
        # As the masks of transformers: packed texts are recognised where there is neither a mask nor a cache.
        packed_positions = position_ids if past_key_values is None else None
        if position_ids is None:
            position_ids = query_positions[None, :]
            if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
                position_ids = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -length:]
        self._check_length(past_length, length, position_ids)

        for name in ("output_hidden_states", "output_attentions"):  # of the backbone; its configuration is another
            if kwargs.get(name) is None and getattr(self.config, name, False):
                kwargs[name] = True
        backbone_outputs = self.backbone(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            **{CACHE_NAME: past_key_values},
            **kwargs,
        )
        hidden_states = backbone_outputs.last_hidden_state
        # A layer that is computed twice would fill the cache twice; those of the backbone leave it alone.
        is_recomputed = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        mixture, sense_weights = self.sense_weight_net(
            hidden_states,
            senses,
            causal_sense_mask(attention_mask, query_positions, packed_positions, prefix_length),
            past_key_values=None if is_recomputed else past_key_values,
            output_weights=output_sense_weights,
        )
        return BackpackModelOutputWithPast(
            last_hidden_state=mixture if self.residual_gate is None else self.residual_gate(hidden_states, mixture),
            **{CACHE_NAME: past_key_values},
            hidden_states=backbone_outputs.get("hidden_states"),
            attentions=backbone_outputs.get("attentions"),
            backbone_last_hidden_state=hidden_states,
            mixture=mixture,
            senses=senses if output_senses else None,
            sense_weights=sense_weights,
        )

    def _add_sense_layer(self, cache):
        """One more cache layer, of the cache's own kind: caches are made for the backbone's layers only."""
        # CODEPATH: none; the cache is compared with the number of layers it was made for.
        if cache.layer_class_to_replicate is None and len(cache.layers) == self.config.num_hidden_layers:
            static_length, all_slide = 0, True
            window = getattr(self.backbone.config.get_text_config(), "sliding_window", None) or 0
            for layer in cache.layers:
                if isinstance(layer, StaticLayer):
                    # One that is shorter than the window is as long as was asked for.
                    is_cut = layer.is_sliding and layer.max_cache_len >= window
                    static_length, all_slide = max(static_length, layer.max_cache_len), all_slide and is_cut
            if static_length and all_slide:
                raise ValueError(
                    "`past_key_values` is a static cache of sliding-window layers only, which are shorter than the "
                    "text, while the senses of the whole text are weighed. Use a `DynamicCache`."
                )
            cache.layers.append(StaticLayer(max_cache_len=static_length) if static_length else DynamicLayer())

    def _check_length(self, past_length, length, position_ids):
        limit = self.config.max_position_embeddings
        # Backbones without positions of their own (ALiBi) have no limit; static caches have theirs.
        if limit is None or not isinstance(past_length, int) or past_length + length <= limit:
            return
        # Texts packed in a row, and padding, make rows longer than their positions are many.
        if position_ids.device.type == "meta" or position_ids.max() < limit:
            return
        if not self._has_learned_positions(limit):
            logger.warning_once(
                f"A text is longer than the `max_position_embeddings`={limit} of the backbone, which was not trained "
                "on such: what it predicts from there on may be bad."
            )
            return
        raise ValueError(
            f"`input_ids` has {past_length + length} positions (cached ones included), but the backbone has "
            f"`max_position_embeddings`={limit}. Truncate the text, or use a backbone with more positions."
        )

    def _has_learned_positions(self, limit):
        words = self.get_input_embeddings()
        tables = (module for module in self.backbone.modules() if isinstance(module, nn.Embedding))
        return any(table is not words and limit <= table.num_embeddings <= limit + 2 for table in tables)


class BackpackForCausalLM(BackpackPreTrainedModel, GenerationMixin):
    """
    A Backpack with its language-modelling head, which is tied to the backbone's word embeddings unless a pretrained
    language model brought a head of its own.
    """

    def __init__(self, config):
        super().__init__(config)
        self.backpack = BackpackModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.lm_head_bias)
        # Where the word embeddings are depends on the backbone.
        word_embeddings = self.backpack.get_input_embeddings()
        name = next(name for name, module in self.backpack.named_modules() if module is word_embeddings)
        self._tied_weights_keys = {"lm_head.weight": f"backpack.{name}.weight"}
        self.post_init()
        # Word embeddings that the backbone's plan shards over the vocabulary take the head with them.
        if f"backpack.{name}" in self.tp_plan:
            self.tp_plan["lm_head"] = "colwise_gather_output"

    @classmethod
    def from_backbone(cls, pretrained_model_name_or_path, backbone_kwargs=None, **config_kwargs):
        """
        Freshly initialised senses for a pretrained language model, which stays what it is: behind the closed
        `residual_gate`, logits equal the language model's to the bit.

        Args:
            pretrained_model_name_or_path (`str` or `PreTrainedModel`):
                A decoder-only language model on the Hub, in a folder or in memory, e.g. `"gpt2"`.
            backbone_kwargs (`dict`, *optional*):
                Arguments of its `from_pretrained`, e.g. `{"dtype": "bfloat16"}`. The default precision is float32.
            config_kwargs: Fields of [`BackpackConfig`], e.g. `num_senses=8`. The sense network has the activation,
                dropouts and norm epsilon of the backbone unless they say otherwise. `residual_gate=False` makes a
                Backpack that predicts from senses alone and has to be trained anew; a soft cap or scale of the
                language model's logits is then left out.

        Raises:
            `ValueError`: for a Backpack, a model that is not a text decoder, quantised, missing or unexpected weights,
            and a family whose logits cannot be kept exact.
        """
        language_model = load_language_model(pretrained_model_name_or_path, **(backbone_kwargs or {}))
        backbone, head = language_model.base_model, language_model.get_output_embeddings()
        embeddings = language_model.get_input_embeddings()
        fields = {"residual_gate": True, **sense_network_settings(backbone.config)}
        own = {"lm_head_bias": head.bias is not None, "tie_word_embeddings": head.weight is embeddings.weight}
        for name, value in own.items():
            if config_kwargs.get(name, value) != value:
                raise ValueError(
                    f"`{name}` is {config_kwargs[name]!r}, but the head of {type(language_model).__name__} is kept as "
                    f"it is, where it is {value}: leave it out."
                )
        fields |= own
        config = BackpackConfig(backbone_config=copy.deepcopy(backbone.config), **fields | config_kwargs)
        attention = backbone.config._attn_implementation
        model = cls._from_config(config, dtype=backbone.dtype, attn_implementation=attention)
        copy_module(backbone, model.backpack.backbone)
        copy_module(head, model.lm_head)
        if model.backpack.sense_embeddings is not None:
            copy_module(embeddings, model.backpack.sense_embeddings)
        if language_model.generation_config is not None:
            model.generation_config = copy.deepcopy(language_model.generation_config)
        # CODEPATH: none; without the gate there is nothing to be equal to.
        if config.residual_gate:
            refuse_inexact(model, language_model)
        return model

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: Cache | None = None,
        **kwargs,
    ) -> BackpackCausalLMOutputWithPast:
        r"""
        Args:
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Usually `input_ids`; shifted here. Positions with -100 are not predicted.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Logits of that many last positions only (0: all), or of these position indices.
            num_items_in_batch (`int` or `torch.Tensor`, *optional*):
                Divisor of the summed loss; the number of labels predicted by default.
            shift_labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Labels shifted already, which the loss is then taken against; with `labels`, as everywhere.

        For the other arguments see [`BackpackModel.forward`].
        """
        targets = {name: kwargs.pop(name, None) for name in ("num_items_in_batch", "shift_labels")}
        outputs = self.backpack(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache if past_key_values is None else past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.compute_logits(outputs.last_hidden_state[:, kept, :])

        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **targets)
        return BackpackCausalLMOutputWithPast(loss=loss, logits=logits, **outputs)

    def compute_logits(self, hidden_states):
        """
        Logits `(..., vocab_size)` of what the head reads, `last_hidden_state` `(..., hidden_size)`: one linear layer
        and, with `residual_gate`, what the family of the backbone does to its logits.
        """
        logits = self.lm_head(hidden_states)
        # CODEPATH: Backpacks that predict from senses alone; below, the families that senses were added to.
        if not self.config.residual_gate:
            return logits
        backbone = self.config.backbone_config
        if (scale := getattr(backbone, "logit_scale", None)) is not None:  # Cohere
            logits = logits * scale
        if (scaling := getattr(backbone, "logits_scaling", None)) is not None:  # Granite
            logits = logits / scaling
        if (cap := getattr(backbone, "final_logit_softcapping", None)) is not None:  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits

    def init_continuous_batching(self, *args, **kwargs):
        """Refuse `generate_batch` and its relatives, which would silently leave past senses out of the mixture."""
        raise ValueError(
            "Continuous batching keeps paged caches of the backbone's layers only, and a Backpack has one more layer, "
            "its senses. Call `generate` with a padded batch instead."
        )

    def get_senses(self, token_ids):
        """
        Sense vectors of tokens, independent of context.

        Args:
            token_ids (`torch.LongTensor` of any shape): Tokens.

        Returns:
            `torch.FloatTensor` of shape `(*token_ids.shape, num_senses, hidden_size)`.

        Raises:
            `ValueError`: for tokens that are no whole numbers or do not exist.
        """
        token_ids = _whole(token_ids)
        if self.device.type != "meta":  # offloaded: inputs go where the weights are fetched to
            token_ids = token_ids.to(self.device)
        return self.backpack.compute_senses(token_ids)

    def nearest_words(self, senses, top_k=10, tokenizer=None):
        """
        The words that vectors vote for most: their projection on the vocabulary.

        Args:
            senses (`torch.FloatTensor` of shape `(..., hidden_size)`): Sense vectors, in any precision.
            top_k (`int`, *optional*, defaults to 10): Number of words.
            tokenizer (`PreTrainedTokenizerBase`, *optional*): Of the model, to give words in the place of ids.

        Returns:
            Scores and token ids, each of shape `(..., top_k)`, best first; with a tokenizer words (`str`) alone, in
            lists nested likewise.
        """
        scores, ids = nn.functional.linear(senses.to(self.lm_head.weight), self.lm_head.weight).topk(top_k, dim=-1)

        def words(part):
            return [words(one) for one in part] if isinstance(part, list) else tokenizer.decode([part]).strip()

        return (scores, ids) if tokenizer is None else words(ids.tolist())

    def intervene_on_senses(self, token_ids, sense, scale=None, vector=None):
        """See [`BackpackModel.intervene_on_senses`]."""
        return self.backpack.intervene_on_senses(token_ids, sense, scale=scale, vector=vector)


class BackpackForSequenceClassification(GenericForSequenceClassification, BackpackPreTrainedModel):
    """
    A Backpack that scores a text by what the head would read at its last word. A batch of several texts needs
    `config.pad_token_id`, which tells padding from words.
    """

    base_model_prefix = "backpack"

    def __init__(self, config):
        # The generic one looks the decoder up by name, and custom code is not found there.
        BackpackPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.backpack = BackpackModel(config)
        self.score = nn.Linear(config.hidden_size, self.num_labels, bias=False)
        self._padding = config.backbone_config.pad_token_id
        self._agree_on_padding()
        # Before each pass, since it may be set after loading; a hook, since trainers read the names of `forward`.
        self.register_forward_pre_hook(lambda model, _: model._agree_on_padding())
        self.post_init()

    def _agree_on_padding(self):
        """Makes the padding token of both configurations the one that was given last: releases of the generic
        classifier read the one or the other."""
        own, backbone = self.config.pad_token_id, self.config.backbone_config.pad_token_id
        self._padding = backbone if own in (None, self._padding) else own
        self.config.pad_token_id = self.config.backbone_config.pad_token_id = self._padding


def _whole(token_ids):
    """Tokens as a tensor; `ValueError` for numbers that are not whole. An empty list has no type of its own."""
    token_ids = torch.as_tensor(token_ids)
    if token_ids.numel() == 0:
        return token_ids.long()
    if token_ids.is_floating_point() or token_ids.is_complex():
        raise ValueError(f"`token_ids` must be whole numbers, got {token_ids.dtype}.")
    return token_ids


__all__ = ["BackpackForCausalLM", "BackpackForSequenceClassification", "BackpackModel", "BackpackPreTrainedModel"]
