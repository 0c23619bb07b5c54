"""Cards: what the metrics hold is what the card says, in front matter and body, and its snippet runs."""

import ast
import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from packaging.version import Version
from peft import LoraConfig, get_peft_model

from sensia_trainer.hub.card_tables import RESULTS, constant_weights, duration, phase_table
from sensia_trainer.hub.folders import finish_folder
from sensia_trainer.hub.languages import matrix_table
from sensia_trainer.hub.model_card import (
    TESTED_TRANSFORMERS,
    adaptation_card,
    base_model_name,
    baseline_card,
    induction_card,
    model_facts,
    pretraining_card,
    write_card,
)
from sensia_trainer.hub.validation import MODEL_FIELDS, MODEL_SECTIONS, validate_card
from sensia_trainer.schedule import PhaseSchedule


ADAPTATION = {
    "kind": "adaptation",
    "model_name": "backpack-micro-sensia-id",
    "base_model": "sensia/backpack-micro-en",
    "languages": {"source": "en", "target": "ind_Latn"},
    "data": {
        "name": "django catalogues",
        "pairs": 12345,
        "licence": "BSD-3-Clause",
        "fingerprint": "abc123",
        "hub_id": "owner/bitext",
        "filters": [
            {"filter": "length", "kept": 900, "removed": 100},
            {"filter": "ratio", "kept": 850, "removed": 50},
        ],
        "corpora": {"django": 12345},
    },
    "config": {
        "max_steps": 1000,
        "align_fraction": 0.2,
        "joint_fraction": 0.3,
        "polish_fraction": 0.5,
        "align_weights": [0.54, 0.44, 0.02],
        "joint_weights": [0.4, 0.4, 0.2],
        "polish_weights": [0.15, 0.15, 0.7],
        "tau_sense": 0.05,
        "polish_freeze": "modules",
        "learning_rate": 0.0005,
        "sense_pool_temperature": 0.7,
    },
    "evaluation": {"name": "FLORES-200", "type": "facebook/flores", "config": "eng_Latn-ind_Latn", "split": "devtest"},
    "before": {"sense_recall_source_to_target": 0.0123, "target_perplexity": 2345.678, "pairs": 997, "truncated": 0},
    "after": {
        "sense_recall_source_to_target": 0.75123,
        "sense_recall_source_to_target_interval": [0.7211, 0.7812],
        "context_recall_target_to_source": 0.70456,
        "target_perplexity": 48.1239,
        "pairs": 997,
        "truncated": 3,
    },
    "control": {"sense_recall_source_to_target": 0.0234, "target_perplexity": 44.4444, "pairs": 997, "truncated": 3},
    "benchmarks": [
        {"name": "XCOPA", "split": "test", "value": 0.534, "interval": [0.49, 0.578], "control": 0.5, "items": 500}
    ],
    "history": [],
    "seconds": 1260.4,
    "processes": 2,
    "parameters": 3_156_864,
    "hardware": "2 CPU cores",
    "versions": {"torch": "2.13.0"},
    "command": "sensia adapt recipe.yaml",
}

PRETRAINING = {
    "kind": "pretraining",
    "model_name": "backpack-micro-en",
    "data": {
        "sources": ["/some/machine/books.txt.gz", "/some/machine/wiki.txt.gz"],
        "tokens": 10_000_000,
        "block_size": 256,
        "held_out_blocks": 200,
        "licence": "public domain",
    },
    "config": {"steps": 2000, "learning_rate": 0.001, "per_device_train_batch_size": 16},
    "after": {"perplexity": 61.25, "cross_entropy": 4.115},
    "seconds": 3900,
}


@pytest.fixture
def metrics():
    return copy.deepcopy(ADAPTATION)


def body_of(card: str) -> str:
    return ModelCard(card).text


def snippet_of(card: str, repo) -> str:
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    snippet, count = re.subn(r'^repo = ".*"$', f"repo = {str(repo)!r}", "\n".join(blocks), flags=re.MULTILINE)
    assert count == len(blocks) > 0
    return snippet


@pytest.mark.parametrize("card", [adaptation_card(ADAPTATION), pretraining_card(PRETRAINING)], ids=["adapted", "base"])
def test_front_matter_round_trips(card):
    front_matter = yaml.safe_load(card.split("---\n")[1])
    data = ModelCard(card).data.to_dict()
    assert data == front_matter
    assert set(MODEL_FIELDS) <= set(data)
    assert data["library_name"] == "transformers" and data["pipeline_tag"] == "text-generation"
    assert data["license"] == "apache-2.0"  # of text in the public domain, or under BSD-3-Clause
    assert "licence" not in data and "model_name" not in data and "eval_results" not in data
    validate_card(card)


