"""From model outputs to vectors: sense probabilities, sense and context sentence vectors (paper, Section 2.1).

Notation: senses S (B, T, K, d), sense weights alpha (B, K, T, T) whose rows sum to one over key positions,
contributions c_k[t] = sum_s alpha_k[t, s] S_k[s], sense probabilities pi (B, T, K). Everything is computed in float32
(float64 for float64 input) whatever the input or the autocast dtype. `attention_mask` may be padded on either side.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


DEFINITIONS = ("magnitude", "contextual", "contextual_share", "predictive")
CONTEXT_STATES = ("mixture", "backbone", "combined")
POOLINGS = ("magnitude", "contextual", "mixture")


def sense_probs(
    senses: Tensor,
    *,
    definition: str = "magnitude",
    temperature: float = 1.0,
    sense_weights: Tensor | None = None,
    context: Tensor | None = None,
) -> Tensor:
    """Sense probabilities pi: how much each sense of each token counts.

    A Backpack's sense weights alpha sum to one over positions, separately for each sense, so they hold no distribution
    over senses; these are the ones that can be defined.

    Args:
        senses (`torch.Tensor` of shape `(B, T, K, d)`): Sense vectors S; any leading shape for `"magnitude"`.
        definition (`str`, *optional*, defaults to `"magnitude"`):
            - `"magnitude"`: softmax_k(||S_k|| / temperature), before context (Section 2.1);
            - `"contextual"`: softmax_k(||c_k|| / temperature), after context (the published code);
            - `"contextual_share"`: ||c_k|| / sum_k ||c_k||;
            - `"predictive"`: softmax_k(<context, S_k> / temperature).
        temperature (`float`, *optional*, defaults to 1.0): Softmax temperature; the paper trains with 0.7.
        sense_weights (`torch.Tensor` of shape `(B, K, T, T)`, *optional*): alpha, for the contextual definitions.
        context (`torch.Tensor` of shape `(B, T, d)`, *optional*): The backbone's final state, for `"predictive"`.

    Returns:
        `torch.Tensor` of shape `(B, T, K)`: sums to one over the last axis. Rows at padding positions mean nothing.

    Raises:
        `ValueError`: an unknown definition, a temperature that is not positive, or a tensor the definition lacks.
    """
    _check_choice("definition", definition, DEFINITIONS)
    _check_temperature(temperature)
    with torch.autocast(senses.device.type, enabled=False):
        senses = at_least_float32(senses)
        if definition == "predictive":
            context = at_least_float32(_required("context", context, definition))
            return torch.softmax(torch.einsum("btd,btkd->btk", context, senses) / temperature, dim=-1)
        if definition == "magnitude":
            norms = torch.linalg.vector_norm(senses, dim=-1)
        else:
            norms = _contribution_norms(
                senses, at_least_float32(_required("sense_weights", sense_weights, definition))
            )
        if definition == "contextual_share":
            return norms / norms.sum(dim=-1, keepdim=True)
        return torch.softmax(norms / temperature, dim=-1)


def sense_sentence_vectors(
    senses: Tensor,
    attention_mask: Tensor,
    *,
    pooling: str = "magnitude",
    temperature: float = 1.0,
    sense_weights: Tensor | None = None,
    mixture: Tensor | None = None,
    sentences: Tensor | None = None,
    num_sentences: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Sentence vectors of the sense loss: the mean over non-padding tokens of mixed senses, L2-normalised.

    Args:
        senses (`torch.Tensor` of shape `(B, T, K, d)`): Sense vectors S.
        attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for tokens, 0 for padding.
        pooling (`str`, *optional*, defaults to `"magnitude"`):
            - `"magnitude"`: mean_t sum_k pi_tk S_tk with pi from the senses themselves (Section 2.1);
            - `"contextual"`: mean_t sum_k p_tk c_tk with p from the contributions c (the published code);
            - `"mixture"`: mean_t h_t with h the model's own mixture; pi, as for `"magnitude"`, is only returned.
        temperature (`float`, *optional*, defaults to 1.0): Softmax temperature of pi or p; the paper trains with 0.7.
        sense_weights (`torch.Tensor` of shape `(B, K, T, T)`, *optional*): alpha, for `"contextual"`.
        mixture (`torch.Tensor` of shape `(B, T, d)`, *optional*): h, for `"mixture"`, see [`mixture_of`].
        sentences (`torch.Tensor` of shape `(B, T)`, *optional*): Number of the sentence that each token belongs to,
            where rows hold several ([`~sensia_trainer.training.batches.pack`]); by default a row is a sentence.
        num_sentences (`int`, *optional*): How many there are; by default up to the last that has tokens.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: unit vectors `(B or num_sentences, d)` (zero for a sentence without
        tokens), and the sense probabilities `(B, T, K)` they were pooled with.

    Raises:
        `ValueError`: as [`sense_probs`].
    """
    _check_choice("pooling", pooling, POOLINGS)
    with torch.autocast(senses.device.type, enabled=False):
        senses = at_least_float32(senses)
        definition = "magnitude" if pooling == "mixture" else pooling
        probs = sense_probs(senses, definition=definition, temperature=temperature, sense_weights=sense_weights)
        mask = attention_mask.to(probs.dtype)
        if sentences is None:
            mean = mask / mask.sum(dim=1, keepdim=True).clamp_min(1)
        else:
            num_sentences = int(sentences.max()) + 1 if num_sentences is None else num_sentences
            # Which token belongs to which sentence, (num_sentences, B * T): sums over sentences are matrix products.
            members = (torch.arange(num_sentences, device=mask.device)[:, None] == sentences.flatten()).to(mask.dtype)
            mean = mask / members.sum(dim=1).clamp_min(1)[sentences]
        if pooling == "mixture":
            mixture = at_least_float32(_required("mixture", mixture, pooling)) * mean[..., None]
            vectors = mixture.sum(dim=1) if sentences is None else members @ mixture.flatten(0, 1)
            return F.normalize(vectors, dim=-1), probs.detach()
        weights = probs * mean[..., None]  # (B, T, K)
        if pooling == "contextual":
            # sum_t m_t sum_k p_tk c_tk = sum_k sum_s (sum_t m_t p_tk alpha_k[t, s]) S_k[s]: the contributions are
            # linear in the senses, so their weighted sum is a sum over senses with weights w_k[s], and no (B, T, K, d)
            # tensor of contributions is needed.
            weights = torch.einsum("btk,bkts->bsk", weights, at_least_float32(sense_weights))
        # Of one sentence a row, one product over the joint (position, sense) axis; of several, one for each position.
        # The reshapes are views.
        groups = len(senses) if sentences is None else sentences.numel()
        vectors = torch.bmm(weights.reshape(groups, 1, -1), senses.reshape(groups, -1, senses.shape[-1])).squeeze(1)
        vectors = vectors if sentences is None else members @ vectors
        return F.normalize(vectors, dim=-1), probs


