"""Parameter-efficient adaptation: low-rank updates of the backbone (Hu et al., 2022), and of the senses if wanted.

A weight W becomes W + (alpha / r) B A with A `(r, d_in)` and B `(d_out, r)`; only A and B are trained, and B starts at
zero. Word embeddings and layer norms stay as they are. After training the product is added to W, so that what is saved
and published is an ordinary Backpack.
"""

from dataclasses import dataclass, field

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..utils.ranges import BELOW_ONE, COUNT, POSITIVE, check_ranges


SENSE_MODULES = ("sense_network", "sense_weight_net")
SENSE_TRAININGS = ("full", "lora")


@dataclass
class LoraSettings:
    """Whether and how weights are updated by low-rank products instead of in full."""

    use_peft: bool = field(
        default=False, metadata={"help": "Train low-rank updates (LoRA) of the backbone; merged before saving."}
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of the updates."})
    lora_alpha: float = field(default=32.0, metadata={"help": "Updates are scaled by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout of what enters the updates."})
    lora_senses: str = field(
        default="full", metadata={"help": "How the sense and sense-weight networks are trained: full, or lora."}
    )

    def __post_init__(self):
        check_ranges(self, {"lora_r": COUNT, "lora_alpha": POSITIVE, "lora_dropout": BELOW_ONE})
        if self.lora_senses not in SENSE_TRAININGS:
            raise ValueError(f"`lora_senses` is {self.lora_senses!r}, but must be one of {SENSE_TRAININGS}.")


def add_lora(model, settings):
    """
    Put low-rank updates on every matrix of the backbone, and on those of the senses with `lora_senses="lora"`.

    Args:
        model ([`BackpackForCausalLM`]): The model to adapt; its weights are not changed.
        settings ([`LoraSettings`]): With `use_peft=False` the model is returned as it is.

    Returns:
        A `peft.PeftModel` of the same outputs; [`merge_lora`] makes a Backpack of it again.
    """
    if not settings.use_peft:
        return model
    if not hasattr(model, "backpack"):
        raise ValueError(
            f"`use_peft` is for Backpacks; {type(model).__name__} is a baseline, which is trained in full."
        )
    from peft import LoraConfig, get_peft_model  # an extra

    full = settings.lora_senses == "full"
    matrices = {name: type(m) for name, m in model.backpack.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    names = [f"backpack.{name}" for name in matrices if not (full and name.startswith(SENSE_MODULES))]
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=names,
        modules_to_save=list(SENSE_MODULES) if full else None,
        fan_in_fan_out=Conv1D in {matrices[name.removeprefix("backpack.")] for name in names},
    )
    return get_peft_model(model, config)


def merge_lora(model):
    """The Backpack that a model with low-rank updates amounts to; any other model as it is."""
    return model.merge_and_unload() if is_lora(model) else model


def is_lora(model):
    """Whether `model` has low-rank updates that are not merged."""
    # Not `peft_config`, which the model inside has too.
    return hasattr(model, "merge_and_unload")
