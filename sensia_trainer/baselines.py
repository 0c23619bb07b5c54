"""The baselines without senses: fine-tuning, and MCL, the dense alignment of Li et al. (2024)."""

from .bitext_trainer import BitextTrainer
from .losses import check_head
from .representations import context_sentence_vectors, hidden_state_after
from .training.batches import keeps_texts_apart


class DenseTrainer(BitextTrainer):
    """
    [`BitextTrainer`] of a causal language model without senses: of the three losses, the context loss on a dense
    state and the language-model loss are left. Batches, their order, logs and checkpoints are those of SENSIA.

    Args:
        model (`PreTrainedModel` or `str`): Any causal language model whose logits its head makes, see
            [`losses.head_of`], or where it is.
        args ([`SensiaConfig`]): With `w_sense=0`, as in `METHODS["fine-tuning"]` and `METHODS["mcl"]`.
        kwargs: As [`BitextTrainer`].

    Raises:
        `ValueError`: where the sense loss has a weight, or the model's logits are more than its head makes.
    """

    card_kind = "baseline"

    def __init__(self, model, args, **kwargs):
        if args.w_sense != 0:
            name = model if isinstance(model, str) else type(model).__name__
            raise ValueError(
                f"`w_sense` is {args.w_sense}, but {name} has no senses to align; set it to 0, as the "
                "methods fine-tuning and mcl do."
            )
        super().__init__(model, args, **kwargs)
        check_head(self.model)

    def may_share_rows(self, model):
        return keeps_texts_apart(model.config.get_text_config())

    def forward(self, model, batch, now):
        # Packed sentences are told apart by their positions, where the model knows them by these; else by a mask.
        if self.data_collator.share_rows:
            kept_apart = {"position_ids": batch["position_ids"]}
        else:
            kept_apart = {"attention_mask": (batch["sentences"] >= 0).long()}
        return model(
            input_ids=batch["input_ids"],
            **kept_apart,
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=batch["lengths"].new_empty(0),  # the head is in the graph, which DDP asks for, and idle
        )

    def sentence_vectors(self, outputs, batch, now):
        layer = self.args.context_layer
        state = outputs.hidden_states[-1] if layer is None else hidden_state_after(outputs.hidden_states, layer)
        return {"context": context_sentence_vectors(state, last=batch["last"][: 2 * len(batch["rows"])])}, {}
