"""What each sense of a word does to the word that follows."""

from typing import NamedTuple

import torch

from .words import segment_words, word_positions


class SenseEffect(NamedTuple):
    """What one sense of a word changes in the prediction behind a text."""

    sense: int
    weight: float  # alpha_k of the word's tokens where the next word is predicted, summed
    divergence: float  # KL(with the sense || without it), nats
    raised: list[tuple[str, float]]  # words whose logits it raises most, relative to all words
    lowered: list[tuple[str, float]]


@torch.no_grad()
def sense_effect(model, tokenizer, text: str, word: str, *, top_k=10) -> list[SenseEffect]:
    """The effect of every sense of a word on the word that follows a text.

    The sense is left out of the sum that the head reads, sum_k sum_s alpha_k[t, s] S_k[s] (behind the gate, where the
    model has one); what changes in the logits is its effect. Without a soft cap it is linear: the effects of all
    senses of all words add up to the logits of the mixture.

    Args:
        model ([`BackpackForCausalLM`]), tokenizer: Of each other.
        text (`str`): Read up to its end.
        word (`str`): In the text, ignoring case; its last occurrence is meant.
        top_k (`int`, *optional*, defaults to 10): Words shown on each side.

    Returns:
        `list[SenseEffect]`, sense by sense. Logits are compared after their mean is taken off, which no probability
        depends on.

    Raises:
        `ValueError`: If the word is not in the text, the text is longer than the model, or its mixture is ablated.
    """
    if model.config.mixture_mode != "full":
        raise ValueError(
            f"`mixture_mode` of the model is {model.config.mixture_mode!r}, an ablation, but effects are those of "
            "senses in the full mixture: set it to 'full'."
        )
    found = [item for item in segment_words(text) if item.text.casefold() == word.casefold()]
    if not found:
        raise ValueError(f"`word` {word!r} is not in {text!r}; its words are {[w.text for w in segment_words(text)]}.")
    ids, (places,) = word_positions(tokenizer, text, [found[-1]])
    device = model.get_input_embeddings().weight.device
    output = model.backpack(
        input_ids=torch.tensor([ids], device=device), output_senses=True, output_sense_weights=True
    )
    weights = output.sense_weights[0, :, -1, places].float()  # (K, subwords)
    parts = torch.einsum("ks,skd->kd", weights, output.senses[0, places].float()) * model.config.sense_scale
    if model.config.residual_gate:
        parts = parts * model.backpack.residual_gate.weight.float()
    state = output.last_hidden_state[0, -1]
    logits = model.compute_logits(torch.cat([state[None], state - parts.to(state.dtype)])).float()
    log_probs = logits.log_softmax(-1)
    divergences = (log_probs[0].exp() * (log_probs[0] - log_probs[1:])).sum(-1)
    changes = logits[0] - logits[1:]
    changes = changes - changes.mean(dim=-1, keepdim=True)
    effects = []
    for sense, change in enumerate(changes):
        sides = [change.topk(top_k), (-change).topk(top_k)]
        shown = [
            [(tokenizer.decode([i]).strip(), sign * value) for value, i in zip(*map(torch.Tensor.tolist, side))]
            for sign, side in zip((1, -1), sides)
        ]
        effects.append(SenseEffect(sense, weights[sense].sum().item(), divergences[sense].item(), *shown))
    return effects
