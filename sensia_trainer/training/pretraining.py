"""Language models from scratch, or going on from one there is: a Backpack, or the backbone of one alone."""

import inspect

import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from modeling_backpack import BackpackConfig, BackpackForCausalLM

from ..losses import check_head, head_of, last_state, next_token_loss
from ..utils.errors import did_you_mean
from ..utils.models import load_model
from .checkpointing import ResumableTrainer
from .text import check_block_size


def build_model(data, tokenizer):
    """
    The model to train: `data.model`, or a fresh [`BackpackForCausalLM`], or with `senses=False` the causal model of
    its backbone alone. Without a `tokenizer`, which is still to be trained, one that does not know its special tokens.

    Raises:
        `ValueError`: where the model lacks weights, has fewer ids than the tokenizer, or fewer positions than a block.
    """
    if data.model:
        model = load_model(data.model)
    else:
        names = ("bos_token_id", "eos_token_id", "pad_token_id") if tokenizer else ()
        special = {name: getattr(tokenizer, name) for name in names}
        fields = {"vocab_size": data.vocab_size, "n_positions": data.block_size} | special | data.backbone_config
        try:
            kind = fields.pop("model_type", "gpt2")
            refuse_unknown(kind, data.backbone_config)
            backbone_config = AutoConfig.for_model(kind, **fields)
            if data.senses:
                model = BackpackForCausalLM(BackpackConfig(backbone_config=backbone_config, **data.backpack_config))
            else:
                model = AutoModelForCausalLM.from_config(backbone_config)
        except (ValueError, TypeError, KeyError, ZeroDivisionError, StrictDataclassError) as error:
            raise ValueError(
                f"No model can be made of `backbone_config`={data.backbone_config} and `backpack_config`="
                f"{data.backpack_config}: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
    check_block_size(model.config, data.block_size)
    ids = model.config.get_text_config().vocab_size
    if tokenizer and len(tokenizer) > ids:
        raise ValueError(
            f"`tokenizer` needs {len(tokenizer)} ids, but the model has {ids}; name the tokenizer of the model, "
            "or for a fresh model raise `vocab_size`."
        )
    return model


def refuse_unknown(kind: str, fields: dict) -> None:
    """`ValueError` for fields that the configuration of a kind of model (`"gpt2"`) does not have: it would keep them,
    and be one of another size."""
    config = AutoConfig.for_model(kind)
    known = {*config.to_dict(), *config.attribute_map, *inspect.signature(type(config).__init__).parameters}
    for name in sorted({*fields} - known - {"model_type"}):
        raise ValueError(f"a {kind} has no {name!r}.{did_you_mean(name, known)}")


def collate_blocks(rows, senses=True):
    """Blocks as a training batch, for which no logits are wanted: [`PretrainingTrainer`] computes the loss."""
    input_ids = torch.tensor([row["input_ids"] for row in rows])
    batch = {"input_ids": input_ids, "labels": input_ids, "logits_to_keep": input_ids.new_empty(0)}
    return batch if senses else batch | {"output_hidden_states": True}


class PretrainingTrainer(ResumableTrainer):
    """[`ResumableTrainer`] on blocks of text, whose logits are never held at once (see [`next_token_loss`])."""

    def __init__(self, model, args, **kwargs):
        check_head(model)
        super().__init__(model, args, compute_loss_func=self._next_token_loss, **kwargs)

    def _get_num_items_in_batch(self, batch_samples, device):
        # Some releases of the library count, for some models, the first label of each block, which nothing predicts.
        labels = sum(batch["labels"][:, 1:].numel() for batch in batch_samples)
        return labels * (self.args.world_size if self.args.average_tokens_across_devices else 1)

    def _next_token_loss(self, outputs, labels, num_items_in_batch=None):
        shift_labels = F.pad(labels[:, 1:], (0, 1), value=-100)
        with self.accelerator.autocast():
            return next_token_loss(last_state(outputs), head_of(self.model), shift_labels, divisor=num_items_in_batch)