def mixture_of(outputs) -> Tensor:
    """The mixture of senses in a Backpack's outputs, `(B, T, d)`: what the head reads, unless a gate adds it to the
    backbone's state; then it stands beside that sum."""
    mixture = getattr(outputs, "mixture", None)
    return outputs.last_hidden_state if mixture is None else mixture


def context_hidden_state(outputs, context_state: str = "mixture", context_layer: int | None = None) -> Tensor:
    """The state of a Backpack's outputs that context vectors are taken from, `(B, T, d)`.

    Args:
        outputs: [`BackpackCausalLMOutputWithPast`], with `hidden_states` for `context_layer`.
        context_state (`str`): `"mixture"` ([`mixture_of`]), `"backbone"`, from which the senses are weighed, or
            `"combined"`, what the head reads (the mixture, or with a gate its sum with the backbone's state).
        context_layer (`int`, *optional*): The backbone's state after this many blocks instead.

    Raises:
        `ValueError`: an unknown state, or a layer that the backbone does not have.
    """
    _check_choice("context_state", context_state, CONTEXT_STATES)
    if context_layer is not None:
        return hidden_state_after(outputs.hidden_states, context_layer)
    if context_state == "backbone":
        return outputs.backbone_last_hidden_state
    return mixture_of(outputs) if context_state == "mixture" else outputs.last_hidden_state


