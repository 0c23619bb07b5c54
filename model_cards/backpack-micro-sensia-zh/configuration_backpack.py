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
"""Configuration of a Backpack language model (Hewitt et al., 2023)."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, GPT2Config, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging


logger = logging.get_logger(__name__)

MIXTURE_MODES = ("full", "top_k", "uniform")

# Keys that configuration files of any model carry and that the base class consumes.
BASE_KEYS = {
    "_attn_implementation_internal",
    "_commit_hash",
    "_experts_implementation_internal",
    "_name_or_path",
    "attn_implementation",
    "auto_map",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "per_layer_config",
    "quantization_config",
    "torch_dtype",
}
# Fields of a decoder: they belong in `backbone_config`.
BACKBONE_KEYS = {
    "activation_function",
    "attn_pdrop",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "n_ctx",
    "n_embd",
    "n_head",
    "n_inner",
    "n_layer",
    "n_positions",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "reorder_and_upcast_attn",
    "rope_parameters",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    "vocab_size",
}


# Generation parameters that files of old releases carry.
GENERATION_KEYS = {"max_length", "min_length", "do_sample", "temperature", "top_k", "top_p", "num_beams"}


def is_flat_layout(config_dict):
    """Whether `config_dict` is the flat configuration of stanfordnlp/backpack-gpt2 and its relatives."""
    return (
        config_dict.get("model_type") in ("gpt2", "backpack-gpt2")
        and "num_senses" in config_dict
        and "backbone_config" not in config_dict
    )


def nest_published_config(config_dict):
    """
    Turn a flat published configuration into keyword arguments of [`BackpackConfig`].

    GPT-2 fields go to `backbone_config`; fields that the published sense network shares with GPT-2 (dropouts, layer
    norm, activation, initialiser) are repeated for ours. Files of the Levanter family (`model_type` "backpack-gpt2")
    divide the mixture by the number of senses.
    """
    published = {"vocab_size": 50264, "n_positions": 512, "scale_attn_by_inverse_layer_idx": True, **config_dict}
    published.pop("auto_map", None)
    published.pop("architectures", None)
    family = published.pop("model_type")
    num_senses = published.pop("num_senses")
    sense_intermediate_scale = published.pop("sense_intermediate_scale", 4)
    backbone = GPT2Config(**published)
    return {
        "backbone_config": backbone,
        "num_senses": num_senses,
        "sense_intermediate_scale": sense_intermediate_scale,
        "sense_scale": 1.0 / num_senses if family == "backpack-gpt2" else 1.0,
        "dtype": backbone.dtype,
        **sense_network_settings(backbone),
    }


def sense_network_settings(backbone_config):
    """Activation, dropouts, norm epsilon and initialiser of a decoder, as fields of [`BackpackConfig`]."""

    def first(*names, default):
        values = (getattr(backbone_config, name, None) for name in names)
        return next((value for value in values if value is not None), default)

    return {
        "hidden_act": first("hidden_act", "hidden_activation", "activation_function", default="gelu_new"),
        "resid_pdrop": first("resid_pdrop", "hidden_dropout", "dropout", default=0.0),
        "embd_pdrop": first("embd_pdrop", "embedding_dropout", default=0.0),
        "layer_norm_epsilon": first("layer_norm_epsilon", "layer_norm_eps", "rms_norm_eps", default=1e-5),
        "initializer_range": first("initializer_range", "init_std", default=0.02),
    }


def refuse_unfit_backbone(config):
    """Raise a `ValueError` for a configuration that is not a decoder of text reading from left to right."""
    if config.is_encoder_decoder or config.get_text_config() is not config:
        raise ValueError(
            f"`backbone_config` is a {type(config).__name__}, which is more than a decoder of text. A Backpack weighs "
            "the senses of one text: give the configuration of a decoder-only language model (of a model of several "
            "modalities, its `text_config`)."
        )
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise ValueError(
            f"`backbone_config` is a bidirectional {type(config).__name__}, whose states see the words that a "
            "Backpack has to predict. Give the configuration of a decoder, or set its `is_decoder=True`."
        )


def of_backbone(name, default=None):
    """A property that is the backbone's: read from and written to `backbone_config`."""

    def read(config):
        return getattr(config.backbone_config, name, default)

    def write(config, value):
        setattr(config.backbone_config, name, value)

    return property(read, write, doc=f"`{name}` of the backbone.")


