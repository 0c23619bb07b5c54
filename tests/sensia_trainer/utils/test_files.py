import json
import math
import os
from enum import Enum

import numpy as np
import pytest
import torch

from sensia_trainer.utils.files import (
    fingerprint,
    portable,
    read_json,
    with_note,
    without_folders,
    write_json,
    written_atomically,
)


def test_portable_results_name_no_folder_of_the_machine(monkeypatch):
    monkeypatch.setenv("SENSIA_DATA", "/somewhere/data")
    here = os.getcwd()
    content = {
        "model": "/home/me/runs/model",
        "files": ["/somewhere/data/train/en-id.tsv.gz", f"{here}/sensia_trainer/recipes/a.yaml", "org/name"],
        "command": "python examples/adapt.py --output_dir /home/me/runs/x --seed 3",
        "count": 2,
        "none": None,
        "text": "",
    }
    assert portable(content) == {
        "model": "model",
        "files": ["${SENSIA_DATA}/train/en-id.tsv.gz", "sensia_trainer/recipes/a.yaml", "org/name"],
        "command": "python examples/adapt.py --output_dir x --seed 3",
        "count": 2,
        "none": None,
        "text": "",
    }


@pytest.mark.parametrize(
    ("folder", "text", "expected"),
    [
        ("data", "me/my-dataset-model", "me/my-dataset-model"),
        ("data", "datasets 4.4", "datasets 4.4"),
        ("data", "data/train/a.tsv", "${SENSIA_DATA}/train/a.tsv"),
        (".", "transformers 5.2.0", "transformers 5.2.0"),
        ("/data", "https://somewhere.org/data/a", "https://somewhere.org/data/a"),
        ("/data", "--bitext=/data/a.tsv", "--bitext=${SENSIA_DATA}/a.tsv"),
    ],
)
def test_the_data_folder_is_a_path_and_not_any_text(folder, text, expected, monkeypatch):
    monkeypatch.setenv("SENSIA_DATA", folder)
    assert portable(text) == expected


def test_portable_results_hold_no_secrets():
    token = "hf_" + "a1B2" * 9
    content = {"hub_token": "anything", "name": [f"run {token}"], "pad_token": "<pad>", "api_key": None}
    assert portable(content) == {
        "hub_token": "<redacted>",
        "name": ["run <redacted>"],
        "pad_token": "<pad>",
        "api_key": None,
    }


def test_json_is_written_with_its_folder_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "result.json"
    write_json(path, {"a": (1, 2)})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, 2]}
    assert list(path.parent.iterdir()) == [path]


def test_json_holds_no_nan_and_knows_numbers(tmp_path):
    class Way(Enum):
        STEPS = "steps"

    content = {"a": math.nan, "b": [math.inf, 1.5], "c": np.float32("nan"), "d": np.int64(3), "e": torch.tensor([0.5])}
    write_json(tmp_path / "a.json", content | {"way": Way.STEPS, "path": tmp_path}, indent=None)
    expected = {"a": None, "b": [None, 1.5], "c": None, "d": 3, "e": [0.5], "way": "steps", "path": str(tmp_path)}
    assert read_json(tmp_path / "a.json") == expected


def test_files_reach_the_disk_before_their_names(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    write_json(tmp_path / "a.json", {})
    assert seen == [f"{tmp_path}/a.json.{os.getpid()}.part", str(tmp_path)]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="torn"), written_atomically(path) as partial:
        partial.write_text("half")
        raise ValueError("torn")
    assert read_json(path) == {"a": 1} and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, b"", b'{"a": 1', b"\xff\xfe"])
def test_what_is_not_whole_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="a.json' (cannot be read|is not a whole JSON file)"):
        read_json(tmp_path / "a.json")


def test_text_names_no_folder_and_keeps_addresses():
    kept = ("https://opus.nlpl.eu/a/b.zip", "hf://datasets/a/b", "org/name", "and/or", "a / b", "${DATA}/en.gz", "1/2")
    assert [without_folders(text) for text in kept] == list(kept)
    gone = {
        "--output=/home/me/x --rate 1/2": "--output=x --rate 1/2",
        "file:///home/me/a.tsv, ~/b.tsv": "a.tsv, b.tsv",
        "C:\\Users\\me\\a.tsv": "a.tsv",
        'model:/home/mé/x, ("/root/x/y.json")': 'model:x, ("y.json")',
    }
    assert {text: without_folders(text) for text in gone} == gone


def test_a_note_beside_the_results_stands_below_the_title_of_their_report(tmp_path):
    assert with_note("# Title\n\nText.\n", tmp_path) == "# Title\n\nText.\n"
    (tmp_path / "note.txt").write_text("Of an earlier model.\n")
    assert with_note("# Title\n\nText.\n", tmp_path) == "# Title\n\nOf an earlier model.\n\nText.\n"


def test_fingerprints():
    assert fingerprint({"b": [1, "é"], "a": None}) == fingerprint({"a": None, "b": (1, "é")}) != fingerprint({"a": 1})
    assert len(fingerprint([])) == 64
