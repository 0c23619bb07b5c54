"""Several pairs of languages in one run: losses by pair, batches, replay, resume, and what bad input says."""

import math

import pytest
import torch
from datasets import Dataset

from sensia_trainer import SensiaTrainer
from sensia_trainer.hub.model_card import render_card
from sensia_trainer.training.by_pair import by_pair
from sensia_trainer.utils.files import plain
from tests.tiny import KeepsRows, tiny_languages, tiny_texts, tiny_tokenizer, tiny_trainer


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with each kind of batches, with replay of both; its trainer, weights before, and what is logged."""
    found = {}
    for batches in ("mixed", "one"):
        trainer = tiny_trainer(
            tmp_path_factory.mktemp(batches),
            trainer_class=KeepsRows,
            bitext=tiny_languages(id_sw=16),
            texts={"source": tiny_texts("en")},
            source_lm_weight=0.5,
            polish_freeze="none",
            batch_languages=batches,
            eval_rows=6,
            eval_steps=6,
        )
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.train()
        found[batches] = trainer, before, trainer.state.log_history
    return found


@pytest.mark.parametrize("batches", ["mixed", "one"])
def test_terms_of_each_pair_are_logged_and_every_weight_moves(runs, batches):
    trainer, before, history = runs[batches]
    assert all(not torch.equal(before[name], p) for name, p in trainer.model.named_parameters() if p.requires_grad)
    steps = [row for row in history if "loss_sense" in row]
    assert len(steps) == 12
    met = {name for row in steps for name in row if name.startswith("loss_") and "-" in name}
    kinds = ("sense", "context", "lm", "lm_source")
    assert met == {f"loss_{kind}_{pair}" for kind in kinds for pair in ("en-id", "en-sw", "id-sw")}
    for row, rows in zip(steps, trainer.seen, strict=True):
        pairs = [trainer.train_dataset["pair"][:][trainer.train_dataset["row"][:].index(number)] for number in rows]
        names = [trainer.pairs[pair] for pair in pairs]
        for kind in ("sense", "context"):  # a mean over pairs is the mean of those of each, by their number
            parts = [row[f"loss_{kind}_{name}"] for name in names]
            assert row[f"loss_{kind}"] == pytest.approx(sum(parts) / len(parts), rel=1e-5)
        if batches == "one":
            assert len(set(names)) == 1
            assert row[f"loss_lm_{names[0]}"] == pytest.approx(row["loss_lm"], rel=1e-5)


def test_the_card_has_what_was_measured_of_each_pair(runs, tmp_path):
    trainer, *_ = runs["mixed"]
    metrics = trainer.card_metrics()
    assert list(metrics["by_pair"]) == ["en-id", "en-sw", "id-sw"]
    recalls = [one["after"]["sense_recall_source_to_target"] for one in metrics["by_pair"].values()]
    assert metrics["after"]["sense_recall_source_to_target"] == pytest.approx(sum(recalls) / 3)
    trainer.save_model(tmp_path)
    trainer.processing_class.save_pretrained(tmp_path)
    card = render_card(tmp_path, plain(metrics | {"model_name": "tiny", "base_model": "base"}))
    assert "| English–Swahili | this model |" in card


def test_mixed_batches_have_several_languages(runs):
    trainer, *_ = runs["mixed"]
    pair_of = dict(zip(trainer.train_dataset["row"][:], trainer.train_dataset["pair"][:]))
    assert max(len({pair_of[row] for row in rows}) for rows in trainer.seen) == 3


def test_each_pair_is_evaluated_in_its_own_languages(runs):
    trainer, _, history = runs["one"]
    metrics = by_pair(trainer.evaluate(), trainer.pairs, "eval")
    assert list(metrics) == ["en-id", "en-sw", "id-sw"]
    assert all(one["pairs"] == 6 and math.isfinite(one["target_bits_per_byte"]) for one in metrics.values())
    # Pairs are the same sentences: the target of one is the target, or the source, of another.
    assert metrics["en-id"]["target_bits_per_byte"] == pytest.approx(metrics["id-sw"]["source_bits_per_byte"])
    assert metrics["en-sw"]["target_bits_per_byte"] == pytest.approx(metrics["id-sw"]["target_bits_per_byte"])
    assert metrics["en-id"]["source_bits_per_byte"] == pytest.approx(metrics["en-sw"]["source_bits_per_byte"])
    assert [row["step"] for row in history if "eval_id-sw_pairs" in row][:2] == [6, 12]


def test_one_batch_weighs_as_it_does_in_a_run_of_one_pair(tmp_path):
    """The same pairs as one bitext or as two: the same losses, and the same gradients."""
    pairs = tiny_languages(8, 0)["en-id"]["translation"]
    swahili = [{"en": pair["en"], "sw": pair["id"]} for pair in pairs]
    parts = {"en-id": pairs, "en-sw": swahili}
    several = {name: Dataset.from_dict({"translation": part}) for name, part in parts.items()}
    twice = Dataset.from_dict({"translation": [*pairs] * 2})
    losses, gradients = [], []
    for name, bitext in (("several", several), ("one", twice)):
        trainer = tiny_trainer(
            tmp_path / name, bitext=bitext, dropout=0.0, target_language="id" if name == "one" else None
        )
        trainer.state.max_steps, trainer.state.global_step, trainer.current_gradient_accumulation_steps = 12, 1, 1
        batch = trainer.data_collator([trainer.train_dataset[row] for row in range(16)])
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.mark.parametrize("fields", [{"batch_languages": "one"}, {"contrastive_chunk_size": 3}])
def test_resumed_runs_end_alike(tmp_path, fields):
    ends = []
    for name in ("whole", "resumed"):
        options = {"bitext": tiny_languages(), "save_strategy": "steps", "save_steps": 5, "logging_steps": 3} | fields
        trainer = tiny_trainer(tmp_path / name, **options)
        if name == "resumed":
            trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5"))
        else:
            trainer.train()
        kept = [{k: v for k, v in row.items() if k.startswith("loss")} for row in trainer.state.log_history]
        ends.append((kept[-2], trainer.model.state_dict()))
    assert ends[0][0] == ends[1][0] and "loss_sense_en-id" in ends[0][0]
    assert all(torch.equal(value, ends[1][1][name]) for name, value in ends[0][1].items())


def test_drift_is_that_of_words_of_the_source_language(tmp_path):
    bitext = {"id-sw": tiny_languages(id_sw=24)["id-sw"], "en-id": tiny_languages(en_id=24)["en-id"]}
    trainer = tiny_trainer(tmp_path, bitext=bitext)
    tokenizer = trainer.processing_class
    english = {token for pair in bitext["en-id"]["translation"] for token in tokenizer(pair["en"])["input_ids"]}
    assert set(trainer._frequent_source_tokens()) <= english
    assert not set(trainer.train_dataset[:24]["source_ids"][0]) <= english  # the first rows are Indonesian


def test_a_language_with_fewer_pairs_than_a_batch_is_named(tmp_path):
    with pytest.raises(
        ValueError, match="bitext of en-id has 5 pairs, less than one batch of 8 .* Lower .* add pairs"
    ):
        tiny_trainer(tmp_path, bitext=tiny_languages(en_id=5))


def test_pairs_that_were_not_trained_on_are_evaluated(tmp_path):
    """Zero-shot: neither side is the source language. And a bitext alone, after a training on several."""
    unseen = tiny_languages(0, 0, id_sw=6)
    trainer = tiny_trainer(tmp_path, bitext=tiny_languages(), eval_strategy="no")
    metrics = trainer.evaluate(unseen)
    assert metrics["eval_id-sw_pairs"] == 6 and 0 <= metrics["eval_id-sw_sense_recall_source_to_target"] <= 1
    alone = trainer.evaluate(
        unseen["id-sw"].map(lambda row: {"translation": {"en": "a", "sw": row["translation"]["sw"]}})
    )
    assert alone["eval_pairs"] == 6
    untrained = SensiaTrainer(trainer.model, trainer.args, eval_dataset=unseen, processing_class=tiny_tokenizer())
    assert untrained.evaluate()["eval_id-sw_pairs"] == 6
    with pytest.raises(ValueError, match="`target_language` is not set"):
        SensiaTrainer(
            trainer.model, trainer.args, eval_dataset={"x": unseen["id-sw"]}, processing_class=tiny_tokenizer()
        )


def test_names_of_pairs_are_two_languages_in_any_spelling(tmp_path):
    bitext = tiny_languages()
    with pytest.raises(ValueError, match="pairs named 'en-zh-TW'.* 'en-zh_Hant'"):
        tiny_trainer(tmp_path, bitext={"en-zh-TW": bitext["en-id"], "en-sw": bitext["en-sw"]})
    spelt = {"eng_Latn-ind_Latn": bitext["en-id"], "en-sw": bitext["en-sw"]}
    found = [tiny_trainer(tmp_path, bitext=one)._frequent_source_tokens() for one in (spelt, bitext)]
    assert found[0] == found[1] and found[0]


def test_a_pair_alone_in_the_last_batch_is_refused_before_the_first_step(tmp_path):
    bitext = tiny_languages(16, 9)
    fields = {"dataloader_drop_last": False, "language_temperature": 1.0}
    with pytest.raises(ValueError, match="Of 25 pairs in batches of 8, the last batch has one alone"):
        tiny_trainer(tmp_path, bitext=bitext, **fields)
    tiny_trainer(tmp_path, bitext=bitext, batch_languages="one", **fields)
