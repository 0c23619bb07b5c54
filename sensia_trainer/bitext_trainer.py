"""`BitextTrainer`: what all trainers on parallel sentences share: batches, losses (Section 2.1), logs."""

import time
from contextlib import nullcontext
from functools import partial

import numpy as np
import pyarrow.compute as pc
import torch

from .bitext.columns import column, key_of, sides, texts
from .bitext.several import languages_of
from .config import SensiaConfig
from .evaluation.batching import max_positions
from .evaluation.intrinsic import evaluate_bitext, random_weights_recall
from .evaluation.overlap import token_idf
from .hub.licences import licence_of_model
from .languages import other_language
from .losses import head_of, info_nce, last_state, next_token_loss, next_token_losses
from .schedule import PHASES
from .training.adaptation import last_evaluation
from .training.batches import SIDES, longest_lengths, select_labelled, select_pairs
from .training.by_pair import by_pair, mean_of_pairs
from .training.checkpointing import ResumableTrainer
from .training.estimate import is_chunked, pairs_at_once, step_batch
from .training.grad_cache import cached_backward
from .training.inputs import check_source, training_inputs
from .training.pair_sums import PairSums
from .training.parts import trained_in_part
from .training.progress import amount
from .training.runs import run_metrics
from .training.sharding import check_sharding
from .utils.models import load_model, load_tokenizer


# Training pairs that tokens are counted in.
COUNTED_PAIRS = 10_000
RESAMPLES = 1000


