"""`BitextTrainer`, what all trainers on parallel sentences share, and `SensiaTrainer` (Section 2.1)."""

import time
from functools import cached_property, partial
from pathlib import Path

import pyarrow.compute as pc
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.utils import CONFIG_NAME

from .bitext.columns import sides, texts
from .bitext.tokens import tokenize_bitext
from .evaluation.intrinsic import evaluate_bitext, random_weights_recall
from .evaluation.overlap import token_idf
from .hub.model_card import write_card
from .languages import other_language
from .losses import head_of, info_nce, last_state, next_token_loss
from .representations import context_hidden_state, context_sentence_vectors, sense_entropy, sense_sentence_vectors
from .schedule import PHASES
from .training.batches import SIDES, PairCollator, keeps_texts_apart, select_labelled, select_pairs
from .training.callbacks import PhaseCallback
from .training.checkpointing import ResumableTrainer
from .training.grad_cache import cached_backward
from .training.lora import is_lora
from .training.runs import METRICS_FILE, write_run
from .training.sharding import whole_copy


SENSE_REFERENCE_FILE = "sense_reference.safetensors"
# Training pairs that the document frequencies of tokens are counted on.
IDF_PAIRS = 10_000


class BitextTrainer(ResumableTrainer):
    """
    [`~transformers.Trainer`] on parallel sentences: batches of pairs, contrastive losses on the sentence vectors that
    a subclass makes of the model's outputs, the language-model loss, and their logs.

    Args:
        model (`PreTrainedModel`): The model to adapt.
        args ([`SensiaConfig`]): Every number of the method.
        train_dataset (`datasets.Dataset`): Bitext with a column `translation`, `{language: sentence}` in each row.
        eval_dataset (`datasets.Dataset` or `dict` of them, *optional*): Likewise; for recall@1, entropy, perplexity.
        processing_class: The model's tokenizer.
        kwargs: What else [`~transformers.Trainer`] takes (`callbacks`, `optimizers`, …).

    Raises:
        `ValueError`: for a bitext without pairs or without one of the languages, or of less than one batch where
            `dataloader_drop_last` would drop it.
    """

    card_kind = "adaptation"
    # `compute_loss` divides the language-model sum by all labels of the step and the others by the micro-batches.
    loss_is_scaled_for_ga = True

    def __init__(self, model, args, train_dataset=None, eval_dataset=None, processing_class=None, **kwargs):
        tokenizer = processing_class
        self.base_model = model.name_or_path or "a model without a name"
        self.truncated_pairs = 0
        if args.n_gpu > 1:
            raise ValueError(
                f"One process sees {args.n_gpu} GPUs and would split packed rows among them. Start with `accelerate "
                "launch`, which makes a process for each, or set CUDA_VISIBLE_DEVICES to one."
            )
        if train_dataset is not None:
            args.target_language = args.target_language or other_language(
                sides(train_dataset) if len(train_dataset) else [], args.source_language, "the bitext"
            )
            limit = args.max_length or model.config.get_text_config().max_position_embeddings
            # One position is the end token's, which is predicted.
            limit = min(limit, model.config.get_text_config().max_position_embeddings - int(args.predict_end))
            languages = args.source_language, args.target_language
            with args.main_process_first(desc="tokenizing the bitext"):
                train_dataset = tokenize_bitext(train_dataset, tokenizer, *languages, max_length=limit)
            self.truncated_pairs = pc.sum(train_dataset.data["truncated"]).as_py()
            _check_a_batch(len(train_dataset), args)
        super().__init__(
            model,
            args,
            data_collator=PairCollator(
                end_token_id=tokenizer.eos_token_id if args.predict_end else None,
                share_rows=self.may_share_rows(model),
            ),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            **kwargs,
        )
        if self.is_fsdp_enabled:
            self._model_class = type(model)
            if self.accelerator.state.fsdp_plugin.cpu_ram_efficient_loading:
                raise ValueError(
                    "`fsdp_cpu_ram_efficient_loading` is true, which leaves the weights to the first process until "
                    "training begins, but every process evaluates the base model before. Set it to false."
                )
        self._sums, self._tokens, self._since, self._now = {}, 0, None, None

    # ---- What a subclass says of its model ----

    def may_share_rows(self, model) -> bool:
        """Whether the model keeps sentences apart that share a row."""
        return False

    def forward(self, model, batch, now):
        """One pass over a batch without logits; what no loss of this step reads is not computed."""
        raise NotImplementedError

    def sentence_vectors(self, outputs, batch, now):
        """Unit vectors of all sentences by loss (`"sense"`, `"context"`), each `(2B, d)`, and what to log of them."""
        raise NotImplementedError

    # ---- Losses (Section 2.1) ----

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """w_sense L_sense + w_context L_context + w_lm L_lm at this step's weights and temperatures."""
        now = self.args.at_step(self.state.global_step, self.state.max_steps)
        contrastive = now.w_sense > 0 or now.w_context > 0
        batch = inputs if contrastive else select_labelled(inputs, self.data_collator.share_rows)
        outputs = self.forward(model, batch, now)
        losses, logged = {}, {}
        if contrastive:
            vectors, logged = self.sentence_vectors(outputs, batch, now)
            losses = {name: self.contrastive_loss(name, *sides.chunk(2), now) for name, sides in vectors.items()}
        if now.w_lm > 0:
            losses |= self.language_model_losses(model, outputs, batch, *self._labels(inputs, num_items_in_batch))
        loss = self._weighted(losses, now)
        if not self.watch.losses(losses, self.state.global_step + 1, inputs.get("rows")):
            # Without a graph to the parameters these get no gradient, and the optimizer leaves them alone. The loss
            # scaler of fp16 has to see the gradients, and leaves the whole step out.
            return loss if self.accelerator.scaler is not None else loss.new_zeros((), requires_grad=True)
        self._record(batch, now, losses, logged)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None):
        now = self.args.at_step(self.state.global_step, self.state.max_steps)
        if self.args.contrastive_chunk_size and (now.w_sense > 0 or now.w_context > 0):
            return self._cached_training_step(model, inputs, now, num_items_in_batch)
        return super().training_step(model, inputs, num_items_in_batch)

    def _cached_training_step(self, model, inputs, now, num_items_in_batch):
        """The gradients of [`compute_loss`] at the memory of `contrastive_chunk_size` pairs, see `grad_cache.py`."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        labels, scale = self._labels(inputs, num_items_in_batch)
        names = [name for name, weight in (("sense", now.w_sense), ("context", now.w_context)) if weight > 0]
        losses, all_logged = {}, []

        def forward(batch):
            with self.compute_loss_context_manager():
                outputs = self.forward(model, batch, now)
                vectors, logged = self.sentence_vectors(outputs, batch, now)
            all_logged.append(logged)
            sides = [side for name in names for side in vectors[name].chunk(2)]
            return sides, partial(language_model_loss, outputs, batch) if now.w_lm > 0 else None

        def contrastive_loss(*sides):
            for name, source, target in zip(names, sides[::2], sides[1::2], strict=True):
                losses[name] = self.contrastive_loss(name, source, target, now)
            self.watch.losses(losses, self.state.global_step + 1, inputs["rows"])
            return self._weighted(losses, now)

        def language_model_loss(outputs, batch):
            of_chunk = self.language_model_losses(model, outputs, batch, labels, scale)
            self.watch.losses(of_chunk, self.state.global_step + 1, inputs["rows"])
            for name, loss in of_chunk.items():
                losses[name] = losses.get(name, 0.0) + loss.detach()
            return self._weighted(of_chunk, now)

        loss, extra_loss = cached_backward(
            forward,
            select_pairs(inputs, self.args.contrastive_chunk_size, self.data_collator.share_rows),
            contrastive_loss,
            backward=self.accelerator.backward,
            no_sync=partial(self.accelerator.no_sync, model),
        )
        logged = {name: sum(part[name] for part in all_logged) / len(all_logged) for name in all_logged[0]}
        self._record(inputs, now, losses, logged)
        return loss + extra_loss

    def contrastive_loss(self, name, source, target, now):
        """Eq. 3 over the batches of all processes, for the `"sense"` or the `"context"` vectors."""
        temperature = {"sense": now.tau_sense, "context": now.tau_context}[name]
        gather = self.args.world_size > 1
        return info_nce(source, target, temperature, symmetric=self.args.symmetric, gather=gather)

    def language_model_losses(self, model, outputs, batch, labels, scale):
        """Next-token cross-entropy by the name of its loss; `labels` and `scale` as [`_labels`] gives them."""
        head = head_of(self.accelerator.unwrap_model(model))
        with self.accelerator.autocast():
            loss = next_token_loss(
                last_state(outputs),
                head,
                batch["shift_labels"],
                label_smoothing=self.args.label_smoothing,
                divisor=labels[SIDES.index("target")],
            )
        return {"lm": loss * scale}

    def _get_num_items_in_batch(self, batch_samples, device):
        """Labels of each side, `(2,)`, in the batches of a step, on all processes or (if so set) on this one."""
        labels = sum(batch["num_labels"] for batch in batch_samples).to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            labels = self.accelerator.gather(labels[None]).sum(0)
        return labels

    def _labels(self, inputs, num_items_in_batch):
        """
        What sums over labels are divided by, for each side, and a factor that undoes what averaging over processes
        (where their labels were counted) and over micro-batches divides again.
        """
        if num_items_in_batch is None:
            return inputs["num_labels"], 1
        processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return num_items_in_batch, processes * self.current_gradient_accumulation_steps

    def _weighted(self, losses, now):
        weights = {"sense": now.w_sense, "context": now.w_context, "lm": now.w_lm}
        return sum(weights[name] * loss for name, loss in losses.items()) / self.current_gradient_accumulation_steps

    # ---- Logs ----

    def _record(self, batch, now, losses, logged):
        for name, value in ({f"loss_{name}": loss.detach() for name, loss in losses.items()} | logged).items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value, count + 1
        self._now = now
        self._tokens += int(batch["lengths"].sum())
        self._since = self._since or time.perf_counter()

    def log(self, logs, start_time=None):
        """
        Adds to training logs the loss terms (means over the logged steps and all processes), the speed, what was
        skipped, and phase, weights and temperatures of the last logged step.
        """
        if "loss" in logs and self._sums:
            names = sorted(self._sums)
            means = [float(total) / count for total, count in (self._sums[name] for name in names)]
            gathered = self.accelerator.gather(torch.tensor([[*means, self._tokens]], device=self.args.device))
            logs |= dict(zip(names, gathered.mean(0)[:-1].tolist(), strict=True))
            logs |= self._now._asdict() | {"phase": PHASES.index(self._now.phase)}
            logs["tokens_per_second"] = gathered[:, -1].sum().item() / (time.perf_counter() - self._since)
            self._sums, self._tokens, self._since = {}, 0, time.perf_counter()
        if "loss" in logs:
            logs |= {name: count for name, count in self.watch.counts.items() if count}
        super().log(logs, start_time)

    def running_state(self):
        sums = {name: [float(total), count] for name, (total, count) in self._sums.items()}
        return super().running_state() | {"term_sums": sums, "counts": self.watch.counts}

    def restore_running_state(self, state):
        super().restore_running_state(state)
        self._sums = {name: tuple(term) for name, term in state["term_sums"].items()}
        self.watch.counts.update(state["counts"])

    # ---- Evaluation ----

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Recall@1 both ways by sense and context vectors, sense entropies and target perplexity of a bitext."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, dict):
            parts = [self.evaluate(part, ignore_keys, f"{metric_key_prefix}_{name}") for name, part in dataset.items()]
            return {key: value for part in parts for key, value in part.items()}
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]
        metrics = self._measure(evaluate_bitext, dataset)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def random_weights_recall(self, metric_key_prefix="eval"):
        """What the untrained model finds in `eval_dataset`: `{prefix}_random_sense_recall_source_to_target`, ..."""
        parts = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        found = {}
        for part, dataset in parts.items():
            prefix = f"{metric_key_prefix}_{part}" if part else metric_key_prefix
            recall = self._measure(random_weights_recall, dataset)
            found |= {f"{prefix}_{name}": value for name, value in recall.items()}
        return found

    def _measure(self, measure, dataset):
        return measure(
            self._whole_model(),
            self.processing_class,
            texts(dataset, self.args.source_language).to_pylist(),
            texts(dataset, self.args.target_language).to_pylist(),
            batch_size=self.args.eval_batch_size,
            max_length=self.args.max_length,
            pooling=self.args.sense_pooling,
            temperature=self.args.sense_pool_temperature,
            context_state=self.args.context_state,
            context_layer=self.args.context_layer,
            idf=self._training_idf,
            accelerator=self.accelerator,
        )

    @cached_property
    def _training_idf(self):
        """Document frequencies for the overlap of tokens, from training pairs; None without any."""
        if self.train_dataset is None:
            return None
        rows = self.train_dataset[:IDF_PAIRS]
        vocab_size = self.accelerator.unwrap_model(self.model).config.get_text_config().vocab_size
        return token_idf([*rows["source_ids"], *rows["target_ids"]], vocab_size)

    # ---- Publishing ----

    def create_model_card(self, *args, **kwargs):
        """
        Write the card of `metrics.json` in the output folder, the one that [`push_to_hub`] uploads.

        `examples/adapt.py` leaves that file; in its absence it is written from what the trainer knows: settings,
        pairs, the last evaluation. The arguments of [`~transformers.Trainer.create_model_card`] are not read, because
        every line of the card comes from that file.
        """
        if not self.is_world_process_zero():
            return
        if not (Path(self.args.output_dir) / METRICS_FILE).is_file():
            evaluations = [row for row in self.state.log_history if "eval_target_perplexity" in row]
            write_run(
                self.args,
                kind=self.card_kind,
                model=self.model,
                base_model=self.base_model,
                languages=self.args.languages,
                data={"pairs": len(self.train_dataset), "truncated pairs": self.truncated_pairs},
                after={key[5:]: value for key, value in evaluations[-1].items() if key.startswith("eval_")}
                if evaluations
                else {},
                state=self.state,
            )
        write_card(self.args.output_dir, repo_id=self.hub_model_id or self.args.hub_model_id)

    # ---- Checkpoints ----

    def save_model(self, output_dir=None, _internal_call=False):
        if not self.is_fsdp_enabled:
            return super().save_model(output_dir, _internal_call)
        model = self._whole_model()
        if self.args.should_save:
            for part in (model, self.processing_class):
                part.save_pretrained(output_dir or self.args.output_dir)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _whole_model(self):
        """The model with all its weights on this process; where it is sharded, all processes must ask for it."""
        return whole_copy(self.model, self._model_class, self.args.device) if self.is_fsdp_enabled else self.model


class SensiaTrainer(BitextTrainer):
    """
    [`BitextTrainer`] of a Backpack: the three losses and the three phases of SENSIA (Section 2.1).

    Args:
        model ([`BackpackForCausalLM`]): The model to adapt.
        args, kwargs: As [`BitextTrainer`].
    """

    def __init__(self, model, args, **kwargs):
        super().__init__(model, args, **kwargs)
        self.backpack = (model.get_base_model() if is_lora(model) else model).backpack
        self.watch.num_senses = self.backpack.config.num_senses
        self.phase_callback = PhaseCallback(self.backpack)
        self.add_callback(self.phase_callback)
        if self.is_fsdp_enabled:
            self.phase_callback.sharded_model = model
            if is_lora(model):
                raise ValueError(
                    "`use_peft`: FSDP shards the weights that updates are merged into. Use DDP, or train in full."
                )
            if args.polish_freeze == "vectors":
                raise ValueError(
                    "`polish_freeze` is 'vectors', which adds weights while training runs, but FSDP shards them at "
                    "the start. Use 'modules', or DDP."
                )

    def may_share_rows(self, model):
        backpack = (model.get_base_model() if is_lora(model) else model).backpack
        return keeps_texts_apart(backpack.backbone.config)

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
        sentences, number, vectors, entropies = batch["sentences"], len(batch["last"]), {}, {}
        if now.w_sense > 0:
            vectors["sense"], probs = sense_sentence_vectors(
                outputs.senses,
                sentences >= 0,
                pooling=self.args.sense_pooling,
                temperature=self.args.sense_pool_temperature,
                sense_weights=outputs.sense_weights,
                sentences=sentences,
                num_sentences=number,
            )
            is_source = (sentences >= 0) & (sentences < number // 2)
            sides = {"source": is_source, "target": sentences >= number // 2}
            entropies = {f"sense_entropy_{side}": sense_entropy(probs.detach(), m) for side, m in sides.items()}
        if now.w_context > 0:
            state = context_hidden_state(outputs, self.args.context_state, self.args.context_layer)
            vectors["context"] = context_sentence_vectors(state, last=batch["last"])
        return vectors, entropies

    def log(self, logs, start_time=None):
        drift = self.phase_callback.drift() if "loss" in logs else None
        super().log(logs if drift is None else logs | {"sense_drift_cosine": drift}, start_time)

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.phase_callback.reference is not None and self.args.should_save:
            save_file({"senses": self.phase_callback.reference}, Path(output_dir) / SENSE_REFERENCE_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        checkpoint = Path(resume_from_checkpoint)
        # Checkpoints of low-rank updates hold no configuration; their embeddings are frozen and need no copy.
        is_whole = (checkpoint / CONFIG_NAME).is_file()
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False) if is_whole else None
        if config and not getattr(config, "tie_sense_embeddings", True):
            # Frozen before the optimizer is made: it knew nothing of them when the checkpoint was written.
            self.backpack.untie_sense_embeddings()
            self.backpack.sense_embeddings.requires_grad_(False)
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        reference = checkpoint / SENSE_REFERENCE_FILE
        if reference.is_file():
            self.phase_callback.reference = load_file(reference)["senses"]


def _check_a_batch(pairs, args):
    if args.dataloader_drop_last and pairs < args.train_batch_size * args.world_size:
        raise ValueError(
            f"The bitext has {pairs} pairs, less than one batch: `per_device_train_batch_size` is "
            f"{args.per_device_train_batch_size} on {args.world_size} processes, and `dataloader_drop_last` leaves "
            "out what does not fill a batch. Lower `per_device_train_batch_size`, or add pairs."
        )