def test_front_matter_of_an_adapted_model(metrics):
    data = ModelCard(adaptation_card(metrics)).data.to_dict()
    assert data["language"] == ["en", "id"]
    assert data["base_model"] == "sensia/backpack-micro-en" and data["base_model_relation"] == "finetune"
    assert data["datasets"] == ["owner/bitext"]
    assert {"backpack", "sensia", "cross-lingual", "custom_code"} <= set(data["tags"])


def test_a_script_goes_where_the_hub_takes_it(metrics):
    text = adaptation_card(metrics | {"languages": {"source": "en", "target": "zh_Hant"}})
    data = ModelCard(text).data.to_dict()
    assert (data["language"], data["language_bcp47"]) == (["en", "zh"], ["zh-Hant"])
    validate_card(text)
    with pytest.raises(ValueError, match="`language` is 'zh_Hant', but the Hub takes codes of two or three letters"):
        validate_card(text.replace("\n- zh\n", "\n- zh_Hant\n", 1))


def test_the_card_says_which_sides_were_predicted_and_no_ratio_of_text_that_there_was_not(metrics):
    config = metrics["config"] | {"source_lm_weight": 0.0, "replay_ratio": 0.25}
    target_alone = adaptation_card(metrics | {"config": config})
    assert "cross-entropy on the Indonesian side" in target_alone and "replay ratio" not in target_alone
    data = metrics["data"] | {"replay source": {"name": "text.txt", "texts": 7}}
    both = adaptation_card(metrics | {"config": config | {"source_lm_weight": 1.0}, "data": data})
    assert "cross-entropy on both sides" in both and "predict both languages' text" in both
    assert "replay ratio | 0.25" in both


def test_every_value_of_the_model_index_stands_in_the_metrics(metrics):
    results = ModelCard(adaptation_card(metrics)).data.eval_results
    values = {result.metric_name: result.metric_value for result in results}
    after = metrics["after"]
    among = f", among {after['pairs']:,}"
    assert values == {
        f"recall@1 English → Indonesian, sense vectors{among}": round(after["sense_recall_source_to_target"], 3),
        f"recall@1 Indonesian → English, context vectors{among}": round(after["context_recall_target_to_source"], 3),
        "perplexity per token, Indonesian": round(after["target_perplexity"], 1),
        None: metrics["benchmarks"][0]["value"],
    }
    assert {(r.dataset_type, r.dataset_split) for r in results} == {("facebook/flores", "devtest"), ("xcopa", "test")}


def test_the_model_index_has_yardsticks_beside_recall_and_perplexity(metrics):
    overlap = {f"overlap_recall_{way}": 0.1234 for way in DIRECTIONS}
    metrics["after"] |= overlap | {"target_bits_per_byte": 1.7654, "source_bits_per_byte": 1.1234}
    results = ModelCard(adaptation_card(metrics)).data.eval_results
    values = {result.metric_name: (result.metric_type, result.metric_value) for result in results}
    for way in ("English → Indonesian", "Indonesian → English"):
        assert values[f"recall@1 {way}, token overlap (no model), among 997"] == ("accuracy", 0.123)
    assert values["bits per byte, Indonesian"] == ("bits_per_byte", 1.765)
    assert values["bits per byte, English"] == ("bits_per_byte", 1.123)
    (base,) = ModelCard(pretraining_card(PRETRAINING | {"after": {"bits_per_byte": 2.5}})).data.eval_results
    assert (base.metric_type, base.metric_value) == ("bits_per_byte", 2.5)


def test_results_stand_beside_the_control_with_intervals(metrics):
    body = body_of(adaptation_card(metrics))
    assert "| recall@1 English → Indonesian, sense vectors | 0.012 | 0.751 [0.721, 0.781] | 0.023 |" in body
    assert "| perplexity per token, Indonesian | 2,345.7 | 48.1 | 44.4 |" in body
    assert "| XCOPA test | 500 | 0.534 [0.490, 0.578] | 0.500 | accuracy |" in body
    assert "997 sentence pairs of FLORES-200 devtest. 3 of them were cut" in body


