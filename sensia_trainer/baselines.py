"""The baselines without senses: fine-tuning, and MCL, the dense alignment of Li et al. (2024)."""

from modeling_backpack.modeling_backpack import next_token_loss

from .config import METHODS_WITHOUT_SENSES
from .representations import context_sentence_vectors, hidden_state_after
from .trainer import SensiaTrainer
from .training.callbacks import PhaseCallback
from .training.monitors import TrainingMonitor
from .training.packing import pack


# What some models do to logits behind the head's matrix product, by the name in their configuration.
LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class DenseTrainer(SensiaTrainer):
    """
    [`SensiaTrainer`] for a causal language model without senses: of the three losses, the context loss on a dense
    state and the language-model loss are left. Batches, their order, logs and checkpoints are the same.

    Args:
        model (`PreTrainedModel`): Any causal language model whose logits are a matrix product with its last state.
        args ([`SensiaConfig`]): With `w_sense=0`, as `method="fine-tuning"` and `method="mcl"` set it.
        kwargs: As [`SensiaTrainer`].

    Raises:
        `ValueError`: where the sense loss has a weight, or the model's logits are more than a matrix product.
    """

    card_kind = "baseline"

    def __init__(self, model, args, **kwargs):
        if args.w_sense != 0:
            raise ValueError(
                f"`w_sense` is {args.w_sense}, but {type(model).__name__} has no senses to align; set it to 0, or "
                f"take one of the methods {METHODS_WITHOUT_SENSES}."
            )
        changes = [name for name in LOGIT_CHANGES if getattr(model.config, name, None) not in (None, 1, 1.0)]
        changes += ["a bias of the head"] * (getattr(model.get_output_embeddings(), "bias", None) is not None)
        if changes:
            raise ValueError(
                f"The logits of {type(model).__name__} are more than the head's matrix product: {', '.join(changes)}. "
                "The loss would leave that out. Give another `dense_model`, such as a GPT-2 or a Llama."
            )
        super().__init__(model, args, **kwargs)

    def pack(self, batch):
        """A row for each sentence: not every model knows packed sentences by their positions."""
        return pack(batch, share_rows=False)

    def forward(self, model, batch, now, num_items_in_batch=None):
        outputs = model(
            input_ids=batch["input_ids"],
            attention_mask=(batch["sentences"] >= 0).long(),
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,  # the head is applied below, where a label wants it
        )
        if now.w_lm > 0:
            head = self.accelerator.unwrap_model(model).get_output_embeddings().weight
            outputs.loss = next_token_loss(
                outputs.hidden_states[-1],
                head,
                labels=None,
                shift_labels=batch["shift_labels"],
                label_smoothing=self.args.label_smoothing,
                num_items_in_batch=num_items_in_batch,
            )
        return outputs

    def sentence_vectors(self, outputs, batch, now):
        layer = self.args.context_layer
        state = outputs.hidden_states[-1] if layer is None else hidden_state_after(outputs.hidden_states, layer)
        return {"context": context_sentence_vectors(state, last=batch["last"])}, {}

    def _follow_senses(self, model):
        self.phase_callback = PhaseCallback(None)  # there is nothing to freeze, nor to drift
        self.monitor = TrainingMonitor(num_senses=1)
        self.add_callback(self.monitor)