@strict
class BackpackConfig(PreTrainedConfig):
    r"""
    A Backpack is a decoder (the *backbone*, any decoder-only transformers configuration) that weighs the *senses* of
    the words it reads. Everything about the backbone, its vocabulary and positions included, lives in
    `backbone_config`; the fields below describe the sense network and the mixture.

    Args:
        backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            The decoder. Defaults to GPT-2 small with 512 positions, a vocabulary of 50,264 and attention scaled by the
            inverse layer index, the backbone of stanfordnlp/backpack-gpt2. A `dict` without `model_type` is a GPT-2.
        num_senses (`int`, *optional*, defaults to 16):
            Number of sense vectors K of each word.
        sense_intermediate_scale (`int`, *optional*, defaults to 4):
            Inner size of the last MLP of the sense network, in multiples of the hidden size.
        residual_gate (`bool`, *optional*, defaults to `False`):
            Whether the head reads b + g * h, the backbone's final state b and the mixture h behind a learned gate g,
            instead of the mixture alone. The gate starts at 0, where the model is the language model it was made from
            ([`BackpackForCausalLM.from_backbone`]), and the head then does to logits what that model's own does.
        lm_head_bias (`bool`, *optional*, defaults to `False`):
            Whether the head has a bias.
        sense_scale (`float`, *optional*, defaults to 1.0):
            Factor of the mixture. The Levanter family of checkpoints was trained with 1 / K.
        tie_sense_embeddings (`bool`, *optional*, defaults to `True`):
            Whether the sense network reads the backbone's word embeddings. With `False` it has its own copy, which
            keeps the senses constant while the word embeddings (tied to the head) go on learning.
        hidden_act (`str`, *optional*, defaults to `"gelu_new"`):
            Activation of the sense network.
        resid_pdrop (`float`, *optional*, defaults to 0.1):
            Dropout after each MLP of the sense network.
        embd_pdrop (`float`, *optional*, defaults to 0.1):
            Dropout of the embeddings that enter the sense network.
        layer_norm_epsilon (`float`, *optional*, defaults to 1e-5):
            Epsilon of the sense network's layer norms.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of initial weights.
        mixture_mode (`str`, *optional*, defaults to `"full"`):
            What of the mixture is kept: `"full"`; `"top_k"`, the `mixture_top_k` contributions of largest norm at each
            position; or `"uniform"`, the mean over senses instead of their sum. For ablations at inference.
        mixture_top_k (`int`, *optional*, defaults to 1):
            Senses kept by `mixture_mode="top_k"`.
        mixture_norm_matched (`bool`, *optional*, defaults to `False`):
            Whether an ablated mixture is rescaled to the norm of the full one, so that the ablation does not also
            change the scale of the logits.
        use_cache (`bool`, *optional*, defaults to `True`):
            Whether the model returns keys, values and senses for fast decoding.
        tie_word_embeddings (`bool`, *optional*):
            Whether the head shares the backbone's word embeddings. Defaults to `True`, with `residual_gate` to what
            the backbone's configuration says.
        bos_token_id, eos_token_id, pad_token_id (`int`, *optional*):
            Default to the backbone's.

    Raises:
        `ValueError`: for an unknown field, a backbone field given beside `backbone_config`, a backbone that is not
        a decoder, an unknown `mixture_mode`, or sizes that make no Backpack.

    ```python
    >>> from transformers import GPT2Config, LlamaConfig
    >>> from modeling_backpack import BackpackConfig

    >>> small = BackpackConfig()
    >>> micro = BackpackConfig(backbone_config=GPT2Config(vocab_size=8192, n_embd=128, n_layer=4, n_head=4))
    >>> llama = BackpackConfig(backbone_config=LlamaConfig(hidden_size=256, num_hidden_layers=4))
    ```
    """

    model_type = "backpack"
    sub_configs = {"backbone_config": AutoConfig}
    # The cache under both names that transformers has had for it.
    keys_to_ignore_at_inference = [
        "past_key_values",
        "cache",
        "last_hidden_state",
        "backbone_last_hidden_state",
        "mixture",
    ]

    backbone_config: dict | PreTrainedConfig | None = None
    num_senses: int = 16
    sense_intermediate_scale: int = 4
    residual_gate: bool = False
    lm_head_bias: bool = False
    sense_scale: float | int = 1.0
    tie_sense_embeddings: bool = True
    hidden_act: str = "gelu_new"
    resid_pdrop: float | int = 0.1
    embd_pdrop: float | int = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    mixture_mode: str = "full"
    mixture_top_k: int = 1
    mixture_norm_matched: bool = False
    use_cache: bool = True
    tie_word_embeddings: bool | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs):
        kwargs.pop("text_config", None)  # see `to_dict`
        self._refuse_unknown(kwargs)
        if self.backbone_config is None:
            self.backbone_config = {
                "vocab_size": 50264,
                "n_positions": 512,
                "scale_attn_by_inverse_layer_idx": True,
            }
        if isinstance(self.backbone_config, dict):
            backbone = dict(self.backbone_config)
            self.backbone_config = AutoConfig.for_model(backbone.pop("model_type", "gpt2"), **backbone)
        refuse_unfit_backbone(self.backbone_config)
        if self.tie_word_embeddings is None:
            self.tie_word_embeddings = not self.residual_gate or self.backbone_config.tie_word_embeddings
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(self.backbone_config, name, None))
        super().__post_init__(**kwargs)
        # All of them, whichever class is saved: a folder then loads with every Auto class.
        self.auto_map = {
            "AutoConfig": "configuration_backpack.BackpackConfig",
            "AutoModel": "modeling_backpack.BackpackModel",
            "AutoModelForCausalLM": "modeling_backpack.BackpackForCausalLM",
            "AutoModelForSequenceClassification": "modeling_backpack.BackpackForSequenceClassification",
        }
        self.validate_senses()

    @staticmethod
    def _refuse_unknown(kwargs):
        misplaced = sorted(BACKBONE_KEYS & kwargs.keys())
        if misplaced:
            raise ValueError(
                f"BackpackConfig got the backbone field(s) {misplaced} beside `backbone_config`. A Backpack keeps "
                "every field of its decoder in one place: pass them inside `backbone_config`, e.g. "
                "`BackpackConfig(backbone_config=GPT2Config(n_embd=128))`."
            )
        unknown = sorted(kwargs.keys() - BASE_KEYS - GENERATION_KEYS)
        if unknown:
            known = sorted(BackpackConfig.__annotations__)
            raise ValueError(f"BackpackConfig got the unknown field(s) {unknown}. Known fields: {known}.")

    def validate_senses(self):
        """Raises `ValueError` for a mixture, a number of senses or a scale that make no Backpack."""
        if self.mixture_mode not in MIXTURE_MODES:
            raise ValueError(f"`mixture_mode` must be one of {MIXTURE_MODES}, got {self.mixture_mode!r}.")
        if not 1 <= self.num_senses <= self.hidden_size:
            raise ValueError(
                f"`num_senses` must lie between 1 and the backbone's hidden size ({self.hidden_size}), because each "
                f"sense needs at least one dimension of the weight network; got {self.num_senses}."
            )
        if not 1 <= self.mixture_top_k <= self.num_senses:
            raise ValueError(
                f"`mixture_top_k` must lie between 1 and `num_senses` ({self.num_senses}), got {self.mixture_top_k}."
            )
        if self.sense_intermediate_scale < 1:
            raise ValueError(f"`sense_intermediate_scale` must be 1 or more, got {self.sense_intermediate_scale}.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"`hidden_act` must be one of {sorted(ACT2FN)}, got {self.hidden_act!r}.")
        if self.sense_scale <= 0:
            raise ValueError(f"`sense_scale` must be positive (1.0, or 1 / num_senses), got {self.sense_scale}.")

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """
        Build a configuration from `config_dict`, in our layout or in the flat published one.

        Unknown fields of a file are kept as attributes, with a warning: a later release may have written them.
        """
        config_dict = {name: value for name, value in config_dict.items() if name != "text_config"}
        if is_flat_layout(config_dict):
            config_dict = nest_published_config(config_dict)
        known = cls.__dataclass_fields__.keys() | BASE_KEYS | BACKBONE_KEYS | GENERATION_KEYS
        unknown = {name: value for name, value in config_dict.items() if name not in known}
        built = super().from_dict({k: v for k, v in config_dict.items() if k not in unknown}, **kwargs)
        if unknown:
            logger.warning_once(f"The configuration has the unknown field(s) {sorted(unknown)}, which have no effect.")
            config = built[0] if isinstance(built, tuple) else built
            for name, value in unknown.items():
                setattr(config, name, value)
        return built

    def to_dict(self):
        """The fields, and the backbone's as `text_config` too, where PEFT's prompt learning looks for sizes."""
        fields, padding = super().to_dict(), getattr(self.backbone_config, "pad_token_id", None)
        if padding is not None:  # a trainer gives the backbone that of its tokenizer
            fields["pad_token_id"] = padding
        return fields | {"text_config": self.backbone_config.to_dict()}

    def to_diff_dict(self):
        return {name: value for name, value in super().to_diff_dict().items() if name != "text_config"}

    def get_text_config(self, decoder=None, encoder=None):
        """The backbone's configuration: generation and caches size themselves by it."""
        return self.backbone_config

    @property
    def hidden_size(self):
        """Size of word embeddings, senses and final states: inside, OPT-350m has another."""
        return getattr(self.backbone_config, "word_embed_proj_dim", None) or self.backbone_config.hidden_size

    vocab_size = of_backbone("vocab_size")
    num_hidden_layers = of_backbone("num_hidden_layers")
    num_attention_heads = of_backbone("num_attention_heads")
    max_position_embeddings = of_backbone("max_position_embeddings")


__all__ = ["BackpackConfig"]