def test_random_weights_stand_beside_the_vectors_of_every_kind(metrics):
    key = "random_context_recall_target_to_source"
    metrics["after"] |= {key: 0.041, f"{key}_interval": [0.03, 0.052]}
    row = "| recall@1 Indonesian → English, context vectors, random weights |  | 0.041 [0.030, 0.052] |  |"
    assert row in baseline_card(metrics) and row in adaptation_card(metrics)


def test_how_far_the_senses_of_the_source_moved_stands_on_the_card(metrics):
    assert "senses, mean cosine" not in adaptation_card(metrics)
    metrics["history"] = [{"step": 1, "source_sense_drift_cosine": 0.75}]
    assert "| English senses, mean cosine to those before |  | 0.750 |  |" in adaptation_card(metrics)
    card = adaptation_card(metrics | several((10, 10), {}))
    assert "\n\nEnglish senses, mean cosine to those before: 0.750.\n" in card


def test_what_was_not_measured_is_not_mentioned(metrics):
    for name in ("control", "benchmarks", "seconds", "hardware", "versions", "command", "evaluation"):
        del metrics[name]
    metrics["after"] = {"target_perplexity": 48.1}
    metrics["before"] = {"target_perplexity": float("nan")}
    metrics["data"] = {"name": "django catalogues"}
    card = adaptation_card(metrics)
    assert "| perplexity per token, Indonesian |  | 48.1 |" in card
    for absent in ("recall@1", "control", "Time and energy", "Reproduction", "nan", "None", "XCOPA", "datasets:"):
        assert absent not in body_of(card), absent
    assert not re.search(r"more information needed", card, flags=re.IGNORECASE)
    validate_card(card)
    with pytest.raises(ValueError, match="licence of the weights is unknown.*--license"):
        validate_card(card, to_publish=True)


def test_filter_table_corpora_and_counts(metrics):
    body = body_of(adaptation_card(metrics))
    assert "| filter | kept | removed |\n| --- | ---: | ---: |\n| length | 900 | 100 |" in body
    assert "| django | 12,345 |" in body
    del metrics["data"]["filters"]
    metrics["data"]["counts"] = {"read": 1000, "too_long": 100, "kept": 900}
    assert "| too long | 100 |" in body_of(adaptation_card(metrics))


def test_phase_table_shows_steps_weights_and_freezing(metrics):
    lines = phase_table(metrics["config"]).splitlines()
    assert lines[2] == "| align | 0–200 | 0.54 → 0.4 | 0.44 → 0.4 | 0.02 → 0.2 | 0.05 | 0.07 | trained |"
    assert lines[3] == "| joint | 200–500 | 0.4 → 0.15 | 0.4 → 0.15 | 0.2 → 0.7 | 0.05 | 0.07 | trained |"
    assert lines[4] == "| polish | 500–1,000 | 0.15 | 0.15 | 0.7 | 0.05 | 0.07 | frozen |"
    constant = phase_table(metrics["config"] | {"w_sense": 0.0}).splitlines()
    # A constant weight is one of those that are divided by their sum, in the table as in training.
    config = metrics["config"] | {"w_lm": 2.0, "normalise_weights": True}
    first = phase_table(config).splitlines()[2].split(" | ")
    state = PhaseSchedule.of(config).at(1e-6)
    assert first[2].startswith(f"{state.w_sense:.3g}") and first[4].startswith(f"{state.w_lm:.3g}")
    assert state.w_lm == pytest.approx(2 / (0.54 + 0.44 + 2), rel=1e-3)
    assert constant[3] == "| joint | 200–500 | 0 | 0.4 → 0.15 | 0.2 → 0.7 | 0.05 | 0.07 | trained |"
    without_polish = {"phases": ["align", "joint"], "polish_freeze": "modules"}
    assert [line.split(" | ")[1] for line in phase_table(without_polish).splitlines()[2:]] == ["40%", "60%"]


def test_weights_that_never_change_are_called_constant(metrics):
    assert "move along a cosine" in adaptation_card(metrics)
    metrics["config"] |= {f"{phase}_weights": [0.1, 0.25, 0.65] for phase in ("align", "joint", "polish")}
    card = adaptation_card(metrics)
    assert "Their weights are constant.\n" in card and "cosine" not in card.partition("## Training procedure")[2][:600]
    assert constant_weights({"w_sense": 1, "w_context": 1, "w_lm": 1, "phases": ["align"]})
    assert not constant_weights({})


