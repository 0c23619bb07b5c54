"""A built bitext goes to the Hub as `sensia publish` does it: checked, private, in one commit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sensia_trainer.hub.validation import validate_card
from tests.hub_server import HubServer


ROOT = Path(__file__).resolve().parents[3]


FROM_HUB_TO_HUB = """
import json
from sensia_trainer.cli import main
from datasets import Dataset, load_dataset

numbers = zip("one two three four five".split(), "satu dua tiga empat lima".split())
pairs = [{"eng": f"We saw {a} small birds today.", "ind": f"Kami melihat {b} burung hari ini."} for a, b in numbers]
Dataset.from_list(pairs).push_to_hub("owner/pairs")
Dataset.from_list([{"premise": "we saw THREE small birds today!", "label": 1}]).push_to_hub("owner/test", "et")
codes = [main(["bitext", "recipe.yaml", "--output_dir", "out", "--push_to_hub", "owner/built"])]
codes.append(main(["bitext", "absent.yaml", "--output_dir", "other"]))
loaded = load_dataset("owner/built", split="train").to_list()
print(json.dumps({"codes": codes, "loaded": loaded, "read": [pair["eng"] for pair in pairs]}))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pairs_and_evaluation_texts_of_the_hub_come_back_to_it_as_a_bitext(tmp_path):
    recipe = {"source": "en", "target": "id", "semantic": None, "tokenizer": None, "contamination": ["owner/test:et"]}
    for name, path in (("recipe", "owner/pairs"), ("absent", "owner/absent")):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe | {"sources": [{"path": path}]}))
    with HubServer() as server:
        environment = os.environ | server.environment(tmp_path / "home") | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", FROM_HUB_TO_HUB]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        files, commits = server.files("datasets/owner/built"), server.commits("datasets/owner/built")
        assert server.repos["datasets/owner/built"].private
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["codes"] == [0, 1] and "owner/absent" in done.stderr
    assert f"{server.url}/datasets/owner/built" in done.stdout
    read = [text for text in result["read"] if "three" not in text]  # it is a text of the evaluation set
    assert [row["translation"]["en"] for row in result["loaded"]] == read
    assert commits == ["Upload 4 pairs"]
    statistics, card = json.loads(files["statistics.json"]), files["README.md"].decode()
    validate_card(card, "dataset")
    assert statistics["dropped"] == {"contamination": 1}
    assert statistics["evaluation_texts"] == {"owner/test:et": {"texts": 1, "exempt": 0}}
    assert statistics["fingerprint"] in card and "| **all** | 5 | 0 | 1 | 4 |" in card
    assert statistics["corpora"][0]["origin"] == "owner/pairs"
    assert yaml.safe_load(files["recipe.yaml"])["sources"][0]["path"] == "owner/pairs"
    assert set(files) == {path.name for path in (tmp_path / "out").iterdir()} - {
        "recipe.json", "state.json", "dataset_info.json", "data-00000-of-00001.arrow",
    } | {"data/train-00000-of-00001.parquet"}  # fmt: skip
