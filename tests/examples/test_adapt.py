"""`sensia adapt` as a user runs it: from a recipe to a model folder, resumed, and refused."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.cli import main
from sensia_trainer.hub.validation import validate_card
from tests.tiny import tiny_bitext, tiny_tokenizer


ROOT = Path(__file__).resolve().parents[2]
FIELDS = "--max_steps 6 --per_device_train_batch_size 8 --logging_steps 2 --eval_strategy steps --eval_steps 3"
FIELDS += " --save_steps 3 --use_cpu true --report_to none --held_out_pairs 6 --disable_tqdm true"


def adapt(folder, *extra):
    """In this process: to import takes a new one longer than to train."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["adapt", *map(str, extra)])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def adapt_alone(folder, *extra):
    """As a user does."""
    command = [sys.executable, "-m", "sensia_trainer", "adapt", *map(str, extra)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model):
    """A finished run: its folder, its arguments and what was printed."""
    folder = tmp_path_factory.mktemp("adapt")
    tokenizer = tiny_tokenizer()
    model = tiny_model(num_positions=40)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    rows = [f"{pair['en']} {i}\t{pair['id']} {i}" for i, pair in enumerate(tiny_bitext(60)["translation"])]
    (folder / "pairs.tsv").write_text("en\tid\n" + "\n".join(rows) + "\n")
    (folder / "recipe.yaml").write_text("model: base\nbitext: pairs.tsv\ntarget_language: id\noutput_dir: out\n")
    arguments = ["recipe.yaml", *FIELDS.split()]
    done = adapt_alone(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return folder, arguments, done.stdout


@pytest.mark.slow
def test_the_folder_is_complete(run):
    folder, _, _ = run
    files = {path.name for path in (folder / "out").iterdir()}
    expected = {"model.safetensors", "tokenizer.json", "config.json", "modeling_backpack.py", "metrics.json"}
    assert expected | {"README.md", "training_dynamics.png", "training_dynamics.svg"} <= files
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pkl"))}
    BackpackForCausalLM.from_pretrained(folder / "out")
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    assert metrics["data"]["pairs"] == 54 and metrics["config"]["steps"] == 6
    assert (
        metrics["before"].keys() == metrics["after"].keys() >= {"sense_recall_source_to_target", "target_perplexity"}
    )


def test_both_measurements_are_printed(run):
    folder, _, printed = run
    after = json.loads((folder / "out" / "metrics.json").read_text())["after"]
    line = next(line for line in printed.splitlines() if line.startswith("perplexity, Indonesian"))
    assert line.split()[-1] == f"{after['target_perplexity']:.3f}"


def test_the_same_command_again_changes_nothing(run):
    folder, arguments, _ = run
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out").iterdir() if path.name != ".lock"}
    again = adapt(folder, *arguments)
    assert again.returncode == 0 and "This run is finished" in again.stdout, again.stderr
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "out").iterdir()} | before == before | {
        ".lock": (folder / "out" / ".lock").stat().st_mtime_ns
    }


def test_another_run_is_not_overwritten(run):
    folder, arguments, _ = run
    done = adapt(folder, *arguments, "--learning_rate", "0.5")
    assert done.returncode != 0 and "already holds another run" in done.stderr


def test_low_rank_updates_are_merged_into_the_folder(run):
    folder, arguments, _ = run
    done = adapt(folder, *arguments, "--train", "lora", "--lora_r", "2", "--output_dir", "lora")
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (folder / "lora").iterdir()}
    assert "model.safetensors" in files and not {name for name in files if name.startswith("adapter")}
    base, adapted = (BackpackForCausalLM.from_pretrained(folder / name).state_dict() for name in ("base", "lora"))
    same = {name for name in base if torch.equal(base[name], adapted[name])}
    assert "backpack.backbone.wte.weight" in same and "backpack.backbone.h.0.mlp.c_fc.weight" not in same
    metrics = json.loads((folder / "lora" / "metrics.json").read_text())
    assert metrics["config"]["train"] == "lora" and metrics["config"]["lora_r"] == 2
    card = (folder / "lora" / "README.md").read_text()
    assert "lora" in card


