"""The folder of a run: what binds it, what does not, who may train in it, and when it is finished."""

import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from transformers import TrainerState, TrainingArguments

from sensia_trainer.config import SensiaConfig
from sensia_trainer.training.runs import (
    deciding_fields,
    run_folder,
    run_metrics,
    shown_command,
    tokenizer_fingerprint,
    warn_of_one_process,
    weights_fingerprint,
)
from sensia_trainer.training.settings import AdaptationData
from tests.distributed import run_on_processes
from tests.tiny import tiny_model, tiny_tokenizer


TOKEN = "hf_" + "a1B2" * 9


@dataclass
class Data:
    FREE: ClassVar = ("licence",)

    rows: int = 3
    share: float = 0.5
    licence: str = ""


def arguments(folder, **fields):
    return SensiaConfig(output_dir=str(folder), use_cpu=True, target_language="id", **fields)


def start(folder, rows=3, licence="", train="a", share=0.5, **fields):
    """A run that has settled and stops before its first step."""
    with run_folder(arguments(folder, **fields), data=Data(rows, share, licence)) as run:
        if not run.finished:
            run.settle(lambda: {"training pairs": train})
        return run


def train(folder):
    """Stands for a run that has trained: it left a checkpoint."""
    (Path(folder) / "checkpoint-2").mkdir()


def test_a_run_that_never_trained_binds_nobody(tmp_path):
    start(tmp_path, learning_rate=1e-9)
    assert not start(tmp_path, rows=4).interrupted
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["data"]["rows"] == 4 and settings["training"]["align_fraction"] == 0.2
    assert settings["training"]["learning_rate"] == 5e-5


def test_a_run_that_has_trained_goes_on_as_it_began(tmp_path):
    start(tmp_path)
    train(tmp_path)
    assert start(tmp_path, licence="CC0", logging_steps=7, save_steps=3, run_name="x", report_to="none").interrupted
    for changed, named in (
        ({"learning_rate": 1e-3}, "training.learning_rate: 5e-05 there, 0.001 now"),
        ({"w_sense": 0.0}, "training.w_sense: None there, 0.0 now"),
        ({"rows": 4}, "data.rows: 3 there, 4 now"),
        ({"train": "b"}, "contents.training pairs: 'a' there, 'b' now"),
    ):
        with pytest.raises(ValueError, match=f"already holds another run \\({named}\\)"):
            start(tmp_path, **changed)


def test_another_number_of_processes_is_another_run(tmp_path):
    start(tmp_path)
    train(tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(settings | {"run": settings["run"] | {"processes": 2}}))
    with pytest.raises(ValueError, match=r"run.processes: 2 there, 1 now"):
        start(tmp_path)


def test_a_field_that_a_new_version_adds_counts_as_its_default(tmp_path):
    start(tmp_path)
    train(tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    for group, name in (("training", "symmetric"), ("data", "rows")):
        del settings[group][name]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert start(tmp_path).interrupted
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="training.symmetric: True there, False now"):
        start(tmp_path, symmetric=False)


def test_a_setting_that_is_nan_does_not_refuse_itself(tmp_path):
    start(tmp_path, share=float("nan"))
    train(tmp_path)
    assert "NaN" not in (tmp_path / "settings.json").read_text()
    assert start(tmp_path, share=float("nan")).interrupted


def test_names_decide_nothing_where_contents_are_compared():
    free = {field.name for field in fields(AdaptationData)} - set(deciding_fields(AdaptationData("m", bitext="b")))
    compared = {"model", "dense_model", "tokenizer", "bitext", "eval_bitext", "eval_flores"}
    compared |= {"replay_source", "monolingual_target", "evaluation_sets"}
    assert free == compared | {"licence", "text_licence", "control", "estimate"}
    deciding = deciding_fields(TrainingArguments("x", use_cpu=True))
    assert {"seed", "max_steps", "learning_rate", "eval_steps", "dataloader_drop_last", "bf16"} <= set(deciding)
    assert not {"hub_token", "logging_steps", "output_dir", "save_steps", "dataloader_num_workers"} & set(deciding)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"training": 3}'])
