"""`SensiaTrainer`: adapts a Backpack to another language on parallel sentences (Section 2.1)."""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.utils import CONFIG_NAME, logging

from .bitext.columns import column
from .bitext_trainer import COUNTED_PAIRS, BitextTrainer
from .induction import STUCK_GATE
from .languages import language
from .representations import (
    context_hidden_state,
    context_sentence_vectors,
    mixture_of,
    sense_entropy,
    sense_sentence_vectors,
)
from .training.batches import keeps_texts_apart
from .training.callbacks import DRIFT_TOKENS, PhaseCallback, is_frozen_in_polish


logger = logging.get_logger(__name__)

SENSE_REFERENCE_FILE = "sense_reference.safetensors"


class SensiaTrainer(BitextTrainer):
    """
    [`BitextTrainer`] of a Backpack: the three losses and the three phases of SENSIA (Section 2.1).

    Args:
        model ([`BackpackForCausalLM`] or `str`): The model to adapt, or where it is.
        args, kwargs: As [`BitextTrainer`].

    Raises:
        `ValueError`: as [`BitextTrainer`], and for a model without senses.
    """

    def __init__(self, model, args=None, **kwargs):
        super().__init__(model, args, **kwargs)
        self.backpack = _backpack_of(self.model)
        gate = self.backpack.residual_gate
        if gate is not None and (size := gate.weight.abs().max().item()) < STUCK_GATE:
            logger.warning(
                f"The gate of the model is {size:.2g}, so that its senses do nothing: induce them, or for longer "
                "(`sensia induce` or `induce_steps`)."
            )
        self._check_polish()
        self.watch.num_senses = self.backpack.config.num_senses
        sharded = self.model if self.is_fsdp_enabled else None
        self.phase_callback = PhaseCallback(self.backpack, self._frequent_source_tokens(), sharded_model=sharded)
        self.add_callback(self.phase_callback)

    def _check_polish(self):
        trained = [name for name, parameter in self.backpack.named_parameters() if parameter.requires_grad]
        freezes = "polish" in self.args.phases and self.args.polish_freeze != "none"
        if freezes and all(map(is_frozen_in_polish, trained)):
            raise ValueError(
                f"`polish_freeze` is {self.args.polish_freeze!r}, but what it freezes is all that is trained of this "
                "model, so that nothing would learn in polish. Set it to 'none', leave polish out of `phases`, or "
                "train more (`train`, `vocabulary_size`)."
            )

    def _frequent_source_tokens(self):
        if self.train_dataset is None:
            return []
        rows = self.train_dataset
        if self.pairs:  # the first side of some is another language
            firsts, source = [language(pair.split("-")[0]) for pair in self.pairs], language(self.args.source_language)
            of_source = [number for number, first in enumerate(firsts) if first == source]
            rows = rows.select(np.flatnonzero(np.isin(column(rows, "pair").to_numpy(), of_source))[:COUNTED_PAIRS])
        counts = Counter(chain.from_iterable(rows[:COUNTED_PAIRS]["source_ids"]))
        return sorted(token for token, _ in counts.most_common(DRIFT_TOKENS))

    def may_share_rows(self, model):
        return keeps_texts_apart(_backpack_of(model).backbone.config)

    def forward(self, model, batch, now):
        return model(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            use_cache=False,
            logits_to_keep=batch["lengths"].new_empty(0),  # the head is in the graph, which DDP asks for, and idle
            output_senses=now.w_sense > 0,
            output_sense_weights=now.w_sense > 0 and self.args.sense_pooling == "contextual",
            output_hidden_states=now.w_context > 0 and self.args.context_layer is not None,
        )

    def sentence_vectors(self, outputs, batch, now):
        """Unit vectors of all sentences by loss (`"sense"`, `"context"`), each `(2B, d)`; sense entropies by side."""
        number, vectors, entropies = 2 * len(batch["rows"]), {}, {}
        sentences = batch["sentences"].masked_fill(batch["sentences"] >= number, -1)  # not the text beside the pairs
        if now.w_sense > 0:
            vectors["sense"], probs = sense_sentence_vectors(
                outputs.senses,
                sentences >= 0,
                pooling=self.args.sense_pooling,
                temperature=self.args.sense_pool_temperature,
                sense_weights=outputs.sense_weights,
                mixture=mixture_of(outputs),
                sentences=sentences,
                num_sentences=number,
            )
            is_source = (sentences >= 0) & (sentences < number // 2)
            sides = {"source": is_source, "target": sentences >= number // 2}
            entropies = {f"sense_entropy_{side}": sense_entropy(probs.detach(), m) for side, m in sides.items()}
        if now.w_context > 0:
            state = context_hidden_state(outputs, self.args.context_state, self.args.context_layer)
            vectors["context"] = context_sentence_vectors(state, last=batch["last"][:number])
        return vectors, entropies

    def log(self, logs, start_time=None):
        super().log(logs | self.phase_callback.drifts() if "loss" in logs else logs, start_time)

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.phase_callback.references and self.args.should_save:
            save_file(self.phase_callback.references, Path(output_dir) / SENSE_REFERENCE_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        checkpoint = Path(resume_from_checkpoint)
        if not _ties_senses(checkpoint) and self.backpack.sense_embeddings is None:
            # Polish untied them. Frozen before the optimizer is made, which knew nothing of them at the checkpoint.
            self.backpack.untie_sense_embeddings()
            self.backpack.sense_embeddings.requires_grad_(False)
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        reference = checkpoint / SENSE_REFERENCE_FILE
        if reference.is_file():
            self.phase_callback.references = load_file(reference)

    def _load_best_model(self):
        if _ties_senses(self.state.best_model_checkpoint) and self.backpack.sense_embeddings is not None:
            # It is of a step before polish, where these were the word embeddings.
            self.backpack.sense_embeddings, self.backpack.config.tie_sense_embeddings = None, True
        super()._load_best_model()


def _ties_senses(checkpoint) -> bool:
    # Checkpoints of a `PeftModel` hold no configuration; its embeddings are frozen and need no copy.
    if not (Path(checkpoint) / CONFIG_NAME).is_file():
        return True
    return getattr(AutoConfig.from_pretrained(checkpoint, trust_remote_code=False), "tie_sense_embeddings", True)


def _backpack_of(model):
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # a `PeftModel`
    if not hasattr(model, "backpack"):
        raise ValueError(
            f"{type(model).__name__} has no senses to align: give it senses first (`sensia induce`), adapt it without "
            "(`DenseTrainer`, or the methods fine-tuning and mcl), or give a Backpack."
        )
    return model.backpack