def several(sizes, interval):
    """What a model of English and two more languages measured, on as many pairs of each."""
    values = {"sense_recall_source_to_target": 0.5} | interval
    pairs = {f"en-{code}": {"after": values | {"pairs": size}} for code, size in zip(("id", "sw"), sizes, strict=True)}
    languages = {"source": "en", "targets": ["id", "sw"], "pairs": list(pairs)}
    after = {"sense_recall_source_to_target": 0.5, "pairs": sum(sizes)}
    return {"languages": languages, "by_pair": pairs, "after": after, "before": None, "control": None}


def test_several_languages_are_measured_on_the_sentences_of_each(metrics):
    metrics |= several((10, 10), {"sense_recall_source_to_target_interval": [0.4, 0.6]})
    body = body_of(adaptation_card(metrics))
    assert "Measured on 10 sentence pairs of each of 2 pairs of languages, of FLORES-200 devtest." in body
    assert "among the translations of all of the same pair of languages, is their own" in body
    assert "20 sentence pairs" not in body and "Brackets are 95 % bootstrap intervals" in body
    body = body_of(adaptation_card(metrics | several((1100, 900), {})))
    assert "Measured on 900 to 1,100 sentence pairs of each of 2" in body and "Brackets" not in body


def test_several_languages_are_shown_beside_every_yardstick_and_their_benchmarks_once(metrics):
    values = {"overlap_recall_target_to_source": 0.2, "random_sense_recall_source_to_target": 0.04}
    values |= {"source_bits_per_byte": 1.5}
    metrics |= several((10, 10), values | {"sense_beyond_overlap_source_to_target": 0.3})
    metrics["by_pair"]["en-id"]["before"] = {"overlap_recall_target_to_source": 0.1}
    matrix = {"languages": ["en", "id", "sw"], "source": "en", "sense_beyond_overlap": {"zero_shot": 0.25}}
    metrics["matrix"] = matrix | {"context": {f"{a}-{b}": 0.5 for a in ("en", "id", "sw") for b in ("en", "id", "sw")}}
    card = adaptation_card(metrics)
    header = "sense R@1 → | overlap R@1 ← | random weights, sense R@1 → | where overlap fails, sense R@1 → |"
    assert header in card and "| English–Indonesian | before | – | 0.100 | – | – |" in card
    assert "| English–Swahili | this model | 0.500 | 0.200 | 0.040 | 0.300 |" in card
    assert "0.250 by sense vectors where overlap fails" in card
    results = ModelCard(card).data.eval_results
    assert [result.dataset_name for result in results].count("XCOPA") == 1
    assert [result.metric_name for result in results].count("bits per byte, English") == 1 and len(results) == 6


def test_the_command_says_what_data_it_needs(metrics):
    assert "SENSIA_DATA" not in adaptation_card(metrics)
    metrics["data"]["name"] = "${SENSIA_DATA}/train/en-id.tsv.gz"
    assert "It needs `SENSIA_DATA`" in adaptation_card(metrics).partition("## Reproduction")[2]


def test_retrieval_between_languages_stands_beside_overlap():
    ways = {"en-id": 0.5, "id-en": 0.25}
    matrix = {"languages": ["en", "id"], "source": "en", "context": ways, "sense": ways}
    assert "| English |  | 0.500 |" in matrix_table({"matrix": matrix})
    matrix["sense"] = matrix["sense"] | {"en-id_interval": [0.4, 0.6]}
    overlap = {"en-id": 0.125, "en-id_interval": [0.1, 0.15], "id-en": 0.3, "zero_shot": 0.1}
    with_overlap = matrix_table({"matrix": matrix | {"overlap": overlap}})
    assert "| English |  | 0.500 (0.125) |" in with_overlap and "| 0.250 (0.300) |  |" in with_overlap


