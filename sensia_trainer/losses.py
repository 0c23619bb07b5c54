"""Symmetric InfoNCE (paper, Eq. 1-3) and its gather across processes."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from .representations import at_least_float32


def info_nce(
    source: Tensor,
    target: Tensor,
    temperature: float,
    *,
    symmetric: bool = True,
    gather: bool = False,
    duplicates: Tensor | None = None,
) -> Tensor:
    """InfoNCE of translation pairs: row i of `source` and row i of `target` belong together (Eq. 1-3).

    Computed in float32 (float64 for float64 input) whatever the input or the autocast dtype.

    Args:
        source (`torch.Tensor` of shape `(B, d)`): Sentence vectors of one side; L2-normalised here.
        target (`torch.Tensor` of shape `(B, d)`): Sentence vectors of the other side; L2-normalised here.
        temperature (`float`): tau of Eq. 1 and 2, positive.
        symmetric (`bool`, *optional*, defaults to `True`):
            Mean of both directions (Eq. 3). `False` keeps source -> target only (Eq. 1), as the published code does.
        gather (`bool`, *optional*, defaults to `False`):
            Take the negatives from the batches of all W processes, with gradients through all of them. Every process
            returns the mean over its own B pairs: the mean over the processes is the loss of the global batch, and
            gradients averaged over processes (what DDP and FSDP do) are its gradients. All processes must call it
            with the same B.
        duplicates (`torch.Tensor` of shape `(B, N)`, bool, *optional*):
            `True` where pair j is not a negative of pair i, see [`duplicate_mask`]; N is B, or W B with `gather`.

    Returns:
        `torch.Tensor`: scalar, in nats.

    Raises:
        ValueError: shapes that do not match, a temperature that is not positive, or a single pair (no negatives).
    """
    if source.ndim != 2 or source.shape != target.shape:
        raise ValueError(
            f"`source` and `target` must both have shape (B, d), but have {tuple(source.shape)} and "
            f"{tuple(target.shape)}; pass one vector for each sentence of each pair."
        )
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature}, but must be positive; the paper uses 0.05 and 0.07.")
    with torch.autocast(source.device.type, enabled=False):
        source, target = F.normalize(at_least_float32(source), dim=-1), F.normalize(at_least_float32(target), dim=-1)
        sources, targets = (gather_with_gradient(source), gather_with_gradient(target)) if gather else (source, target)
        if len(targets) < 2:
            raise ValueError(
                "InfoNCE got a batch of 1 pair and so no negatives; set `per_device_train_batch_size` to 2 or more."
            )
        offset = _rank() * len(source) if gather else 0
        labels = torch.arange(offset, offset + len(source), device=source.device)
        loss = _cross_entropy(source @ targets.T / temperature, labels, duplicates)
        if symmetric:
            loss = 0.5 * (loss + _cross_entropy(target @ sources.T / temperature, labels, duplicates))
    return loss


def _cross_entropy(logits: Tensor, labels: Tensor, duplicates: Tensor | None) -> Tensor:
    if duplicates is not None:
        logits = logits.masked_fill(duplicates, float("-inf"))
    return F.cross_entropy(logits, labels)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Rows of all processes, in rank order; the gradient of every process reaches the rows it came from.

    Args:
        tensor (`torch.Tensor` of shape `(B, ...)`): The same shape on every process.

    Returns:
        `torch.Tensor` of shape `(W * B, ...)`; `tensor` itself where there is one process.

    Raises:
        ValueError: on every process, when B differs between processes.
    """
    if _world_size() == 1:
        return tensor
    rows = gather_rows(torch.tensor([len(tensor)], device=tensor.device)).tolist()
    if len(set(rows)) > 1:
        raise ValueError(
            f"The processes hold batches of {rows} rows, but a gathered loss needs the same number on each; drop the "
            "last incomplete batch (`dataloader_drop_last=True`)."
        )
    return _GatherWithGradient.apply(tensor)


def gather_rows(tensor: Tensor) -> Tensor:
    """Rows of all processes, in rank order, without gradient; shapes as in [`gather_with_gradient`]."""
    if _world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(_world_size())]
    dist.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts)


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        return gather_rows(tensor)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        # Every process used every row, so a row's gradient is the sum over processes; each keeps that of its own rows.
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad.narrow(0, _rank() * ctx.rows, ctx.rows)


def duplicate_mask(source_keys: Tensor, target_keys: Tensor, *, gather: bool = False) -> Tensor:
    """Pairs that share a sentence: a copy of the right answer must not count as a wrong one.

    Args:
        source_keys (`torch.Tensor` of shape `(B,)`, int64): A key of each source sentence, see [`sentence_keys`].
        target_keys (`torch.Tensor` of shape `(B,)`, int64): A key of each target sentence.
        gather (`bool`, *optional*, defaults to `False`): Compare with the pairs of all W processes.

    Returns:
        `torch.Tensor` of shape `(B, B)` or, with `gather`, `(B, W * B)`, bool: `True` at (i, j), i and j different
        pairs, when their source or their target sentences are the same.
    """
    offset = _rank() * len(source_keys) if gather else 0
    keys = torch.stack([source_keys, target_keys], dim=1)
    all_keys = gather_rows(keys) if gather else keys
    same = (keys[:, None] == all_keys[None]).any(dim=-1)
    own = torch.arange(len(keys), device=keys.device)
    same[own, own + offset] = False
    return same


def sentence_keys(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """A 64-bit key of each row's tokens, the same wherever and however far the row is padded.

    Args:
        input_ids (`torch.Tensor` of shape `(B, T)`, int64)
        attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for tokens, 0 for padding.

    Returns:
        `torch.Tensor` of shape `(B,)`, int64. Equal rows have equal keys; different rows collide with probability
        about 2^-64.
    """
    mask = attention_mask.long()
    value = _mix(mask.cumsum(dim=1)) * (input_ids + 1)  # int64 products wrap around, which a hash may
    return (_mix(value) * mask).sum(dim=1)


def _mix(x: Tensor) -> Tensor:
    # The finaliser of splitmix64; the shifts are logical ones, so the sign bits they drag in are masked off.
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
