import json

import pytest

from sensia_trainer.commands.adapt import main
from sensia_trainer.config import SensiaConfig
from sensia_trainer.training.adaptation import evaluations
from sensia_trainer.training.best_model import check_measured
from sensia_trainer.training.by_pair import DRIFT, with_drift
from sensia_trainer.training.settings import InductionConfig, PretrainingArguments
from sensia_trainer.utils.files import read_json
from tests.tiny import tiny_bitext, tiny_model, tiny_tokenizer


def config(metric, **values):
    return SensiaConfig(output_dir="folder", use_cpu=True, metric_for_best_model=metric, **values)


@pytest.mark.parametrize(
    "metric, greater",
    [
        ("target_bits_per_byte", False),
        ("eval_source_perplexity", False),
        ("target_perplexity_per_word", False),
        ("source_nll_per_byte", False),
        ("en-id_sense_mean_rank_source_to_target", False),
        ("context_recall_target_to_source", True),
        ("sense_margin_source_to_target", True),
    ],
)
def test_best_is_lowest_where_low_is_good(metric, greater):
    assert config(metric).greater_is_better is greater
    assert config(metric, greater_is_better=not greater).greater_is_better is not greater


def test_induction_and_pretraining_choose_likewise():
    for arguments in (InductionConfig, PretrainingArguments):
        asked = arguments(output_dir="folder", use_cpu=True, metric_for_best_model="perplexity")
        assert asked.greater_is_better is False
    with pytest.raises(ValueError, match="`metric_for_best_model` is not; name what evaluation logs, e.g. perplexity"):
        InductionConfig(output_dir="folder", use_cpu=True, load_best_model_at_end=True)


@pytest.mark.parametrize("reader", [{"save_strategy": "best"}, {"lr_scheduler_type": "reduce_lr_on_plateau"}], ids=str)
def test_whatever_reads_a_metric_wants_one_that_is_measured(reader):
    steps, measured = dict(eval_strategy="steps", eval_steps=5), {"before_recall": 0.5, "before_random_recall": 0.1}
    with pytest.raises(ValueError, match="is set, but `metric_for_best_model` is not"):
        config(None, **steps, **reader)
    for metric in ("bleu", "random_recall"):
        with pytest.raises(ValueError, match="which evaluation does not measure; it is one of recall"):
            check_measured(config(metric, **steps, **reader), measured, "before_")


def test_a_metric_that_is_not_measured_is_named_with_those_that_are():
    steps = dict(eval_strategy="steps", save_strategy="steps", eval_steps=5, save_steps=5)
    asked = config("bleu", load_best_model_at_end=True, **steps)
    with pytest.raises(ValueError, match="'bleu', which evaluation does not measure; it is one of bits, recall"):
        check_measured(asked, {"before_recall": 0.5, "before_bits": 1.0, "before_recall_interval": [0, 1]}, "before_")
    check_measured(config("bleu"), {}, "before_")


def test_an_adaptation_ends_with_its_best_model_and_refuses_an_unknown_metric(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer = tiny_tokenizer()
    for part in (tiny_model(tokenizer), tokenizer):
        part.save_pretrained("base")
    for name, rows in (("train", 40), ("held-out", 8)):
        pairs = tiny_bitext(rows, seed=rows)["translation"]
        lines = ["en\tid", *(f"{pair['en']} {i}\t{pair['id']} {i}" for i, pair in enumerate(pairs))]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    fields = "--model base --bitext train.tsv --eval_bitext held-out.tsv --target_language id --vocabulary_size 0 "
    fields += (
        "--max_steps 6 --eval_strategy steps --eval_steps 2 --save_strategy steps --save_steps 2 --save_total_limit 3 "
    )
    fields += "--load_best_model_at_end true --use_cpu true --report_to none --disable_tqdm true --licence CC0 "
    fields += "--per_device_train_batch_size 8 --logging_steps 2 --learning_rate 0.05 --metric_for_best_model"
    with pytest.raises(ValueError, match="'recall', which evaluation does not measure"):
        main([*fields.split(), "recall", "--output_dir", "refused"])
    main([*fields.split(), "sense_mean_rank_source_to_target", "--output_dir", "best"])
    states = [read_json(path) for path in (tmp_path / "best").glob("checkpoint-*/trainer_state.json")]
    state = max(states, key=lambda state: state["global_step"])
    rows = [row for row in state["log_history"] if "eval_sense_mean_rank_source_to_target" in row]
    ranks = {row["step"]: row["eval_sense_mean_rank_source_to_target"] for row in rows}
    assert ranks[state["best_global_step"]] == min(ranks.values())
    metrics = json.loads((tmp_path / "best" / "metrics.json").read_text())
    assert metrics["after"]["sense_mean_rank_source_to_target"] == pytest.approx(min(ranks.values()))
    # Each step was evaluated once, and the drift is that of the model that is kept.
    steps = [row["step"] for row in evaluations(metrics["history"])]
    assert len(steps) == len(set(steps)) and set(steps) >= set(ranks)
    drifts = {row["step"]: row[DRIFT] for row in state["log_history"] if DRIFT in row}
    assert with_drift(metrics)["after"][DRIFT] == pytest.approx(drifts[state["best_global_step"]], abs=1e-6)
    assert len(set(drifts.values())) > 1
