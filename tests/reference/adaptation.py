"""A training step as the published trainer computes it: every tensor kept, logits of both sides, one direction."""

import torch
from torch.nn import functional as F


def published_loss(model, batch, weights, taus, pool_temperature=0.7, label_smoothing=0.05):
    """
    Args:
        model ([`PublishedBackpack`])
        batch: `source_input_ids`, `source_attention_mask`, the same of `target`, and `labels`, each `(B, T)`.
        weights: w_sense, w_context, w_lm.
        taus: tau_sense, tau_context.
    """
    sense, context = {}, {}
    for side in ("source", "target"):
        ids, mask = batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"]
        senses, alpha, contributions = model.states(ids, mask)
        mixture = contributions.sum(dim=1)
        logits = model.lm_head(mixture)  # of both sides, though only the target's are read
        again = alpha @ senses  # pooling computes the contributions a second time
        probs = torch.softmax(again.norm(dim=-1) / pool_temperature, dim=1)
        tokens = (probs.unsqueeze(-1) * again).sum(dim=1)
        pooled = (tokens * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        sense[side] = F.normalize(pooled, dim=-1)
        last = mask.sum(dim=1) - 1
        context[side] = F.normalize(mixture[torch.arange(len(ids)), last], dim=-1)
    lm = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), label_smoothing=label_smoothing
    )
    positives = torch.arange(len(ids))
    sense_loss = F.cross_entropy(sense["source"] @ sense["target"].T / taus[0], positives)
    context_loss = F.cross_entropy(context["source"] @ context["target"].T / taus[1], positives)
    return weights[0] * sense_loss + weights[1] * context_loss + weights[2] * lm