class BitextTrainer(ResumableTrainer):
    """
    [`~transformers.Trainer`] on parallel sentences: batches of pairs, contrastive losses on the sentence vectors that
    a subclass makes of the model's outputs, the language-model loss, and their logs.

    Args:
        model (`PreTrainedModel` or `str`): The model to adapt, or the folder or Hub id where it is.
        args ([`SensiaConfig`], *optional*): Every number of the method; the paper's by default.
        train_dataset (`datasets.Dataset` or `dict` of them): Bitext with a column `translation`, `{language:
            sentence}` in each row; several by the name of their pair of languages, `{"en-id": …, "en-sw": …}`.
        eval_dataset (`datasets.Dataset` or `dict` of them, *optional*): Likewise; for recall@1, entropy, perplexity.
        processing_class (*optional*): The model's tokenizer; the one beside the model by default.
        texts (`dict[str, datasets.Dataset]`, *optional*): Text with a column `text` that is trained on beside the
            pairs, by side: `"source"` replays the source language, `"target"` adds monolingual text, `replay_ratio`
            and `monolingual_ratio` texts for each pair.
        kwargs: What else [`~transformers.Trainer`] takes (`callbacks`, `optimizers`, …).

    Raises:
        `ValueError`: for a bitext without pairs or without one of the languages, or of less than one batch where
            `dataloader_drop_last` would drop it.
    """

    card_kind = "adaptation"
    # `compute_loss` divides the language-model sum by all labels of the step and the others by the micro-batches.
    loss_is_scaled_for_ga = True

    def __init__(
        self, model, args=None, train_dataset=None, eval_dataset=None, processing_class=None, texts=None, **kwargs
    ):
        args = SensiaConfig() if args is None else args
        model = load_model(model) if isinstance(model, str) else model
        if processing_class is None:
            processing_class = load_tokenizer(model.name_or_path, model)
        self.base_model = model.name_or_path or "a model without a name"
        self.pairs = list(train_dataset) if isinstance(train_dataset, dict) else []
        for name in self.pairs:
            if len(name.split("-")) != 2:
                raise ValueError(
                    f"`train_dataset` has pairs named {name!r}, but the name of several is their two languages with a "
                    "dash between, such as 'en-id' or 'en-zh_Hant'."
                )
        check_source(args, model)
        train_dataset, collator = training_inputs(
            train_dataset,
            texts or {},
            processing_class,
            args,
            positions=max_positions(model),
            share_rows=self.may_share_rows(model),
        )
        self.truncated_pairs = 0 if train_dataset is None else pc.sum(train_dataset.data["truncated"]).as_py()
        super().__init__(
            model,
            args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        for name, part in eval_dataset.items() if isinstance(eval_dataset, dict) else ():
            self._languages_of(part, name)  # or says what it lacks, now
        if self.is_fsdp_enabled:
            check_sharding(model, args, self.accelerator.state.fsdp_plugin)
        self._sums, self._tokens, self._since, self._now = {}, 0, None, None
        self._of_pairs = PairSums(len(self.pairs))
        self._idf = {}

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
            losses = {
                name: self.contrastive_loss(name, *sides.chunk(2), now, batch) for name, sides in vectors.items()
            }
        if now.w_lm > 0:
            losses |= self.language_model_losses(model, outputs, batch, *self._labels(inputs, num_items_in_batch))
        loss = self._weighted(losses, now)
        if not self.watch.losses(losses, self.state.global_step + 1, inputs.get("rows")):
            self._of_pairs.drop()
            # Without a graph to the parameters these get no gradient, and the optimizer leaves them alone. The loss
            # scaler of fp16 has to see the gradients, and leaves the whole step out.
            return loss if self.accelerator.scaler is not None else loss.new_zeros((), requires_grad=True)
        self._record(batch, now, losses, logged)
        return (loss, outputs) if return_outputs else loss

    def _run_epoch(self, *, epoch, **kwargs):
        self.data_collator.epoch = epoch
        super()._run_epoch(epoch=epoch, **kwargs)

    def training_step(self, model, inputs, num_items_in_batch=None):
        self._since = self._since or time.perf_counter()
        now = self.args.at_step(self.state.global_step, self.state.max_steps)
        if self.args.contrastive_chunk_size and (now.w_sense > 0 or now.w_context > 0):
            return self._cached_training_step(model, inputs, now, num_items_in_batch)
        if self.args.contrastive_chunk_size:
            return self._chunked_training_step(model, inputs, now, num_items_in_batch)
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
                losses[name] = self.contrastive_loss(name, source, target, now, inputs)
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

    def _chunked_training_step(self, model, inputs, now, num_items_in_batch):
        """The gradients of [`compute_loss`] where language modelling is all of it, which does not couple the pairs."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        labels, scale = self._labels(inputs, num_items_in_batch)
        chunks = select_pairs(inputs, self.args.contrastive_chunk_size, self.data_collator.share_rows)
        losses, total = {}, 0.0
        for number, chunk in enumerate(chunks, 1):
            chunk = select_labelled(chunk | {"num_labels": inputs["num_labels"]}, self.data_collator.share_rows)
            with nullcontext() if number == len(chunks) else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    outputs = self.forward(model, chunk, now)
                    of_chunk = self.language_model_losses(model, outputs, chunk, labels, scale)
                self.watch.losses(of_chunk, self.state.global_step + 1, inputs["rows"])
                loss = self._weighted(of_chunk, now)
                self.accelerator.backward(loss)
            losses = {name: losses.get(name, 0.0) + one.detach() for name, one in of_chunk.items()}
            total += loss.detach()
        self._record(select_labelled(inputs, self.data_collator.share_rows), now, losses, {})
        return total

    def contrastive_loss(self, name, source, target, now, batch):
        """Eq. 3 over the batches of all processes, for the `"sense"` or the `"context"` vectors. Where near negatives
        count more, a pair that shares a sentence would count most, and is none."""
        temperature = {"sense": now.tau_sense, "context": now.tau_context}[name]
        losses = info_nce(
            source,
            target,
            temperature,
            symmetric=self.args.symmetric,
            hard_negative_weight=self.args.hard_negative_weight,
            noisy_pair_exponent=self.args.noisy_pair_exponent,
            sentences=batch["keys"] if self.args.hard_negative_weight else None,
            gather=self.args.world_size > 1,
            reduction="none" if self.pairs else "mean",
        )
        if self.pairs:
            self._of_pairs.add(f"loss_{name}", batch["pairs"][: len(losses)], losses.detach())
        return losses.mean()

    def language_model_losses(self, model, outputs, batch, labels, scale):
        """Next-token cross-entropy of each side that has labels (`"lm"`: the target's, `"lm_source"`); `labels` and
        `scale` as [`_labels`] gives them."""
        head, states, losses = head_of(self.accelerator.unwrap_model(model)), last_state(outputs), {}
        both = len(self.data_collator.lm_sides) > 1
        for name, side in (("lm", SIDES.index("target")), ("lm_source", SIDES.index("source"))):
            if SIDES[side] not in self.data_collator.lm_sides:
                continue
            targets = batch["shift_labels"]
            if both:
                targets = targets.masked_fill(batch["sides"][batch["sentences"]] != side, -100)  # padding has none
            options = {"label_smoothing": self.args.label_smoothing, "divisor": labels[side]}
            with self.accelerator.autocast():
                if self.pairs:
                    loss = self._loss_by_pair(f"loss_{name}", states, head, targets, batch, options)
                else:
                    loss = next_token_loss(states, head, targets, **options)
            losses[name] = loss * scale
        return losses

    def _loss_by_pair(self, name, states, head, targets, batch, options):
        """[`next_token_loss`], those of each pair of languages being noted; text beside the pairs is of none."""
        loss, of_label = next_token_losses(states, head, targets, **options)
        pairs = batch["pairs"][batch["sentences"]][targets != -100]
        self._of_pairs.add(name, pairs[pairs >= 0], of_label[pairs >= 0])
        return loss

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

    def get_decay_parameter_names(self, model):
        names = [name for name, _ in model.named_parameters()]
        names = names if self.args.decay_biases else super().get_decay_parameter_names(model)
        # Decay moves what has no gradient: the rows that are not trained.
        undecayed = set(trained_in_part(model))
        return [name for name in names if name not in undecayed and "residual_gate" not in name]

    def _weighted(self, losses, now):
        weights = {"sense": now.w_sense, "context": now.w_context, "lm": now.w_lm}
        weights["lm_source"] = now.w_lm * self.args.source_lm_weight
        return sum(weights[name] * loss for name, loss in losses.items()) / self.current_gradient_accumulation_steps

    # ---- Logs ----

    def describe_data(self):
        """What is trained on: pairs, with their tokens, and text beside them."""
        table = self.train_dataset.data
        tokens = sum(pc.sum(pc.list_value_length(table[f"{side}_ids"])).as_py() for side in SIDES)
        pairs, texts = len(self.train_dataset), self.data_collator.texts
        each = {side: one.per_pair * one.tokens for side, one in texts.items()}  # tokens for each pair
        every = tokens / pairs + sum(each.values())
        beside = [f"text of the {side} language ({n / every:.0%} of all tokens)" for side, n in each.items()]
        return " and ".join([f"{pairs:,} pairs ({amount(tokens)} tokens)", *beside])

    def expected_cost(self):
        table = self.train_dataset.data
        tokens = [pc.list_value_length(table[f"{side}_ids"]).to_numpy() for side in SIDES]
        mean, longest = [n.mean() for n in tokens], longest_lengths(*tokens, self.args.train_sampling_strategy)
        texts = [(one.per_pair, one.tokens) for one in self.data_collator.texts.values()]
        return self._expected(
            lambda pairs, vocabulary: step_batch(mean, pairs, vocabulary, self.args, texts),
            lambda _, vocabulary: step_batch(longest, pairs_at_once(self.args), vocabulary, self.args, texts),
            chunked=is_chunked(self.args),
        )

    def _record(self, batch, now, losses, logged):
        self._of_pairs.keep()
        for name, value in ({f"loss_{name}": loss.detach() for name, loss in losses.items()} | logged).items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value, count + 1
        self._now = now
        self._tokens += int(batch["lengths"].sum())

    def log(self, logs, start_time=None):
        """
        Adds to training logs the loss terms (means over the logged steps and all processes), the speed, and
        phase, weights and temperatures of the last logged step. With several pairs of languages, the terms of each
        as well (`loss_lm_en-id`), means over its own pairs and labels.
        """
        if "loss" in logs and self._sums:
            names = sorted(self._sums)
            means = [float(total) / count for total, count in (self._sums[name] for name in names)]
            gathered = self.accelerator.gather(torch.tensor([[*means, self._tokens]], device=self.args.device))
            logs |= dict(zip(names, gathered.mean(0)[:-1].tolist(), strict=True))
            logs |= self._of_pairs.means(self.pairs, self.accelerator)
            logs |= self._now._asdict() | {"phase": PHASES.index(self._now.phase)}
            logs["tokens_per_second"] = gathered[:, -1].sum().item() / (time.perf_counter() - self._since)
            self._sums, self._tokens, self._since = {}, 0, time.perf_counter()
            self._of_pairs = PairSums(len(self.pairs))
        super().log(logs, start_time)

    def running_state(self):
        sums = {name: [float(total), count] for name, (total, count) in self._sums.items()}
        return super().running_state() | {"term_sums": sums} | self._of_pairs.state()

    def restore_running_state(self, state):
        super().restore_running_state(state)
        self._sums = {name: tuple(term) for name, term in state["term_sums"].items()}
        self._of_pairs.restore(state)

    # ---- Evaluation ----

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Recall@1 both ways by sense and context vectors, sense entropies and target perplexity of a bitext."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, dict):
            parts = [
                self._evaluate_one(part, f"{metric_key_prefix}_{name}", self._languages_of(part, name))
                for name, part in dataset.items()
            ]
            return {key: value for part in parts for key, value in part.items()}
        name = dataset if isinstance(dataset, str) else ""
        dataset = self.eval_dataset[name] if name else dataset
        return self._evaluate_one(dataset, metric_key_prefix, self._languages_of(dataset, name))

    def _evaluate_one(self, dataset, metric_key_prefix, languages):
        metrics = self._measure(evaluate_bitext, dataset, languages)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log({name: value for name, value in metrics.items() if not isinstance(value, list)})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def random_weights_recall(self, metric_key_prefix="eval"):
        """What the untrained model finds in `eval_dataset`: `{prefix}_random_sense_recall_source_to_target`, ..."""
        parts = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        found = {}
        for part, dataset in parts.items():
            prefix = f"{metric_key_prefix}_{part}" if part else metric_key_prefix
            recall = self._measure(random_weights_recall, dataset, self._languages_of(dataset, part))
            found |= {f"{prefix}_{name}": value for name, value in recall.items()}
        return found

    def _languages_of(self, dataset, name=""):
        """The codes of a part of the evaluation data: those of its name, where that is one of a pair of languages, and
        otherwise those of the training."""
        codes = tuple(name.split("-"))
        if len(codes) == 2 and all(key_of(dataset, code) for code in codes):
            return codes
        source, target = self.args.source_language, self.args.target_language
        codes = source, target or other_language(sides(dataset), source, f"`eval_dataset` {name}".strip())
        for code in codes:
            texts(dataset, code)  # or says which it lacks
        return codes

    def _measure(self, measure, dataset, languages):
        # In the precision of training, before it as within.
        with self.accelerator.autocast():
            return measure(
                self.whole_model(),
                self.processing_class,
                *(texts(dataset, code).to_pylist() for code in languages),
                batch_size=self.args.eval_batch_size,
                max_length=self.args.max_length,
                pooling=self.args.sense_pooling,
                temperature=self.args.sense_pool_temperature,
                context_state=self.args.context_state,
                context_layer=self.args.context_layer,
                idf=self._training_idf("-".join(languages)),
                # Intervals are for what is reported: before the first step and after the last.
                bootstrap=0 if self.is_in_train else RESAMPLES,
                progress=self.is_world_process_zero() and not self.args.disable_tqdm,
                accelerator=self.accelerator,
            )

    def _training_idf(self, name):
        """Document frequencies for the overlap of tokens, from training pairs (of several pairs of languages, from
        those of the one with that name); None without any."""
        if self.train_dataset is None:
            return None
        if name not in self._idf:
            rows = self.train_dataset
            if name in self.pairs:
                of_pair = column(rows, "pair").to_numpy() == self.pairs.index(name)
                rows = rows.select(np.flatnonzero(of_pair)[:COUNTED_PAIRS])
            rows = rows[:COUNTED_PAIRS]
            vocab_size = self.accelerator.unwrap_model(self.model).config.get_text_config().vocab_size
            self._idf[name] = token_idf([*rows["source_ids"], *rows["target_ids"]], vocab_size)
        return self._idf[name]

    # ---- Publishing ----

    def card_metrics(self):
        after = {key[5:]: value for key, value in last_evaluation(self.state.log_history).items()}
        shown = {}
        if self.pairs and after:
            of_pairs = by_pair(after, self.pairs)
            shown["by_pair"] = {name: {"after": one} for name, one in of_pairs.items()}
            after = mean_of_pairs(of_pairs)
        return run_metrics(
            self.args,
            kind=self.card_kind,
            model=self.accelerator.unwrap_model(self.model),
            base_model=self.base_model,
            base_licence=licence_of_model(self.base_model),
            languages=languages_of(self.pairs, self.args.source_language) if self.pairs else self.args.languages,
            data={"pairs": len(self.train_dataset), "truncated pairs": self.truncated_pairs},
            after=after,
            state=self.state,
            **shown,
        )

    # ---- Checkpoints ----