def test_settings_that_cannot_be_read_are_named(tmp_path, content):
    start(tmp_path)
    train(tmp_path)
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=f"`output_dir`='{tmp_path}' (holds a run whose settings|already holds)"):
        start(tmp_path)


@pytest.mark.parametrize("name", ["checkpoint-2", "model.safetensors"])
def test_a_model_that_no_run_made_is_not_overwritten(tmp_path, name):
    (tmp_path / name).mkdir() if name.startswith("check") else (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match="holds a model or checkpoints, but no settings.json"):
        start(tmp_path)


@pytest.mark.parametrize("name", ["README.md", "config.json", "metrics.json"])
def test_files_of_ones_own_are_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds {name}, which no run wrote that began there"):
        start(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written to"):
        start(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="cannot be written to"):
        start(tmp_path / "file")


def hold(folder, ready):
    with run_folder(arguments(folder)):
        ready.set()
        time.sleep(60)


def test_two_runs_in_one_folder(tmp_path):
    context = multiprocessing.get_context("forkserver")
    ready = context.Event()
    other = context.Process(target=hold, args=(str(tmp_path), ready))
    other.start()
    assert ready.wait(60)
    with pytest.raises(
        ValueError, match=f"is in use: process {other.pid} on .* trains in it.* remove {tmp_path}/.lock"
    ):
        start(tmp_path)
    os.kill(other.pid, signal.SIGKILL)  # its lock goes with it
    other.join()
    start(tmp_path)
    start(tmp_path)


def look(folder):
    with run_folder(arguments(folder), data=Data()) as run:
        run.settle(lambda: {"training pairs": "a"})
        before = run.once("before", lambda: {"rank": int(os.environ["RANK"])})
        return [run.settings["run"]["processes"], before["rank"]]


@pytest.mark.distributed
def test_the_processes_of_one_run_share_its_folder(tmp_path):
    assert run_on_processes(look, str(tmp_path)) == [[2, 0], [2, 1]]
    assert run_on_processes(look, str(tmp_path)) == [[2, 0], [2, 0]]  # what the first process kept


def test_measured_once_for_one_run(tmp_path):
    def before(value, **fields):
        with run_folder(arguments(tmp_path, **fields), data=Data()) as run:
            run.settle(lambda: {})
            return run.once("before", lambda: {"x": value})["x"]

    assert before(1) == before(2) == 1
    assert before(3, seed=2) == 3  # of another run, as this one never trained
    for content in ("{", "[]", "{}"):
        (tmp_path / "before.json").write_text(content)
        assert before(4, seed=2) == before(5, seed=2) == 4


def test_finished_is_what_has_weights_card_and_metrics(tmp_path):
    run = start(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert not start(tmp_path).finished

    def write_card(folder, metrics):
        assert not (folder / "metrics.json").exists()
        (folder / "README.md").write_text(metrics["kind"])

    run.finish({"kind": "adaptation"}, write_card)
    assert start(tmp_path).finished
    with pytest.raises(ValueError, match="already holds another run"):
        start(tmp_path, seed=3)
    assert start(tmp_path, licence="CC0").finished
    (tmp_path / "model.safetensors").unlink()
    assert not start(tmp_path).finished


def test_a_finished_run_is_not_taken_for_one_of_another_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.tsv", "b.tsv"):
        (tmp_path / name).write_text("en\tid\n")

    def again(model="m", bitext="a.tsv"):
        with run_folder(arguments("run"), data=AdaptationData(model=model, bitext=bitext)) as run:
            run.settle(dict) if not run.finished else None
            return run

    run = again()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"x")
    run.finish({}, lambda folder, metrics: None)
    assert again().finished and again(bitext=str(tmp_path / "a.tsv")).finished  # the same file
    for change in ({"model": "other"}, {"bitext": "b.tsv"}):
        with pytest.raises(ValueError, match=f"another run .data.{next(iter(change))}: .* there, .* now"):
            again(**change)


def test_in_the_end_it_is_said_which_files_are_needed_no_more(tmp_path):
    folder = tmp_path / "a run"
    run = start(folder)
    assert run.where() == f"model folder: {folder}"
    train(folder)
    (folder / "checkpoint-2" / "weights").write_bytes(bytes(3_000_000))
    assert run.where() == (
        f"model folder: {folder} (its checkpoints, 3 MB, are needed no more: `rm -r '{folder}'/checkpoint-*`)"
    )


def test_what_a_card_cannot_say_is_found_before_training(tmp_path):
    def write_card(folder, metrics):
        raise ValueError("`licence` is unknown")

    run = start(tmp_path)
    with pytest.raises(ValueError, match="licence"):
        run.rehearse(tiny_model(tiny_tokenizer()), {}, write_card)


def test_fingerprints_of_weights_and_tokenizers():
    tokenizer = tiny_tokenizer()
    model, same = tiny_model(tokenizer), tiny_model(tokenizer)
    assert weights_fingerprint(model) == weights_fingerprint(same)
    with torch.no_grad():
        next(same.parameters()).view(-1)[3] += 1e-6
    assert weights_fingerprint(model) != weights_fingerprint(same) == weights_fingerprint(same)
    assert len(weights_fingerprint(model.bfloat16())) == 16
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a b", "c"], padding=True, truncation=True, max_length=4)
    assert tokenizer_fingerprint(tokenizer) == before
    tokenizer.add_tokens(["kucing"])
    assert tokenizer_fingerprint(tokenizer) != before


def test_one_process_where_several_were_asked_for_is_said(tmp_path, monkeypatch, caplog):
    for name, value in (("ACCELERATE_MIXED_PRECISION", "no"), ("MASTER_PORT", "29500")):
        monkeypatch.setenv(name, value)
    from transformers.utils import logging

    logging.get_logger("sensia_trainer.training.runs").addHandler(caplog.handler)
    warn_of_one_process(arguments(tmp_path))
    assert "on a CPU it starts one" in caplog.text and "torchrun --nproc_per_node" in caplog.text
    caplog.clear()
    monkeypatch.setenv("WORLD_SIZE", "1")
    warn_of_one_process(arguments(tmp_path))
    assert not caplog.text


def test_a_command_is_one_that_works_elsewhere():
    assert shown_command(["sensia", "adapt", "quickstart", "--seed", "2"]) == "sensia adapt quickstart --seed 2"
    assert shown_command(["/root/x/examples/adapt.py", "a.yaml"], 2) == "sensia adapt --num_processes 2 a.yaml"
    assert (
        shown_command(["/root/train.py", "--data", "/root/my data/a.tsv"]) == "python train.py --data 'my data/a.tsv'"
    )
    assert shown_command(["train.py"], 4) == "accelerate launch --num_processes 4 train.py"


def test_no_token_and_no_folder_reach_the_metrics(tmp_path, monkeypatch):
    command = ["sensia", "adapt", "quickstart", "--hub_token", TOKEN, f"--hub_token={TOKEN}", "--run_name", TOKEN]
    monkeypatch.setattr(sys, "argv", command)
    args = SensiaConfig(output_dir=str(tmp_path / "run"), target_language="id", use_cpu=True, hub_token=TOKEN)
    data = {"name": f"{tmp_path}/pairs.tsv", "sources": [f"{tmp_path}/pairs.tsv"]}
    metrics = run_metrics(args, kind="adaptation", model=tiny_model(tiny_tokenizer()), state=TrainerState(), data=data)
    text = json.dumps(metrics)
    assert TOKEN not in text and str(tmp_path) not in text
    assert metrics["command"] == (
        "sensia adapt quickstart --hub_token <redacted> --hub_token=<redacted> --run_name <redacted>"
    )
    assert metrics["data"] == {"name": "pairs.tsv", "sources": ["pairs.tsv"]}
