"""The loss of Section 2.1 against its restatement, what polish freezes, what is logged, what bad input says."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.trainer_utils import get_last_checkpoint

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.config import SensiaConfig
from sensia_trainer.evaluation.overlap import overlap_by_query, token_idf
from sensia_trainer.losses import info_nce
from sensia_trainer.trainer import SensiaTrainer
from tests.reference import losses as reference_losses
from tests.reference import representations as reference
from tests.tiny import tiny_bitext, tiny_texts, tiny_tokenizer, tiny_trainer, without_intervals


LM_ONLY = {"w_sense": 0.0, "w_context": 0.0, "w_lm": 1.0}
SENSE_MODULES = ("sense_network", "sense_weight_net", "sense_embeddings")


def snapshot(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(before, model):
    return {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}


def one_batch(trainer, rows=6):
    return trainer.data_collator([trainer.train_dataset[i] for i in range(rows)])


def sentence(batch, number):
    """The tokens of one sentence of a batch, `(1, T)`."""
    return batch["input_ids"][batch["sentences"] == number][None]


@pytest.mark.parametrize("pooling", ["magnitude", "contextual", "mixture"])
@pytest.mark.parametrize("context_state", ["mixture", "backbone"])
@pytest.mark.parametrize("symmetric, source_lm_weight", [(True, 0.0), (False, 0.5)])
def test_loss_is_section_2_1(tmp_path, pooling, context_state, symmetric, source_lm_weight):
    """Sentence by sentence, unpadded, in float64, from the plain formulas."""
    fields = dict(sense_pooling=pooling, context_state=context_state, symmetric=symmetric)
    fields |= dict(source_lm_weight=source_lm_weight)
    trainer = tiny_trainer(tmp_path, dropout=0.0, **fields)
    model = trainer.model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    trainer.current_gradient_accumulation_steps = 1
    batch = one_batch(trainer)
    trainer.state.max_steps, trainer.state.global_step = 12, 1
    now = trainer.args.phase_state(1 / 12)

    vectors, log_likelihoods = {"sense": [], "context": []}, {"source": [], "target": []}
    for side in ("source", "target"):
        sense, context = [], []
        for row in range(len(batch["rows"])):
            ids = sentence(batch, row + (side == "target") * len(batch["rows"]))
            out = model(ids, output_senses=True, output_sense_weights=True)
            mask = torch.ones_like(ids)
            weights = out.sense_weights.detach()
            mixture = out.last_hidden_state.detach()
            pooled, _ = reference.sense_sentence_vectors(out.senses.detach(), mask, pooling, 0.7, weights, mixture)
            sense.append(pooled[0].tolist())
            state = out.last_hidden_state if context_state == "mixture" else out.backbone_last_hidden_state
            context.append(F.normalize(state[0, -1].detach(), dim=0).tolist())
            targets = torch.cat([ids[0, 1:], torch.tensor([trainer.processing_class.eos_token_id])])
            scores = out.logits[0].detach().log_softmax(-1)
            smooth = 0.95 * scores.gather(1, targets[:, None])[:, 0] + 0.05 * scores.mean(-1)
            log_likelihoods[side] += smooth.tolist()
        vectors["sense"].append(sense)
        vectors["context"].append(context)

    means = {side: -sum(values) / len(values) for side, values in log_likelihoods.items()}
    expected = now.w_lm * (means["target"] + source_lm_weight * means["source"])
    for name, weight, tau in (("sense", now.w_sense, now.tau_sense), ("context", now.w_context, now.tau_context)):
        expected += weight * reference_losses.info_nce(*vectors[name], tau, symmetric)
    assert trainer.compute_loss(model, batch).item() == pytest.approx(expected, rel=1e-9)


def test_language_modelling_alone_does_not_read_the_source(tmp_path):
    trainer = tiny_trainer(tmp_path, **LM_ONLY)
    trainer.current_gradient_accumulation_steps, trainer.state.max_steps = 1, 12
    batch, read = one_batch(trainer), []
    handle = trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"]), with_kwargs=True
    )
    trainer.compute_loss(trainer.model, batch)
    handle.remove()
    targets = torch.cat([sentence(batch, number)[0] for number in range(6, 12)])
    assert len(read) == 1 and sorted(read[0][read[0] != 0].tolist()) == sorted(targets[targets != 0].tolist())


def test_language_modelling_of_both_sides_reads_both(tmp_path):
    trainer = tiny_trainer(tmp_path, source_lm_weight=1.0, max_steps=4, **LM_ONLY)
    start = snapshot(trainer.model)
    trainer.train()
    row = trainer.state.log_history[0]
    assert row["loss"] == pytest.approx(row["loss_lm"] + row["loss_lm_source"], rel=1e-6)
    assert moved(start, trainer.model) == set(start)


@pytest.mark.parametrize("polish_freeze", ["modules", "vectors", "none"])
def test_what_moves_before_and_in_polish(tmp_path, polish_freeze):
    trainer = tiny_trainer(tmp_path, polish_freeze=polish_freeze, save_strategy="steps", save_steps=6, dropout=0.0)
    start = snapshot(trainer.model)
    trainer.args.max_steps = 12
    trainer.train()
    at_boundary = tiny_trainer(tmp_path / "other", dropout=0.0)
    at_boundary._load_from_checkpoint(f"{tmp_path}/checkpoint-6")
    boundary = snapshot(at_boundary.model)
    assert moved(start, at_boundary.model) == set(start)

    if polish_freeze == "vectors":
        word_embeddings = at_boundary.backpack.get_input_embeddings().weight
        assert torch.equal(trainer.backpack.sense_embeddings.weight, word_embeddings)
        boundary |= {n: p for n, p in trainer.model.named_parameters() if "sense_embeddings" in n}
    frozen = {name for name in boundary if any(module in name for module in SENSE_MODULES)}
    expected = set(boundary) if polish_freeze == "none" else set(boundary) - frozen
    assert moved(boundary, trainer.model) == expected

    drift = trainer.state.log_history[-2]["sense_drift_cosine"]
    assert drift == pytest.approx(1.0, abs=1e-6) if polish_freeze == "vectors" else drift < 0.99999


def test_resumed_within_polish_keeps_constant_senses(tmp_path):
    fields = dict(polish_freeze="vectors", save_strategy="steps", save_steps=8, dropout=0.1)
    whole = tiny_trainer(tmp_path / "a", **fields)
    whole.train()
    resumed = tiny_trainer(tmp_path / "b", **fields)
    resumed.train(resume_from_checkpoint=f"{tmp_path}/a/checkpoint-8")
    assert not moved(snapshot(whole.model), resumed.model)
    logged = [trainer.state.log_history[-2]["sense_drift_cosine"] for trainer in (whole, resumed)]
    assert logged[0] == logged[1]


def test_saved_model_keeps_its_own_sense_embeddings(tmp_path):
    trainer = tiny_trainer(tmp_path, polish_freeze="vectors")
    trainer.train()
    trainer.save_model()
    loaded = BackpackForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(10)
    assert torch.equal(loaded.get_senses(ids), trainer.model.eval().get_senses(ids))
    assert not torch.equal(loaded.backpack.sense_embeddings.weight, loaded.get_input_embeddings().weight)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["use_cache"] is True and config["tie_sense_embeddings"] is False
    assert set(config["auto_map"]) >= {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}


@pytest.mark.parametrize("count_steps_from", [0, 1])
def test_what_is_logged_of_a_step_is_that_step_s(tmp_path, count_steps_from):
    trainer = tiny_trainer(tmp_path, count_steps_from=count_steps_from, logging_steps=3)
    trainer.train()
    logged = [row for row in trainer.state.log_history if "w_lm" in row]
    for row, step in zip(logged, (2, 5, 8, 11), strict=True):
        now = trainer.args.phase_state((step + count_steps_from) / 12)
        assert (row["w_sense"], row["w_lm"]) == (now.w_sense, now.w_lm)
        assert row["phase"] == ("align", "joint", "polish").index(now.phase)
    assert trainer.args.at_step(0, 12).w_sense == pytest.approx(0.54 if count_steps_from == 0 else 0.4881173, abs=1e-6)


def test_source_senses_drift_from_the_start_of_training(tmp_path):
    fields = dict(save_strategy="steps", save_steps=5, dropout=0.0)
    trainer = tiny_trainer(tmp_path / "whole", **fields)
    start = tiny_trainer(tmp_path / "start").model.eval()
    trainer.train()
    tokens = trainer.phase_callback.tokens["source_sense"]
    expected = F.cosine_similarity(start.get_senses(tokens), trainer.model.eval().get_senses(tokens), dim=-1).mean()
    drifts = [row["source_sense_drift_cosine"] for row in trainer.state.log_history if "loss" in row]
    assert drifts[-1] == pytest.approx(expected.item(), abs=1e-6) and drifts[-1] < drifts[0] < 1
    used = {token for ids in trainer.train_dataset["source_ids"] for token in ids}
    assert set(tokens.tolist()) <= used and len(tokens) == min(64, len(used))
    resumed = tiny_trainer(tmp_path / "resumed", **fields)
    resumed.train(resume_from_checkpoint=f"{tmp_path}/whole/checkpoint-5")
    assert [row["source_sense_drift_cosine"] for row in resumed.state.log_history if "loss" in row] == drifts


def test_a_second_training_begins_anew(tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=6)
    runs = []
    for _ in range(2):
        trainer.train()
        runs.append([row for row in trainer.state.log_history if "loss" in row])
    (*_, last), (first, *_) = runs
    assert first["source_sense_drift_cosine"] > 0.9 > last["source_sense_drift_cosine"]
    assert "sense_drift_cosine" in last and "sense_drift_cosine" not in first


def test_weight_decay_on_everything_or_on_matrices(tmp_path):
    for decay_biases in (False, True):
        trainer = tiny_trainer(tmp_path, decay_biases=decay_biases)
        trainer.create_optimizer()
        decayed = {id(p) for g in trainer.optimizer.param_groups if g["weight_decay"] > 0 for p in g["params"]}
        names = {name for name, parameter in trainer.model.named_parameters() if id(parameter) in decayed}
        vectors = {name for name, parameter in trainer.model.named_parameters() if parameter.ndim < 2}
        assert bool(vectors & names) == decay_biases
        assert {name for name, _ in trainer.model.named_parameters()} - vectors <= names


def test_logs_hold_every_term(tmp_path):
    trainer = tiny_trainer(tmp_path, eval_rows=6, eval_steps=12)
    trainer.train()
    first, last = trainer.state.log_history[0], [r for r in trainer.state.log_history if "loss" in r][-1]
    names = {"loss_sense", "loss_context", "loss_lm", "sense_entropy_source", "sense_entropy_target"}
    names |= {"tokens_per_second", "phase", "w_sense", "w_context", "w_lm", "tau_sense", "tau_context"}
    assert names <= set(first)
    assert [first["phase"], last["phase"]] == [0, 2]
    total = sum(last[f"w_{name}"] * last[f"loss_{name}"] for name in ("sense", "context", "lm"))
    assert total == pytest.approx(last["loss"], rel=1e-4)
    evaluation = next(row for row in trainer.state.log_history if "eval_pairs" in row)
    for name in ("sense", "context"):
        for way in ("source_to_target", "target_to_source"):
            assert 0 <= evaluation[f"eval_{name}_recall_{way}"] <= 1
    assert evaluation["eval_target_perplexity"] > 1


def test_evaluation_stands_beside_overlap_and_random_weights(tmp_path):
    trainer = tiny_trainer(tmp_path, eval_rows=6)
    counted = [*trainer.train_dataset["source_ids"], *trainer.train_dataset["target_ids"]]
    pairs = trainer.eval_dataset["translation"]
    source, target = ([trainer.processing_class(pair[code])["input_ids"] for pair in pairs] for code in ("en", "id"))
    expected = overlap_by_query(source, target, token_idf(counted, len(trainer.processing_class)))
    metrics = trainer.evaluate()
    assert metrics["eval_overlap_recall_source_to_target"] == pytest.approx(expected["hits"][0].mean().item())
    assert metrics["eval_overlap_margin_target_to_source"] == pytest.approx(expected["margins"][1].mean().item())
    untrained = trainer.random_weights_recall("before")
    assert len(without_intervals(untrained)) == 4 and all(name.startswith("before_random_") for name in untrained)
    trainer.eval_dataset = {"own": trainer.eval_dataset}
    parts = trainer.random_weights_recall()
    assert parts == {name.replace("before", "eval_own"): value for name, value in untrained.items()}


@pytest.mark.parametrize("source_lm_weight", [0.0, 0.3])
def test_accumulated_language_model_loss_is_that_of_the_large_batch(tmp_path, source_lm_weight):
    """Gradient accumulation is exact for the language model: every label of a side counts alike."""
    histories = []
    for name, size, steps in (("large", 8, 1), ("accumulated", 4, 2)):
        fields = dict(per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=4, dropout=0.0)
        fields |= LM_ONLY | dict(source_lm_weight=source_lm_weight)
        trainer = tiny_trainer(tmp_path / name, train_sampling_strategy="sequential", **fields)
        trainer.train()
        histories.append([row["loss"] for row in trainer.state.log_history if "loss_lm" in row])
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)


def test_every_label_counts_alike_or_every_process(tmp_path):
    """What averaging over 2 processes and 3 micro-batches divides by is undone where the labels were counted there."""
    trainer = tiny_trainer(tmp_path)
    trainer.current_gradient_accumulation_steps = 3
    trainer.accelerator = SimpleNamespace(num_processes=2)
    assert trainer._labels({}, 10) == (10, 6)
    trainer.args.average_tokens_across_devices = False
    assert trainer._labels({}, 10) == (10, 3)
    assert trainer._labels({"num_labels": 4}, None) == (4, 1)


def test_no_end_is_predicted_where_a_target_was_cut(tmp_path):
    tokenizer = tiny_tokenizer()
    whole = tokenizer([pair["id"] for pair in tiny_bitext()["translation"]])["input_ids"]
    short, long = sorted(range(len(whole)), key=lambda row: len(whole[row]))[:: len(whole) - 1]
    limit = len(whole[short])
    trainer = tiny_trainer(tmp_path, max_length=limit)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in (short, long)])
    labels = [batch["shift_labels"][batch["sentences"] == number].tolist() for number in (2, 3)]
    assert labels == [[*whole[short][1:], tokenizer.eos_token_id], [*whole[long][1:limit], -100]]


def test_long_pairs_are_cut_and_counted(tmp_path):
    trainer = tiny_trainer(tmp_path, max_length=3)
    rows = list(trainer.train_dataset)
    cut = [row["source_truncated"] or row["target_truncated"] for row in rows]
    assert trainer.truncated_pairs == sum(cut) > 0
    assert any(row["source_truncated"] != row["target_truncated"] for row in rows)
    assert max(map(len, trainer.train_dataset["target_ids"])) == 3


def test_epochs_are_not_ignored_silently(tmp_path):
    with pytest.raises(ValueError, match="`num_train_epochs` is 1.*`max_steps` is 150000.*`max_steps` to -1"):
        SensiaConfig(output_dir=str(tmp_path), use_cpu=True, num_train_epochs=1)
    trainer = tiny_trainer(tmp_path, num_train_epochs=1, max_steps=-1)
    assert trainer.train().global_step == 6
    assert [row["phase"] for row in trainer.state.log_history if "phase" in row] == [0, 0, 1, 2, 2, 2]


def test_constant_weights_are_normalised_with_the_others(tmp_path):
    fields = {"output_dir": str(tmp_path), "use_cpu": True}
    given = SensiaConfig(**fields, w_context=0.0).phase_state(0.0)
    assert (given.w_sense, given.w_context, given.w_lm) == pytest.approx((0.54, 0.0, 0.02))
    state = SensiaConfig(**fields, normalise_weights=True, w_context=0.0).phase_state(0.0)
    assert (state.w_sense, state.w_context, state.w_lm) == pytest.approx((27 / 28, 0.0, 1 / 28))
    # Joint to polish half way is 0.275, 0.275 and 0.45; with 0.5 for the first the sum is 1.225.
    state = SensiaConfig(**fields, normalise_weights=True, w_sense=0.5).phase_state(0.35)
    assert (state.w_sense, state.w_context, state.w_lm) == pytest.approx((20 / 49, 11 / 49, 18 / 49))
    with pytest.raises(ValueError, match="`align_weights`.*not all zero"):
        SensiaConfig(**fields, w_sense=0, w_context=0, w_lm=0)


def test_single_pairs_are_allowed_for_language_modelling_alone(tmp_path):
    SensiaConfig(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=1, **LM_ONLY)


@pytest.mark.parametrize(
    "dataset, message",
    [
        (Dataset.from_dict({"translation": []}), "no pairs"),
        (Dataset.from_dict({"translation": [{"en": "a", "et": "b"}]}), "'id'"),
        (Dataset.from_dict({"text": ["a"]}), "column `translation`"),
    ],
)
def test_refused_bitexts(tmp_path, tiny_model, dataset, message):
    args = SensiaConfig(output_dir=str(tmp_path), use_cpu=True, target_language="id")
    with pytest.raises(ValueError, match=message):
        SensiaTrainer(tiny_model(), args, train_dataset=dataset, processing_class=tiny_tokenizer())


def test_a_bitext_smaller_than_a_batch_is_refused_where_it_would_be_dropped(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="7 pairs.*`per_device_train_batch_size` is 8.*`dataloader_drop_last`"):
        tiny_trainer(tmp_path, rows=7)
    tiny_trainer(tmp_path, rows=8)
    tiny_trainer(tmp_path, rows=7, dataloader_drop_last=False)
    monkeypatch.setattr(SensiaConfig, "world_size", 2)
    monkeypatch.setattr(SensiaConfig, "main_process_first", lambda *args, **kwargs: nullcontext())
    with pytest.raises(ValueError, match="15 pairs.*on 2 processes"):
        tiny_trainer(tmp_path, rows=15)


def test_target_language_is_found_where_there_is_one_other(tmp_path):
    assert tiny_trainer(tmp_path).args.target_language == "id"
    three = Dataset.from_dict({"translation": [{"en": "a", "et": "b", "id": "c"}]})
    trainer = tiny_trainer(tmp_path)
    args = SensiaConfig(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match="cannot be told"):
        SensiaTrainer(trainer.model, args, train_dataset=three, processing_class=tiny_tokenizer())


def test_trainer_finds_its_last_checkpoint(tmp_path):
    trainer = tiny_trainer(tmp_path, save_strategy="steps", save_steps=5, max_steps=10)
    trainer.train()
    assert get_last_checkpoint(str(tmp_path)).endswith("checkpoint-10")


def test_a_model_may_be_named(tmp_path):
    trainer = tiny_trainer(tmp_path / "made")
    trainer.save_model()
    named = SensiaTrainer(str(tmp_path / "made"), trainer.args, train_dataset=tiny_bitext())
    assert len(named.processing_class) == len(trainer.processing_class)
    assert named.train_dataset["source_ids"] == trainer.train_dataset["source_ids"]
    assert not moved(snapshot(trainer.model), named.model)


def test_a_model_without_senses_is_told_the_ways_on(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2))
    args = SensiaConfig(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no senses.*induce.*DenseTrainer.*give a Backpack"):
        SensiaTrainer(model, args, train_dataset=tiny_bitext(), processing_class=tiny_tokenizer())


@pytest.mark.parametrize("share_rows, strategy", [(True, "random"), (False, "random"), (False, "group_by_length")])
def test_padding_to_the_longest_of_a_random_batch_is_told(tmp_path, monkeypatch, caplog, share_rows, strategy):
    monkeypatch.setattr(SensiaTrainer, "may_share_rows", lambda self, model: share_rows)
    with caplog.at_level("WARNING"):
        tiny_trainer(tmp_path, train_sampling_strategy=strategy)
    told = any("'group_by_length' computes a fraction" in record.getMessage() for record in caplog.records)
    assert told == (not share_rows and strategy == "random")


@pytest.mark.parametrize("stopped_at", [4, 6, 8])  # in the first epoch, at its end, in the second
def test_a_run_with_text_beside_its_pairs_resumes_exactly(tmp_path, stopped_at):
    texts = {"source": tiny_texts("en"), "target": tiny_texts("id")}
    fields = dict(texts=texts, source_lm_weight=1.0, save_strategy="steps", save_steps=stopped_at)
    whole = tiny_trainer(tmp_path / "whole", **fields)
    whole.train()
    resumed = tiny_trainer(tmp_path / "resumed", **fields)
    resumed.train(resume_from_checkpoint=f"{tmp_path}/whole/checkpoint-{stopped_at}")
    assert not moved(snapshot(whole.model), resumed.model)
    losses = [[row["loss"] for row in run.state.log_history if "loss" in row] for run in (whole, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 12


def test_a_gate_that_never_moved_is_told(tmp_path, caplog):
    base = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer()), n_embd=16, n_layer=1, n_head=2))
    gated, args = BackpackForCausalLM.from_backbone(base, num_senses=4), tiny_trainer(tmp_path).args
    with caplog.at_level("WARNING"):
        SensiaTrainer(gated, args, train_dataset=tiny_bitext(), processing_class=tiny_tokenizer())
    assert "The gate of the model is 0" in caplog.text and "induce_steps" in caplog.text


def test_text_beside_the_pairs_that_would_not_be_learned_from_is_refused(tmp_path):
    texts = {"source": tiny_texts("en")}
    with pytest.raises(ValueError, match="`replay_source`.*`source_lm_weight` is 0"):
        tiny_trainer(tmp_path, texts=texts)
    with pytest.raises(ValueError, match="language-model loss has no weight .`w_lm`."):
        tiny_trainer(tmp_path, texts=texts, source_lm_weight=1.0, w_lm=0.0)
    with pytest.raises(ValueError, match="`dataloader_persistent_workers` is true"):
        tiny_trainer(tmp_path, texts=texts, source_lm_weight=1.0, dataloader_persistent_workers=True)
    with pytest.raises(ValueError, match="its keys are"):
        tiny_trainer(tmp_path, texts={"english": tiny_texts("en")})
    both = texts | {"target": tiny_texts("id")}
    with pytest.raises(ValueError, match="`monolingual_ratio` 0.25: together .* starve the pairs"):
        tiny_trainer(tmp_path, texts=both, source_lm_weight=1.0, replay_ratio=0.8)
    long = {"target": Dataset.from_dict({"text": ["kucing tua " * 100]})}
    with pytest.raises(
        ValueError, match=r"there would be .* starve the pairs. Lower `monolingual_ratio` to 0\.\d+, or"
    ):
        tiny_trainer(tmp_path, texts=long, monolingual_ratio=1.0)
    tiny_trainer(tmp_path, texts=long, monolingual_ratio=1.0, max_length=16)  # in pieces


@pytest.mark.parametrize("context_state", ["mixture", "combined", "backbone"])
def test_senses_behind_a_gate_are_adapted(tmp_path, tiny_model, context_state):
    """The state that each loss reads, by what changes when the gate is shut."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(num_positions=40, residual_gate=True).double()
    fields = dict(max_steps=12, per_device_train_batch_size=6, context_state=context_state, sense_pooling="mixture")
    args = SensiaConfig(output_dir=str(tmp_path), use_cpu=True, **fields)
    trainer = SensiaTrainer(model, args, train_dataset=tiny_bitext(), processing_class=tokenizer)
    trainer.current_gradient_accumulation_steps, trainer.state.max_steps = 1, 12
    terms = []
    for gate in (0.0, 2.0):
        with torch.no_grad():
            model.backpack.residual_gate.weight.fill_(gate)
        trainer._sums = {}
        trainer.compute_loss(model.eval(), one_batch(trainer))
        terms.append({name: float(total) for name, (total, _) in trainer._sums.items()})
    changed = {name for name, value in terms[0].items() if value != pytest.approx(terms[1][name], rel=1e-9)}
    assert changed == {"loss_lm"} | ({"loss_context"} if context_state == "combined" else set())
    start = snapshot(model)
    trainer.train()
    assert len(moved(start, model)) > len(start) / 2