def test_the_card_of_a_base_model():
    card = pretraining_card(PRETRAINING)
    assert "`books.txt.gz`, `wiki.txt.gz`. Licence of the text, as it was given: public domain." in card
    assert "/some/machine" not in card
    assert "Measured on 200 blocks of 256 tokens held out" in card
    assert "| tokens trained on | 8,192,000 |" in card  # 2,000 steps of 16 blocks of 256
    assert "| tokens | 10,000,000 |" in card and "| perplexity per token, English | 61.2 |" in card
    assert ModelCard(card).data.language == ["en"]


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_card_of_induced_senses(weight):
    spoken = {"common_share": 0.654, "words": [{"word": "king", "senses": [["queen", "duke"], ["said"]]}]}
    config = PRETRAINING["config"] | {"mixture_weight": weight}
    metrics = PRETRAINING | {"kind": "induction", "base_model": "smollm2-135m", "config": config}
    card = induction_card(metrics | {"sense_words": spoken})
    assert "65 % of the senses (of their squared length) is the same whatever the word" in card
    assert "| king | 0 | queen, duke |" in card and "| king | 1 | said |" in card
    assert ("the cross-entropy of the mixture of senses alone" in card) == bool(weight)
    assert "What the senses speak for" not in induction_card(metrics) and "was opened" not in induction_card(metrics)
    after = metrics["after"] | {"gate": 0.098, "trained_gate": 0.016}
    opened = induction_card(metrics | {"after": after})
    assert "the gate was opened as far as training text" in opened and "with that gate" not in opened
    assert "| gate as training left it | 0.016 |" in opened


def test_time_and_licence(metrics):
    metrics |= {"energy_kwh": 0.0123, "co2_eq_emissions": 4.5}
    metrics["data"]["licence"] = "CC BY-NC 4.0 (in part)"
    card = adaptation_card(metrics)
    data = ModelCard(card).data.to_dict()
    assert data["license"] == "cc-by-nc-4.0" and data["co2_eq_emissions"] == 4.5
    metrics["data"] |= {"licence": "by corpus", "licence_classes": {"open": 10, "nc": 1}}
    assert ModelCard(adaptation_card(metrics)).data.license == "cc-by-nc-4.0"
    del metrics["data"]["licence"]
    unknown = adaptation_card(metrics | {"data": {"name": "letters"}})
    assert ModelCard(unknown).data.license == "unknown" and "theirs is **unknown**" in unknown
    metrics["base_licence"] = {"license": "cc-by-sa-4.0"}
    metrics["data"] = {"licence": "CC0"}
    assert ModelCard(adaptation_card(metrics)).data.license == "cc-by-sa-4.0"
    metrics["data"]["licence"] = "CC BY-SA 4.0, GPL-3.0"
    mixed = ModelCard(adaptation_card(metrics))
    assert (mixed.data.license, mixed.data.license_link) == ("other", "README.md#training-data")
    validate_card(str(mixed), to_publish=True)
    for row in ("| training time | 21 min |", "| energy | 0.0123 kWh |", "| hardware | 2 CPU cores |"):
        assert row in card
    metrics["license"] = "mit"
    assert ModelCard(adaptation_card(metrics)).data.license == "mit"


@pytest.mark.parametrize(
    "config",
    [{f"{phase}_weights": [0, 0, 1] for phase in ("align", "joint", "polish")}, {"w_sense": 0.0, "w_context": 0.0}],
    ids=["scheduled", "constant"],
)
def test_the_card_of_a_control_does_not_claim_alignment(metrics, config):
    metrics["config"] |= config
    card = adaptation_card(metrics)
    assert "Three losses" not in card and "this is the control of sense adaptation" in card


def test_every_result_key_is_one_the_evaluation_may_write():
    directions = [f"{s}_{m}_{d}" for s in ("sense", "context") for m in ("recall", "mean_rank") for d in DIRECTIONS]
    assert set(directions) <= set(RESULTS)
    for key in ("sense_entropy_source", "sense_entropy_target", "target_perplexity", "target_bits_per_byte"):
        assert key in RESULTS


DIRECTIONS = ("source_to_target", "target_to_source")


@pytest.mark.parametrize("name", ["model_name", "base_model", "languages"])
def test_metrics_without_what_every_card_needs_are_refused(metrics, name):
    del metrics[name]
    with pytest.raises(ValueError, match=name):
        adaptation_card(metrics)


@pytest.mark.parametrize("name", [*MODEL_FIELDS, "base_model_relation"])
def test_validation_names_the_missing_field(metrics, name):
    card = adaptation_card(metrics)
    front_matter = yaml.safe_load(card.split("---\n")[1])
    del front_matter[name]
    text = f"---\n{yaml.safe_dump(front_matter)}---\n" + body_of(card)
    with pytest.raises(ValueError, match=f"`{name}` is missing"):
        validate_card(text)


