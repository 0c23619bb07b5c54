"""Symmetric InfoNCE (paper, Eq. 1-3) with its gather across processes, and next-token cross-entropy in blocks."""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from .representations import at_least_float32


# Largest block of logits that `next_token_loss` ever holds, in bytes of float32.
LOGITS_BUDGET = 64 * 2**20


def info_nce(
    source: Tensor,
    target: Tensor,
    temperature: float,
    *,
    symmetric: bool = True,
    hard_negative_weight: float = 0.0,
    noisy_pair_exponent: float = 0.0,
    sentences: Tensor | None = None,
    gather: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """InfoNCE of translation pairs: row i of `source` and row i of `target` belong together (Eq. 1-3).

    Computed in float32 (float64 for float64 input) whatever the input or the autocast dtype.

    Args:
        source (`torch.Tensor` of shape `(B, d)`): Sentence vectors of one side; L2-normalised here.
        target (`torch.Tensor` of shape `(B, d)`): Sentence vectors of the other side; L2-normalised here.
        temperature (`float`): tau of Eq. 1 and 2, positive.
        symmetric (`bool`, *optional*, defaults to `True`):
            Mean of both directions (Eq. 3). `False` keeps source -> target only (Eq. 1), as the published code does.
        hard_negative_weight (`float`, *optional*, defaults to 0.0):
            beta of the weights that negatives get, see [`harden`]; 0: all count alike.
        noisy_pair_exponent (`float`, *optional*, defaults to 0.0):
            q, from 0 to less than 1: the loss of a pair is (1 - p^q) / q instead of -log p, p being what InfoNCE
            gives to its translation, so that a pair whose sides do not resemble each other moves the model by p^q of
            what it would (Zhang and Sabuncu, 2018, Eq. 6 and 8). 0: -log p.
        sentences (`torch.LongTensor` of shape `(B, 2)`, *optional*):
            What tells the sentences of each side apart. Pairs that have one of them in common (the same sentence in
            two other languages, an interface string twice) are no negatives of each other; without, they are, as in
            Eq. 1 and 2.
        gather (`bool`, *optional*, defaults to `False`):
            Take the negatives from the batches of all W processes, with gradients through all of them. Every process
            returns the mean over its own B pairs: the mean over the processes is the loss of the global batch, and
            gradients averaged over processes (what DDP and FSDP do) are its gradients. All processes must call it
            with the same B.
        reduction (`str`, *optional*, defaults to `"mean"`): `"none"` for the loss of every pair.

    Returns:
        `torch.Tensor`: scalar, in nats; `(B,)` without reduction.

    Raises:
        `ValueError`: shapes that do not match, a temperature that is not positive, another reduction, or a single pair
        (no negatives).
    """
    if source.ndim != 2 or source.shape != target.shape:
        raise ValueError(
            f"`source` and `target` must both have shape (B, d), but have {tuple(source.shape)} and "
            f"{tuple(target.shape)}; pass one vector for each sentence of each pair."
        )
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature}, but must be positive; the paper uses 0.05 and 0.07.")
    if reduction not in ("mean", "none"):
        raise ValueError(f"`reduction` is {reduction!r}, but must be 'mean' or 'none'.")
    with torch.autocast(source.device.type, enabled=False):
        source, target = F.normalize(at_least_float32(source), dim=-1), F.normalize(at_least_float32(target), dim=-1)
        sources, targets = (gather_with_gradient(source), gather_with_gradient(target)) if gather else (source, target)
        if len(targets) < 2:
            raise ValueError(
                "InfoNCE got a batch of 1 pair and so no negatives; set `per_device_train_batch_size` to 2 or more."
            )
        offset = _rank() * len(source) if gather else 0
        labels = torch.arange(offset, offset + len(source), device=source.device)
        same = None if sentences is None else _share_a_sentence(sentences, labels, gather)
        terms = []
        for queries, candidates in [(source, targets), (target, sources)][: 1 + symmetric]:
            scores = queries @ candidates.T / temperature
            if same is not None:
                scores = scores.masked_fill(same, -torch.inf)
            if hard_negative_weight:
                scores = harden(scores, labels, hard_negative_weight)
            nll = F.cross_entropy(scores, labels, reduction="none")
            if noisy_pair_exponent:
                nll = -torch.expm1(-noisy_pair_exponent * nll) / noisy_pair_exponent
            terms.append(nll.mean() if reduction == "mean" else nll)
    return sum(terms) / len(terms)


def _share_a_sentence(sentences: Tensor, labels: Tensor, gather: bool) -> Tensor:
    """`(B, N)`: which other pair of the global batch has the source or the target of each of these, on either side: of
    several pairs of languages, the source of one may be the target of another."""
    everyone = gather_rows(sentences) if gather else sentences
    same = (sentences[:, None, :, None] == everyone[None, :, None, :]).any((2, 3))
    return same & ~F.one_hot(labels, len(everyone)).bool()