def test_help_describes_its_own_fields_and_names_the_library_s():
    printed = {flag: adapt_alone(ROOT, flag) for flag in ("--help", "--help_all")}
    assert all(done.returncode == 0 for done in printed.values())
    short, full = (done.stdout for done in printed.values())
    for field in ("--bitext", "--held_out_pairs", "--polish_freeze", "--train", "--tau_sense", "--learning_rate"):
        assert field in short and field in full
    assert "(default: 0.05)" in short and len(short.splitlines()) < 300
    assert "adam_beta1" in short and "--adam_beta1" not in short and "--adam_beta1" in full


def dense_model(folder):
    """A model without senses, with the tokenizer of the base."""
    tokenizer = tiny_tokenizer()
    sizes = dict(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=40)
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_a_baseline_sees_the_same_data(run):
    """One field differs: the model without senses gets the same pairs, and a card that says what it is."""
    folder, arguments, _ = run
    dense_model(folder / "dense")
    refused = adapt(folder, *arguments, "--method", "mcl", "--output_dir", "mcl")
    assert refused.returncode != 0 and "`dense_model` is not set" in refused.stderr
    done = adapt(folder, *arguments, "--method", "mcl", "--dense_model", "dense", "--output_dir", "mcl")
    assert done.returncode == 0, done.stderr
    ours, baseline = (json.loads((folder / name / "metrics.json").read_text()) for name in ("out", "mcl"))
    assert baseline["data"] == ours["data"] and baseline["kind"] == "baseline"
    assert not any("sense" in key for key in baseline["after"])
    card = (folder / "mcl" / "README.md").read_text()
    assert "dense alignment" in card and "Backpack" not in card.split("## Citation")[0]
    validate_card(card.replace("base_model: dense", "base_model: owner/dense"))  # as publishing completes it


@pytest.fixture(scope="module")
def with_words(run):
    """A run with new words that was interrupted after its second checkpoint and gone on with, and its arguments."""
    folder, arguments, _ = run
    arguments = [*arguments, "--vocabulary_size", "12", "--output_dir", "words"]
    done = adapt(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return folder / "words", arguments


def test_new_words_are_learned_once_and_go_into_the_folder(with_words):
    folder, arguments = with_words
    model = BackpackForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    report = metrics["vocabulary"]
    assert report["first_token"] + report["new_tokens"] == len(tokenizer) == model.config.vocab_size
    assert report["new_tokens"] == 12
    assert {"translations", "votes_before", "votes_after"} <= report["words"][0].keys()
    card = (folder / "README.md").read_text()
    assert "## Vocabulary" in card and "vocabulary.png" in card and "unchanged" not in card
    assert (folder / "vocabulary.png").is_file()

    # Before the last evaluation was written: the words are found, not learned again, and the weights are the same.
    weights = (folder / "model.safetensors").read_bytes()
    learned = (folder / "vocabulary" / "tokenizer.json").stat().st_mtime_ns
    for name in ("metrics.json", "model.safetensors"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoint-6")
    again = adapt(folder.parent, *arguments)
    assert again.returncode == 0, again.stderr
    assert (folder / "vocabulary" / "tokenizer.json").stat().st_mtime_ns == learned
    assert (folder / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("method", ["fine-tuning", "mcl"])
def test_every_method_gets_the_same_new_words(with_words, method, monkeypatch):
    words, arguments = with_words
    monkeypatch.chdir(words.parent)
    dense_model(words.parent / "dense-words")
    options = ["--method", method, "--dense_model", "dense-words", "--output_dir", f"words-{method}"]
    assert main(["adapt", *arguments, *options]) == 0
    ours, theirs = (json.loads((Path(name) / "metrics.json").read_text()) for name in ("words", f"words-{method}"))
    same = ("new_tokens", "first_token", "translations", "source_change")
    assert all(ours["vocabulary"][name] == theirs["vocabulary"][name] for name in same)
    vocabularies = [AutoTokenizer.from_pretrained(name).get_vocab() for name in ("words", f"words-{method}")]
    assert vocabularies[0] == vocabularies[1]
    model = AutoModelForCausalLM.from_pretrained(f"words-{method}")
    assert len(model.get_input_embeddings().weight) == len(vocabularies[0])


def test_other_words_are_another_run(with_words):
    folder, arguments = with_words
    done = adapt(folder.parent, *arguments, "--vocabulary_size", "13")
    assert done.returncode != 0 and "vocabulary_size" in done.stderr
