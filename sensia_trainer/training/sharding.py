"""Models whose weights are sharded over processes (FSDP)."""

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict


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