def harden(scores: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Scores whose negatives count by exp(beta s_ij), which is more for those that are near (Robinson et al., 2021,
    "Contrastive Learning with Hard Negative Samples", Eq. 3 and 4, without their correction for false negatives).

    In the sum of InfoNCE's denominator, exp(s_ij) gets the weight w_ij = exp(beta s_ij) / mean_k exp(beta s_ik) over
    the negatives of row i, hence s_ij the summand log w_ij. The mean of the weights of a row is 1.

    Args:
        scores (`torch.Tensor` of shape `(B, N)`): Similarities divided by the temperature; -inf: no negative.
        labels (`torch.Tensor` of shape `(B,)`): The column of each row's translation, which keeps its score.
        beta (`float`): Concentration; 0 leaves the scores as they are.

    Returns:
        `torch.Tensor` of shape `(B, N)`.
    """
    translation = F.one_hot(labels, scores.shape[1]).bool()
    others = translation | scores.isinf()
    others &= ~others.all(1, keepdim=True)  # a row without negatives has no mean
    number = (~others).sum(1, keepdim=True).to(scores.dtype)
    log_mean = (beta * scores).masked_fill(others, -torch.inf).logsumexp(1, keepdim=True) - number.log()
    return torch.where(translation, scores, (1 + beta) * scores - log_mean)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Rows of all processes, in rank order; the gradient of every process reaches the rows it came from.

    Args:
        tensor (`torch.Tensor` of shape `(B, ...)`): The same shape on every process.

    Returns:
        `torch.Tensor` of shape `(W * B, ...)`; `tensor` itself where there is one process.

    Raises:
        `ValueError`: on every process, when B differs between processes.
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


class Head(NamedTuple):
    """
    How a language model makes logits of its last state h: `softcap * tanh(scale * (h W^T + bias) / softcap)`.

    Args:
        weight (`torch.Tensor` of shape `(V, d)`): W; the word embeddings where they are tied.
        bias (`torch.Tensor` of shape `(V,)`, *optional*): Added to the logits (Phi).
        scale (`float`, *optional*, defaults to 1.0): Factor of the logits (Cohere, Granite).
        softcap (`float`, *optional*): Logits stay between minus this and this (Gemma); `None`: as they are.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, states: Tensor) -> Tensor:
        """Logits `(..., V)` of states `(..., d)`."""
        logits = F.linear(states, self.weight, self.bias) * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def head_of(model) -> Head:
    """The [`Head`] of a causal language model of transformers, from its output embeddings and its configuration. A
    Backpack without a gate predicts from its mixture, by the bare head, whatever its backbone's own was like.

    Raises:
        `ValueError`: for a head with low-rank updates beside its weights.
    """
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    if hasattr(head, "lora_A"):
        raise ValueError(
            "The head has low-rank updates of PEFT, which the loss would leave out: take `lm_head` out of "
            "`target_modules`, or train it in full (`modules_to_save=['lm_head']`)."
        )
    if getattr(model.config, "residual_gate", None) is False:
        return Head(head.weight, getattr(head, "bias", None))
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere multiplies
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite divides
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(head.weight, getattr(head, "bias", None), float(scale), softcap)


@torch.no_grad()
def check_head(model) -> None:
    """
    Refuses a model whose logits are not what [`head_of`] makes of its last state: the loss would be another model's.

    Args:
        model (`PreTrainedModel`): A causal language model, not sharded yet.

    Raises:
        `ValueError`: such a model.
    """
    was_training = model.training
    model.eval()
    ids = torch.arange(3, device=model.device)[None]
    outputs = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    model.train(was_training)
    logits, expected = head_of(model).logits(last_state(outputs)), outputs.logits
    tolerance = (1e-3 if expected.dtype in (torch.float32, torch.float64) else 3e-2) * expected.abs().max()
    if logits.shape != expected.shape or not (logits - expected).abs().max() <= tolerance:
        raise ValueError(
            f"The logits of {type(model).__name__} are not its last state times the head, with a bias, a scale and "
            "soft-capping where its configuration names them. The loss would leave something out. Take another "
            "model, such as a GPT-2 or a Llama."
        )


def last_state(outputs) -> Tensor:
    """What the head of a language model reads, `(B, T, d)`: a Backpack's outputs name it, those of other models hold
    it as the last of their `hidden_states`."""
    state = getattr(outputs, "last_hidden_state", None)
    return outputs.hidden_states[-1] if state is None else state


def next_token_loss(
    states: Tensor,
    head: Head,
    shift_labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    divisor: Tensor | float | None = None,
) -> Tensor:
    """Next-token cross-entropy in nats, with logits only where a label wants them and no more than `LOGITS_BUDGET` of
    them at once. Gradients are computed with the loss; the states may be of any backbone and any precision.

    Args:
        states (`torch.Tensor` of shape `(..., d)`): What the head reads.
        head ([`Head`]): See [`head_of`].
        shift_labels (`torch.Tensor` of shape `(...)`, int64): The token that each position predicts; -100: none.
        label_smoothing (`float`, *optional*, defaults to 0.0): Share epsilon of each target that is spread evenly
            over the vocabulary (Section 2.1).
        divisor (`torch.Tensor` or `float`, *optional*): Divides the sum, if it is 1 or more; the number of labels by
            default.

    Returns:
        `torch.Tensor`: scalar, float32 (float64 for float64 input); zero where there is no label.
    """
    return next_token_losses(states, head, shift_labels, label_smoothing=label_smoothing, divisor=divisor)[0]