@pytest.mark.parametrize("polish_freeze", ["modules", "vectors"])
def test_another_training_of_the_same_model_trains_its_senses(tmp_path, polish_freeze):
    trainer = tiny_trainer(tmp_path / "one", polish_freeze=polish_freeze)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    trainer.train()
    assert {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad} == trained


def test_the_best_model_may_be_of_before_polish(tmp_path):
    fields = dict(eval_rows=8, eval_steps=2, save_strategy="steps", save_steps=2, load_best_model_at_end=True)
    fields |= dict(polish_freeze="vectors", metric_for_best_model="target_perplexity", greater_is_better=True)
    trainer = tiny_trainer(tmp_path, **fields)
    trainer.train()
    assert trainer.state.best_global_step <= 6  # of the highest perplexity, which is not the aim here
    assert trainer.backpack.sense_embeddings is None and trainer.model.config.tie_sense_embeddings
    best = load_file(f"{trainer.state.best_model_checkpoint}/model.safetensors")
    weights = trainer.model.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in best.items())


def test_a_model_with_sense_embeddings_of_its_own_resumes(tmp_path):
    def trainer(folder):
        made = tiny_trainer(folder, polish_freeze="none", save_strategy="steps", save_steps=5)
        made.backpack.untie_sense_embeddings()
        return made

    whole = trainer(tmp_path / "whole")
    whole.train()
    resumed = trainer(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=f"{tmp_path}/whole/checkpoint-5")
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))


def test_one_process_of_several_gpus_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(SensiaConfig, "n_gpu", 2)
    with pytest.raises(ValueError, match="One process sees 2 GPUs"):
        tiny_trainer(tmp_path)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_pairs_that_share_a_sentence_are_negatives_only_where_all_count_alike(tmp_path, beta):
    trainer = tiny_trainer(tmp_path, hard_negative_weight=beta)
    rows = [trainer.train_dataset[i] for i in (0, 1, 0, 2)]
    batch = trainer.data_collator(rows)
    assert batch["keys"][0].tolist() == batch["keys"][2].tolist() != batch["keys"][1].tolist()
    source, target = torch.randn(2, 4, 8).unbind()
    now = trainer.args.at_step(0, 12)
    found = trainer.contrastive_loss("sense", source, target, now, batch)
    options = {"hard_negative_weight": beta, "sentences": batch["keys"] if beta else None}
    assert found.item() == pytest.approx(info_nce(source, target, now.tau_sense, **options).item())
    plain = info_nce(source, target, now.tau_sense, hard_negative_weight=beta).item()
    assert (found.item() == pytest.approx(plain)) == (beta == 0)