def hidden_state_after(hidden_states: tuple[Tensor, ...], context_layer: int) -> Tensor:
    """The state after `context_layer` blocks (0: the embeddings). `ValueError` if there are fewer."""
    if not 0 <= context_layer < len(hidden_states):
        raise ValueError(
            f"`context_layer` is {context_layer}, but the model has {len(hidden_states) - 1} blocks; choose 0 (the "
            f"embeddings) to {len(hidden_states) - 1}."
        )
    return hidden_states[context_layer]


def context_sentence_vectors(
    hidden_states: Tensor, attention_mask: Tensor | None = None, *, last: Tensor | None = None
) -> Tensor:
    """Sentence vectors of the context loss: the state of the last non-padding token, L2-normalised (Section 2.1).

    Args:
        hidden_states (`torch.Tensor` of shape `(B, T, d)`): States of a batch of sentences.
        attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for tokens, 0 for padding, on either side.
        last (`torch.Tensor` of shape `(N,)`): Instead: where in the flattened rows each sentence's last token is.

    Returns:
        `torch.Tensor` of shape `(B or N, d)`: unit vectors.
    """
    if last is None:
        if attention_mask is None:
            raise ValueError("Neither `attention_mask` nor `last` is given: one says where sentences end; give one.")
        positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
        rows = torch.arange(len(attention_mask), device=attention_mask.device)
        last = rows * attention_mask.shape[1] + (attention_mask.long() * positions).argmax(dim=1)
    return F.normalize(at_least_float32(hidden_states.flatten(0, 1)[last]), dim=-1)


def sense_entropy(probs: Tensor, attention_mask: Tensor) -> Tensor:
    """Entropy of the sense probabilities in nats, mean over non-padding tokens: 0 (one sense) to ln K (all alike).

    Args:
        probs (`torch.Tensor` of shape `(B, T, K)`): From [`sense_probs`].
        attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for tokens, 0 for padding.

    Returns:
        `torch.Tensor`: scalar.
    """
    with torch.autocast(probs.device.type, enabled=False):
        probs, mask = at_least_float32(probs), attention_mask.bool()
        entropies = -(probs * probs.clamp_min(torch.finfo(probs.dtype).tiny).log()).sum(dim=-1)
        return entropies.masked_fill(~mask, 0.0).sum() / mask.sum().clamp_min(1)


def _contribution_norms(senses: Tensor, sense_weights: Tensor) -> Tensor:
    """||c_k[t]|| as (B, T, K), without the contributions themselves.

    With G_k = S_k S_k^T, the (T, T) Gram matrix of sense k, ||c_k[t]||^2 = ||sum_s alpha_k[t, s] S_k[s]||^2
    = sum_{s, r} alpha_k[t, s] <S_k[s], S_k[r]> alpha_k[t, r] = (alpha_k G_k alpha_k^T)_tt.
    What is kept for the backward pass is (B, K, T, T) instead of (B, K, T, d).
    """
    # Row by row, because one batched product over (B, K) would first copy the senses into (B, K, T, d) order.
    grams = torch.stack([row.transpose(0, 1) @ row.permute(1, 2, 0) for row in senses.unbind(dim=0)])
    squares = ((sense_weights @ grams) * sense_weights).sum(dim=-1)
    # Rounding can leave a vanishing norm slightly below zero, and sqrt has no gradient at zero: below the smallest
    # normal number the gradient is cut instead of infinite.
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt().transpose(1, 2)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is where it has float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def in_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, for sums; on the CPU where its device has no float64 (Apple's MPS)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` is {value!r}, but must be one of {', '.join(map(repr, allowed))}.")


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature}, but must be positive; the paper uses 0.7.")


def _required(name: str, tensor: Tensor | None, definition: str) -> Tensor:
    if tensor is None:
        raise ValueError(
            f"`{name}` is None, but {definition!r} is computed from it; pass it, or use 'magnitude', which needs the "
            "senses only."
        )
    return tensor
