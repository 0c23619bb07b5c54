"""Models whose weights are sharded over processes (FSDP)."""

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers.integrations import is_fsdp_enabled
from transformers.utils import is_accelerate_available

from .parts import has_updates, trained_in_part


SHARDS_FROM = "1.15.0"
LOADED_BY_ONE = (
    "`fsdp_cpu_ram_efficient_loading` is true, which leaves the weights to the first process until training begins, "
    "but every process reads or evaluates the base model before. Set it to false."
)


def whole_copy(model, model_class, device):
    """A copy of a sharded model with whole weights on this process; all processes must call it together.

    Sharded weights are gathered anew in every forward pass, in which all processes have to take part. Evaluation
    gives processes different numbers of batches and reads weights outside the forward pass, so it needs a whole model.

    Args:
        model (`PreTrainedModel`): Sharded, or not sharded yet.
        model_class (`type`): Its class before it was sharded.
        device (`torch.device`): Where the copy goes.
    """
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    copy = model_class(model.config)
    copy.load_state_dict(weights)
    return copy.to(device)


def check_loading() -> None:
    """`ValueError` where other processes than the first would read placeholders instead of a model's weights."""
    if is_fsdp_enabled():  # with `cpu_ram_efficient_loading`, whose name this is
        raise ValueError(LOADED_BY_ONE)


def check_sharding(model, args, plugin):
    """
    Refuses what cannot be done with weights that are spread over processes.

    Args:
        model (`PreTrainedModel`): The model, not sharded yet.
        args ([`SensiaConfig`]): Settings of the run.
        plugin (`accelerate.FullyShardedDataParallelPlugin`): How it is to be sharded.

    Raises:
        `ValueError`: what cannot be done.
    """
    if not is_accelerate_available(SHARDS_FROM):  # earlier ones leave the head in pieces, or a tied one in two groups
        raise ValueError(f"FSDP wants accelerate {SHARDS_FROM} or newer: `pip install -U accelerate`, or use DDP.")
    if has_updates(model) or trained_in_part(model):
        raise ValueError(
            "`train` names parts of the model, but FSDP shards the weights that updates are merged into, and rows of "
            "new words with the others. Use DDP, or set `train` to 'all'."
        )
    if getattr(plugin, "fsdp_version", 1) != 2:
        raise ValueError(
            "FSDP 1 wraps the model, so that no part of it can be read where senses are measured: use version 2 "
            '(`fsdp_version: 2` in accelerate\'s configuration, or `"version": 2` in `fsdp_config`).'
        )
    if plugin.cpu_ram_efficient_loading:
        raise ValueError(LOADED_BY_ONE)
    if args.polish_freeze == "vectors":
        raise ValueError(
            "`polish_freeze` is 'vectors', which adds weights while training runs, but FSDP shards them at the start. "
            "Use 'modules', or DDP."
        )
