"""What changes while training runs: the polish phase freezes the senses, and their drift is measured."""

import torch
from torch.nn import functional as F
from transformers import TrainerCallback


FROZEN_MODULES = ("sense_network", "sense_weight_net", "sense_embeddings")
# Tokens whose senses are compared with those at the start of polish.
DRIFT_TOKENS = 64


def freeze_senses(backpack, polish_freeze):
    """
    Freeze the sense network and the sense-weight network (Section 2.1, polish phase).

    Args:
        backpack ([`BackpackModel`]): Its parameters stop requiring gradients; their gradients are dropped.
        polish_freeze (`str`): `"modules"`: these two modules. Senses then still drift, because the sense network reads
            the word embeddings, which are tied to the head and go on learning. `"vectors"`: the sense network also
            gets its own constant copy of the embeddings (unless they are frozen anyway), so that senses do not move.
    """
    if polish_freeze == "vectors" and backpack.get_input_embeddings().weight.requires_grad:
        backpack.untie_sense_embeddings()
    for name in FROZEN_MODULES:
        module = getattr(backpack, name)
        if module is not None:
            module.requires_grad_(False)
            module.zero_grad(set_to_none=True)


class PhaseCallback(TrainerCallback):
    """
    Freezes the senses when the polish phase begins, and measures their drift from then on.

    The phase is a function of the step, so a run resumed within polish freezes at its first step. What cannot be
    computed again, the senses at the start of polish, is `reference` and goes into the checkpoint.
    """

    def __init__(self, backpack):
        self.backpack = backpack
        self.sharded_model = None  # set where weights are sharded: they are whole in its forward pass only
        self.reference = None

    def on_step_begin(self, args, state, control, **kwargs):
        phase = args.schedule.phase_at(state.global_step / state.max_steps)
        if phase == "polish" and args.polish_freeze != "none" and self._trainable():
            freeze_senses(self.backpack, args.polish_freeze)
        if phase == "polish" and self.reference is None:
            self.reference = self._senses()

    def drift(self):
        """Mean cosine between senses at the start of polish and now: 1 when they have not moved; `None` before."""
        if self.reference is None:
            return None
        return F.cosine_similarity(self.reference, self._senses(), dim=-1).mean().item()

    def _trainable(self):
        return any(p.requires_grad for p in self.backpack.sense_network.parameters())

    @torch.no_grad()
    def _senses(self):
        training = self.backpack.training
        self.backpack.eval()
        size = self.backpack.config.vocab_size
        tokens = torch.linspace(0, size - 1, min(DRIFT_TOKENS, size)).long().to(self.backpack.device)
        if self.sharded_model is None:
            senses = self.backpack.compute_senses(tokens)
        else:
            senses = self.sharded_model(tokens[:, None], output_senses=True, skip_logits=True).senses.squeeze(1)
        senses = senses.float().cpu()
        self.backpack.train(training)
        return senses