def next_token_losses(states, head, shift_labels, *, label_smoothing=0.0, divisor=None) -> tuple[Tensor, Tensor]:
    """[`next_token_loss`], and the cross-entropies that it is the sum of, `(M,)`, one for each label in their order,
    without a gradient of their own."""
    labelled = shift_labels != -100
    targets = shift_labels[labelled]
    total, of_label = _LinearCrossEntropy.apply(
        states[labelled], head.weight, head.bias, targets, label_smoothing, head.scale, head.softcap
    )
    divisor = len(targets) if divisor is None else divisor
    return total / (divisor.clamp_min(1) if isinstance(divisor, Tensor) else max(divisor, 1)), of_label


class _LinearCrossEntropy(torch.autograd.Function):
    """
    Sum of the label-smoothed cross-entropies of a head's logits, block by block, and each of them, without a gradient.

    The gradient is computed with the loss, because each block of logits is then needed once and dropped.
    """

    @staticmethod
    def forward(ctx, states, weight, bias, labels, label_smoothing, scale, softcap):
        compute_dtype = states.dtype
        if torch.is_autocast_enabled(states.device.type):
            compute_dtype = torch.get_autocast_dtype(states.device.type)
        vocabulary = len(weight)
        wanted = ctx.needs_input_grad[:3]
        grads = [torch.zeros_like(t) if want else None for t, want in zip((states, weight, bias), wanted, strict=True)]
        grad_states, grad_weight, grad_bias = grads
        rows = max(1, LOGITS_BUDGET // (4 * vocabulary))
        loss = states.new_zeros((), dtype=torch.promote_types(states.dtype, torch.float32))
        of_label = loss.new_zeros(len(labels))
        with torch.autocast(states.device.type, enabled=False):
            weight = weight.to(compute_dtype)
            bias = None if bias is None else bias.to(compute_dtype)
            for start in range(0, len(labels), rows):
                block, target = states[start : start + rows].to(compute_dtype), labels[start : start + rows, None]
                logits = F.linear(block, weight, bias).to(loss.dtype)
                if scale != 1:
                    logits = logits * scale
                if softcap is not None:
                    bounded = torch.tanh(logits / softcap)
                    logits = softcap * bounded
                log_probs = torch.log_softmax(logits, dim=-1)
                nll = -(1 - label_smoothing) * log_probs.gather(1, target)[:, 0]
                if label_smoothing:
                    nll -= label_smoothing / vocabulary * log_probs.sum(1)
                of_label[start : start + rows] = nll
                loss += nll.sum()
                if not any(wanted):
                    continue
                # d loss / d logits = softmax - ((1 - eps) onehot + eps / V)
                grad_logits = log_probs.exp_().sub_(label_smoothing / vocabulary)
                grad_logits.scatter_add_(1, target, grad_logits.new_full(target.shape, label_smoothing - 1.0))
                if softcap is not None:
                    grad_logits *= 1 - bounded**2
                if scale != 1:
                    grad_logits *= scale
                up = None
                if compute_dtype == torch.float16:
                    up = _room_above(grad_logits, block, weight)
                    grad_logits *= up
                grad_logits = grad_logits.to(compute_dtype)
                if grad_states is not None:
                    grad_states[start : start + rows] = _lowered(grad_logits @ weight, grad_states, up)
                if grad_bias is not None:
                    grad_bias += _lowered(grad_logits.sum(0), grad_bias, up)
                if grad_weight is None:
                    continue
                if compute_dtype == grad_weight.dtype and up is None:
                    grad_weight.addmm_(grad_logits.T, block)
                else:
                    grad_weight += _lowered(grad_logits.T @ block, grad_weight, up)
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(of_label)
        return loss, of_label

    @staticmethod
    def backward(ctx, grad_loss, _):
        grads = (None if grad is None else grad * grad_loss.to(grad.dtype) for grad in ctx.saved_tensors)
        return *grads, None, None, None, None


def _room_above(grad_logits, block, weight) -> Tensor:
    """
    The largest power of two by which gradients of logits can be multiplied without an overflow of their float16
    products. Those of most words, softmax - eps / V, are some 1e-6 large, where float16 has steps of 6e-8; the scale
    of the loss comes too late for what is computed with it.
    """
    sizes = grad_logits.abs()
    of_weight = sizes.sum(0).max() * block.abs().max().float().clamp_min(1)
    of_states = sizes.sum(1).max() * weight.abs().max().float().clamp_min(1)
    most = torch.maximum(of_weight, of_states).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.exp2(torch.floor(torch.log2(2.0**15 / most)).clamp(max=15))


def _lowered(product, grad, up) -> Tensor:
    """A product as a part of `grad`, in its precision before it is divided by what its factor was multiplied by."""
    product = product.to(grad.dtype)
    return product if up is None else product / up


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
