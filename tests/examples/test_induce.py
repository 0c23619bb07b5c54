"""`sensia induce` on a tiny language model, from text to a model folder with its card."""

import json
import math
import re
import shutil

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from sensia_trainer.cli import main
from sensia_trainer.commands.induce import induced as senses_from
from sensia_trainer.commands.induce import with_model_first
from sensia_trainer.config import SensiaConfig
from sensia_trainer.hub.card_tables import trained_tokens
from sensia_trainer.utils.models import load_config
from sensia_trainer.utils.recipes import find_recipe
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    """A folder with a language model without senses and its tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **special)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def induced(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("induce")
    text = folder / "english.txt"
    text.write_text("".join(f"{sentence} {n}\n" for n in range(12) for sentence in SENTENCES))
    options = f"--text_files {text} --block_size 16 --held_out_blocks 4 --max_steps 6 --per_device_train_batch_size 4"
    options += " --learning_rate 0.01 --logging_steps 2 --save_steps 3 --use_cpu true --disable_tqdm true"
    argv = ["induce", str(base), *options.split(), "--output_dir", str(folder / "out"), "--licence", "CC0"]
    argv += ["--backpack_config", '{"num_senses": 4, "sense_intermediate_scale": 1}']
    assert main(argv) == 0
    return folder / "out", argv


def test_the_folder_is_a_model_with_its_card(induced):
    folder, _ = induced
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["kind"] == "induction" and metrics["after"]["gate"] != 0 == metrics["before"]["gate"]
    after = metrics["after"]
    assert abs(after["gate"]) >= abs(after["trained_gate"]) > 0
    assert metrics["data"]["gate_blocks"] > 0 and after["trained_perplexity"] > 1
    assert after["trained_contribution"] == pytest.approx(
        after["contribution"] * after["trained_gate"] / after["gate"], rel=1e-3
    )
    assert metrics["before"]["perplexity"] == metrics["before"]["base_perplexity"]
    assert all(math.isfinite(value) for value in metrics["after"].values() if value is not None)
    card = (folder / "README.md").read_text()
    assert "as far as text kept apart for it was" in card and "perplexity per token with that gate" in card
    assert "residual" in card and "perplexity per token" in card
    assert 0 < metrics["sense_words"]["common_share"] < 1
    for row in metrics["sense_words"]["words"]:
        assert f"| {row['word']} |" in card and len(row["senses"]) == 4
    assert (folder / "training_dynamics.png").is_file() and not (folder / ".text").exists()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.backpack.residual_gate.weight.item() == pytest.approx(metrics["after"]["gate"])
    assert re.search(r"```python\n.*?```", card, flags=re.DOTALL)


def test_the_same_command_again_does_nothing(induced, capsys):
    folder, argv = induced
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir() if file.is_file()}
    assert main(argv) == 0 and "nothing is left to train" in capsys.readouterr().out
    after = {file.name: file.stat().st_mtime_ns for file in folder.iterdir() if file.is_file()}
    assert {name: before.get(name) for name in after if ".lock" not in name} == {
        name: time for name, time in after.items() if ".lock" not in name
    }


def test_blocks_that_fill_no_batch_are_measured_all_the_same(induced, tmp_path, capsys):
    _, argv = induced
    argv = [*argv, "--output_dir", str(tmp_path / "out"), "--dataloader_drop_last", "true", "--max_steps", "2"]
    assert main([*argv, "--per_device_eval_batch_size", "64"]) == 0
    gate = json.loads((tmp_path / "out" / "metrics.json").read_text())["after"]
    assert gate["trained_gate"] and math.isfinite(gate["perplexity"])


def test_a_gate_beside_a_model_that_was_trained_is_left_as_it_is(induced, tmp_path):
    _, argv = induced
    argv = [*argv, "--output_dir", str(tmp_path / "out"), "--train_head", "true", "--distill_share", "0"]
    assert main([*argv, "--train_embeddings", "true", "--max_steps", "2"]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "trained_gate" not in metrics["after"] and "gate_blocks" not in metrics["data"]


def test_senses_of_another_model_or_text_are_not_taken(base, tmp_path, monkeypatch):
    settings = []
    monkeypatch.setattr("sensia_trainer.commands.induce.induce", lambda run, data, args: settings.append(args))
    args = SensiaConfig(output_dir=str(tmp_path), use_cpu=True)
    other = shutil.copytree(base, tmp_path / "other")

    def induce(model=base, sentences=SENTENCES, steps=2):
        senses_from(tmp_path / "induced", model, sentences, args, steps=steps)

    induce()
    induce()
    induce(model=other)  # the same weights, wherever they lie
    recipe = yaml.safe_load(find_recipe("induce_smollm2").read_text())
    for name in ("learning_rate", "gate_learning_rate", "per_device_train_batch_size"):
        assert getattr(settings[0], name) == pytest.approx(recipe[name]), name
    for change, message in (
        ({"sentences": SENTENCES[1:]}, "another text"),
        ({"steps": 3}, "another number of steps"),
    ):
        with pytest.raises(ValueError, match=message):
            induce(**change)
    namesake = shutil.copytree(base, tmp_path / "elsewhere" / base.name)
    model = AutoModelForCausalLM.from_pretrained(namesake)
    torch.nn.init.ones_(model.transformer.ln_f.bias)
    model.save_pretrained(namesake)
    with pytest.raises(ValueError, match="another weights"):
        induce(model=namesake)


def test_a_backpack_is_not_induced(tmp_path, tiny_model, tokenizer, capsys):
    tiny_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "a.txt").write_text("one\n")
    argv = ["induce", str(tmp_path / "model"), "--text_files", str(tmp_path / "a.txt"), "--use_cpu", "true"]
    assert main([*argv, "--output_dir", str(tmp_path / "out")]) == 1
    assert "which has senses already" in capsys.readouterr().err


def test_weights_that_the_first_process_alone_would_read_are_refused(tmp_path, monkeypatch, base, capsys):
    monkeypatch.setattr("sensia_trainer.training.sharding.is_fsdp_enabled", lambda: True)
    (tmp_path / "a.txt").write_text("one\n")
    options = ["--text_files", str(tmp_path / "a.txt"), "--use_cpu", "true", "--output_dir", str(tmp_path / "out")]
    for command in ("induce", "pretrain"):
        assert main([command, "--model", str(base), *options]) == 1
        assert "`fsdp_cpu_ram_efficient_loading` is true" in capsys.readouterr().err


def test_the_first_argument_is_a_model_or_a_recipe():
    assert with_model_first(["gpt2", "--seed", "1"]) == ["--model", "gpt2", "--seed", "1"]
    assert with_model_first(["induce_smollm2"]) == ["induce_smollm2"]
    assert with_model_first(["mine.yaml"]) == ["mine.yaml"] and with_model_first(["--seed", "1"]) == ["--seed", "1"]


def test_a_plain_model_is_adapted_in_one_command(tmp_path, base, capsys):
    rows = [f"{SENTENCES[2 * (n % 5)]} {n}\t{SENTENCES[2 * (n % 5) + 1]} {n}" for n in range(60)]
    (tmp_path / "pairs.tsv").write_text("en\tid\n" + "\n".join(rows) + "\n")
    options = "--target_language id --held_out_pairs 8 --max_steps 3 --per_device_train_batch_size 4 --use_cpu true"
    argv = ["adapt", "--model", str(base), "--bitext", str(tmp_path / "pairs.tsv"), *options.split()]
    argv += ["--output_dir", str(tmp_path / "out"), "--max_length", "24", "--disable_tqdm", "true"]
    assert main(argv) == 1
    message = capsys.readouterr().err
    assert "sensia induce" in message and "fine-tuning" in message and "Backpack" in message
    words = ["--vocabulary_size", "12", "--train", "lora", "--lora_r", "2"]
    assert main([*argv, "--induce_steps", "2", *words]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.backpack.residual_gate.weight.item() != 0
    metrics, card = (tmp_path / "out" / name for name in ("metrics.json", "README.md"))
    metrics, card = json.loads(metrics.read_text()), card.read_text()
    assert metrics["base_model"] == base.name
    induced = json.loads((tmp_path / "out" / "induced" / "metrics.json").read_text())
    assert metrics["induced"]["steps"] == 2 and metrics["induced"]["after"] == induced["after"]
    assert "a language model that was given senses" in card and "English Backpack" not in card
    assert f"in 2 steps on {trained_tokens(induced):,} tokens" in card
    assert 0 < metrics["vocabulary"]["new_tokens"] <= 12 and model.config.vocab_size > load_config(base).vocab_size
    assert main([*argv, "--induce_steps", "2", *words]) == 0 and "nothing is left to train" in capsys.readouterr().out
    # Killed after the induction, moved, and started again.
    moved = shutil.move(tmp_path / "out", tmp_path / "moved")
    (moved / "metrics.json").unlink()
    again = [str(moved) if word == str(tmp_path / "out") else word for word in argv]
    assert main([*again, "--induce_steps", "2", *words]) == 0, capsys.readouterr().err


def test_the_tokenizer_may_lie_elsewhere(tmp_path, base):
    bare = shutil.copytree(base, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    args = SensiaConfig(output_dir=str(tmp_path / "out"), use_cpu=True, disable_tqdm=True)
    sentences = [f"{sentence} {n}" for n in range(60) for sentence in SENTENCES]
    with pytest.raises(ValueError, match="`induce_steps` is 1, .* do not fill 8 blocks of 32 tokens.* more pairs"):
        senses_from(tmp_path / "few", base, SENTENCES, args, steps=1, sense_intermediate_scale=1)
    with pytest.raises(ValueError, match="tokenizer"):
        senses_from(tmp_path / "induced", bare, sentences, args, steps=1, sense_intermediate_scale=1)
    folder = senses_from(
        tmp_path / "induced", bare, sentences, args, steps=1, tokenizer=str(base), sense_intermediate_scale=1
    )
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_senses == 16