@pytest.mark.parametrize("section", MODEL_SECTIONS)
def test_validation_names_the_missing_section(metrics, section):
    card = adaptation_card(metrics).replace(f"\n## {section}\n", f"\n### {section}\n")
    with pytest.raises(ValueError, match=f"`## {section}` is missing"):
        validate_card(card)


def test_validation_refuses_placeholders_unknown_languages_and_nameless_licences(metrics):
    card = adaptation_card(metrics)
    with pytest.raises(ValueError, match="placeholder 'More Information Needed'"):
        validate_card(card + "\nMore Information Needed\n")
    with pytest.raises(ValueError, match="xx_Wrong"):
        validate_card(card.replace("\n- id\n", "\n- xx_Wrong\n", 1))
    with pytest.raises(ValueError, match="license_name.*license_link"):
        validate_card(card.replace("license: apache-2.0", "license: other"))
    with pytest.raises(ValueError, match="`license` is 'Apache 2', but identifiers of the Hub are like apache-2.0"):
        validate_card(card.replace("license: apache-2.0", "license: Apache 2"))
    with pytest.raises(ValueError, match="front matter of the card is not YAML"):
        validate_card(card.replace("language:", "language: [", 1))
    with pytest.raises(ValueError, match="`license` is missing"):
        validate_card("# A card without front matter\n")


def test_only_an_id_tells_the_hub_of_the_base_model(metrics):
    metrics["base_model"] = "backpack-micro-en"
    named = adaptation_card(metrics).replace("\nlibrary_name:", "\nbase_model: backpack-micro-en\nlibrary_name:")
    with pytest.raises(ValueError, match="`base_model` is 'backpack-micro-en', but must be .*--base-model"):
        validate_card(named)
    for names in ({}, {"repo_id": "owner/backpack-id"}, {"base_model": "a model without a name"}):
        card = adaptation_card(metrics | names)
        validate_card(card)
        assert not {"base_model", "base_model_relation"} & set(ModelCard(card).data.to_dict())
        assert f"`{names.get('base_model', 'backpack-micro-en')}`, a Backpack language model of English" in card


def test_validation_of_a_dataset_card():
    front_matter = {"language": ["en", "id"], "license": "cc-by-4.0", "pretty_name": "Bitext"}
    front_matter["task_categories"] = ["translation"]
    validate_card(f"---\n{yaml.safe_dump(front_matter)}---\n\n# Bitext\n", repo_type="dataset")
    del front_matter["pretty_name"]
    with pytest.raises(ValueError, match="pretty_name"):
        validate_card(f"---\n{yaml.safe_dump(front_matter)}---\n\n# Bitext\n", repo_type="dataset")


def test_a_card_does_not_tell_where_files_lay(metrics):
    metrics["data"]["name"] = "$DATA/train/en-id.tsv.gz, owner/name, /home/me/more.tsv"
    metrics["command"] = "sensia adapt recipes/x.yaml --model=/home/me/base --rate 1/2"
    del metrics["evaluation"]
    card = adaptation_card(metrics)
    assert "`en-id.tsv.gz, owner/name, more.tsv`." in card
    assert "sensia adapt recipes/x.yaml --model=base --rate 1/2\n" in card
    assert "/home/me" not in card


def test_base_model_is_an_id_or_the_name_of_a_folder(tmp_path):
    folder = tmp_path / "backpack-micro-en"
    folder.mkdir()
    assert base_model_name("owner/backpack-small") == "owner/backpack-small"
    assert base_model_name(str(folder)) == base_model_name("model_cards/backpack-micro-en/") == "backpack-micro-en"
    assert base_model_name("../outputs/backpack-micro-en") == "backpack-micro-en"
    assert base_model_name("outputs/smollm2-induced") == "smollm2-induced"
    assert base_model_name("models/mine") == "models/mine" and base_model_name("models/mine", is_folder=True) == "mine"


def test_a_folder_that_a_run_began_from_is_no_ones_repository(metrics):
    card = adaptation_card(metrics | {"base_model": "models/mine", "base_is_folder": True})
    assert "`mine`, a Backpack" in card and "base_model" not in ModelCard(card).data.to_dict()


def test_a_card_calls_nothing_english_that_is_of_another_language(metrics):
    languages = {"source": "fr", "target": "ind_Latn"}
    card = adaptation_card(metrics | {"languages": languages, "base_model": "owner/backpack-fr", "vocabulary": None})
    assert "a Backpack language model of French" in card and "more pieces than French" in card
    assert "English" not in card.split("## Use")[1].split("## Citation")[0]


