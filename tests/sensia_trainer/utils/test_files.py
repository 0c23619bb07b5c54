import json
import os

from sensia_trainer.utils.files import portable, write_json


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
