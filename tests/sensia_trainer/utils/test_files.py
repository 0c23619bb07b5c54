import json
import math
import os

import numpy as np
import pytest
import torch

from sensia_trainer.utils.files import portable, read_json, write_json


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


def test_json_is_written_with_its_folder_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "result.json"
    write_json(path, {"a": (1, 2)})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, 2]}
    assert list(path.parent.iterdir()) == [path]


def test_no_file_holds_nan(tmp_path):
    values = {"a": math.nan, "b": [math.inf, 1.5], "c": np.float32("nan"), "d": np.int64(3), "e": torch.tensor([0.5])}
    write_json(tmp_path / "a.json", values)
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.5], "c": None, "d": 3, "e": [0.5]}
    assert "NaN" not in (tmp_path / "a.json").read_text()


def test_files_reach_the_disk_before_their_names(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    write_json(tmp_path / "a.json", {})
    assert seen == [str(tmp_path / "a.json.tmp"), str(tmp_path)]


@pytest.mark.parametrize("content", [None, b"", b'{"a": 1', b"\xff\xfe"])
def test_what_is_not_whole_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="a.json' (cannot be read|is not a whole JSON file)"):
        read_json(tmp_path / "a.json")