def test_durations():
    assert [duration(x) for x in (42.4, 1260.4, 7500)] == ["42 s", "21 min", "2 h 05 min"]


HOSTILE = "a](http://x) <img src=x onerror=alert(1)>\n\n# Heading\n```\nprint(1)\n```\n| **b** | `c` |"


def test_names_are_shown_and_not_obeyed(metrics):
    metrics |= {"model_name": HOSTILE, "title": HOSTILE, "command": HOSTILE, "hardware": HOSTILE, "prompt": HOSTILE}
    metrics |= {"evaluation": {"name": HOSTILE, "split": HOSTILE}, "examples": [[HOSTILE, HOSTILE]]}
    metrics["base_model"] = "x<script>"
    metrics["data"] |= {"name": HOSTILE, "licence": HOSTILE, "corpora": {HOSTILE: 1}, "extra " + HOSTILE: HOSTILE}
    metrics["data"]["filters"] = [{HOSTILE: HOSTILE}]
    metrics["benchmarks"] = [{"name": HOSTILE, "split": HOSTILE, "value": 0.5, "protocol": HOSTILE, "items": HOSTILE}]
    metrics["config"] |= {"run": HOSTILE}
    metrics["versions"] = {HOSTILE: HOSTILE}
    for render in (adaptation_card, pretraining_card, baseline_card):
        card = ModelCard(render(metrics))
        headings = [line for line in card.text.splitlines() if line.startswith("#") and not line.startswith("# C")]
        assert [line[3:] for line in headings if line.startswith("## ")][:5] == list(MODEL_SECTIONS[:5]), render
        kinds = MarkdownIt("commonmark").enable("table").parse(card.text)
        assert not [token for token in kinds if token.type.startswith("html")]
        inline = [child for token in kinds if token.type == "inline" for child in token.children]
        assert not [child for child in inline if child.type == "html_inline"]
        links = {child.attrs.get("href") for child in inline if child.type == "link_open"}
        assert all(link.startswith(("https://arxiv.org/", "https://sbert.net")) for link in links), links
        for block in (token.content for token in kinds if token.type == "fence" and token.info == "python"):
            ast.parse(block)
        assert sum(token.type == "fence" and token.info == "" for token in kinds) == 0


def test_titles_say_what_a_model_is(metrics):
    facts = {"Hidden size": 128, "Senses per word": 16, "Backbone": "gpt2"}
    assert body_of(adaptation_card(metrics)).startswith("\n# Backpack micro, English–Indonesian\n")
    small = metrics | {"model": facts | {"Hidden size": 768}, "parameters": 160_000_000}
    assert "# Backpack small, English–Indonesian\n" in adaptation_card(small)
    control = small | {"config": {"w_sense": 0, "w_context": 0}}
    assert "# Backpack small, English–Indonesian, language modelling alone\n" in adaptation_card(control)
    dense = small | {
        "model": {"Backbone": "gpt2", "Hidden size": 2048},
        "kind": "baseline",
        "parameters": 7_200_000_000,
    }
    assert "# GPT-2 7.2B, English–Indonesian, dense alignment (MCL)\n" in baseline_card(dense)
    assert "# Backpack, English\n" in pretraining_card(PRETRAINING)
    assert "# Mine\n" in adaptation_card(metrics | {"title": "Mine"})


def test_small_models_are_called_demonstrations(metrics):
    assert "**A demonstration.** With 3,156,864 parameters" in adaptation_card(metrics)
    assert "demonstration" not in adaptation_card(metrics | {"parameters": 124_000_000})
    assert "**A demonstration.**" in pretraining_card(PRETRAINING | {"parameters": 3_000_000})


def test_the_batch_that_negatives_come_from_is_named(metrics):
    metrics["config"]["per_device_train_batch_size"] = 32
    card = adaptation_card(metrics)
    assert "| processes | 2 |" in card and "| pairs that negatives come from | 64 |" in card


def test_perplexity_per_word_only_where_words_are_written_apart(metrics):
    metrics["after"] |= {"target_perplexity_per_word": 310505.2, "perplexity_per_word": 1000.0}
    assert "| perplexity per word, Indonesian |  | 310,505.2 |" in adaptation_card(metrics)
    huge = copy.deepcopy(metrics)
    huge["after"]["target_perplexity_per_word"] = 10.0**84
    assert "perplexity per word, Indonesian" not in adaptation_card(huge)
    metrics["languages"]["target"] = "zh"
    card = adaptation_card(metrics)
    assert "perplexity per word, Chinese" not in card and "perplexity per word, English" in card


def test_the_card_names_the_versions_of_transformers_that_were_tried(metrics):
    oldest, newest = TESTED_TRANSFORMERS
    assert f"The code was tried with transformers {oldest} to {newest}." in adaptation_card(metrics)
    constraints = (Path(__file__).resolve().parents[3] / "constraints-oldest.txt").read_text()
    assert re.search(rf"^transformers=={re.escape(oldest)}\.0$", constraints, re.MULTILINE)
    assert Version(newest) >= Version(transformers.__version__.rsplit(".", 1)[0])


@pytest.fixture
def folder(tmp_path, tiny_model, tokenizer):
    """A model folder as the training scripts leave it, before its card is written."""
    folder = tmp_path / "backpack-tiny"
    model = tiny_model(num_senses=4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "metrics.json").write_text(json.dumps(ADAPTATION))
    return folder


def test_write_card_adds_the_facts_of_the_folder(folder):
    (folder / "training_dynamics.png").write_bytes(b"")
    card = write_card(folder)
    assert card == folder / "README.md"
    text = card.read_text(encoding="utf-8")
    assert "| Senses per word | 4 |" in text and "| Hidden size | 32 |" in text
    assert f"| Parameters | {model_facts(folder)['Parameters']:,} |" in text
    assert "](training_dynamics.png)" in text
    validate_card(text)
    assert 'repo = "backpack-micro-sensia-id"' in text
    text = write_card(folder, "owner/other").read_text(encoding="utf-8")
    assert 'repo = "owner/other"' in text and "\n- name: other\n" in text


def test_write_card_refuses_a_folder_without_usable_metrics(folder):
    (folder / "metrics.json").write_text(json.dumps(ADAPTATION | {"kind": "tuned"}))
    with pytest.raises(ValueError, match="kind.*'tuned'"):
        write_card(folder)
    (folder / "metrics.json").unlink()
    with pytest.raises(ValueError, match="no metrics.json"):
        write_card(folder)


def test_the_snippet_of_an_adapter_adds_it_to_its_base(folder, tiny_model, tmp_path, capsys):
    adapter = tmp_path / "adapter"
    config = LoraConfig(target_modules=r".*\.h\.\d+\.attn\.c_attn", fan_in_fan_out=True, r=2)
    get_peft_model(tiny_model(), config).save_pretrained(adapter)
    (adapter / "metrics.json").write_text(json.dumps(ADAPTATION))
    card = finish_folder(adapter).read_text(encoding="utf-8")
    validate_card(card)
    data = ModelCard(card).data.to_dict()
    assert data["library_name"] == "peft" and data["base_model_relation"] == "adapter"
    assert "| Rank | 2 |" in card and not (adapter / "modules.json").exists()
    exec(snippet_of(card, adapter).replace('"sensia/backpack-micro-en"', repr(str(folder))), {})
    assert capsys.readouterr().out.startswith("Buku itu ada")


def test_snippets_run_without_this_package(folder, tmp_path):
    """Each in a name space of its own."""
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    lines = ["import runpy, sys", "sys.modules.update(modeling_backpack=None, sensia_trainer=None)"]
    for name, metrics in (("adapted", ADAPTATION), ("base", PRETRAINING)):
        own = shutil.copytree(folder, tmp_path / name)
        (own / "metrics.json").write_text(json.dumps(metrics))
        (tmp_path / f"{name}.py").write_text(snippet_of(finish_folder(own).read_text(encoding="utf-8"), own))
        lines += [f"runpy.run_path({str(tmp_path / name)!r} + '.py')", f"print('end of', {name!r})"]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    adapted, base = done.stdout.removesuffix("end of base\n").split("end of adapted\n")
    assert len(adapted.splitlines()) >= 4 and len(base.splitlines()) >= 4


def test_what_would_be_refused_when_it_is_published_is_refused_before(folder):
    unknown = ADAPTATION | {"data": {"name": "letters"}}
    finish_folder(folder, metrics=unknown)
    with pytest.raises(ValueError, match="licence of the weights is unknown"):
        finish_folder(folder, metrics=unknown, to_publish=True)
