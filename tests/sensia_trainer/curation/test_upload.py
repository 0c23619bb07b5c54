import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import yaml
from huggingface_hub import RepoUrl

from sensia_trainer.curation import upload as hub
from sensia_trainer.curation.upload import push_bitext
from sensia_trainer.hub.model_card import validate_card
from tests.hub_server import HubServer


ROOT = Path(__file__).resolve().parents[3]


class Api:
    """Keeps what would have gone to the Hub."""

    files: dict = {}

    def create_repo(self, repo_id, **options):
        assert options == {"repo_type": "dataset", "private": True, "exist_ok": True}
        return RepoUrl(f"https://huggingface.co/datasets/someone/{repo_id}")

    def upload_folder(self, repo_id, folder_path, **options):
        folder = Path(folder_path)
        Api.files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert options["delete_patterns"] == "data/*.parquet"  # files of an earlier, longer upload go


def test_push_uploads_parquet_and_card_at_once(tmp_path, monkeypatch):
    rows = [{"translation": {"en": f"e{n}", "id": f"i{n}"}, "corpus": "toy"} for n in range(5)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "built")
    card = "---\nconfigs: [{config_name: default, data_files: [{split: train, path: data/*.parquet}]}]\n---\n"
    for name in hub.REPORT:
        (tmp_path / "built" / name).write_text(card if name == "README.md" else name)
    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "ROWS_A_FILE", 3)
    assert push_bitext(tmp_path / "built", "toy", private=True).endswith("/datasets/someone/toy")
    parquet = sorted(name for name in Api.files if name.startswith("data/"))
    assert parquet == ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
    for name in parquet:
        (tmp_path / name.split("/")[1]).write_bytes(Api.files[name])
    loaded = datasets.load_dataset(
        "parquet", data_files=[str(tmp_path / name.split("/")[1]) for name in parquet], split="train"
    )
    assert loaded.to_list() == rows
    assert yaml.safe_load(Api.files["README.md"].decode().split("---")[1])["configs"]
    assert len(Api.files) == 8


def test_only_a_finished_bitext_is_pushed(tmp_path):
    with pytest.raises(ValueError, match="no finished bitext"):
        push_bitext(tmp_path, "toy")


FROM_HUB_TO_HUB = """
import json
from sensia_trainer.cli import main
from datasets import Dataset, load_dataset

numbers = zip("one two three four five".split(), "satu dua tiga empat lima".split())
pairs = [{"eng": f"We saw {a} small birds today.", "ind": f"Kami melihat {b} burung hari ini."} for a, b in numbers]
Dataset.from_list(pairs).push_to_hub("owner/pairs")
Dataset.from_list([{"premise": "we saw THREE small birds today!", "label": 1}]).push_to_hub("owner/test", "et")
codes = [main(["bitext", "recipe.yaml", "--output_dir", "out", "--push_to_hub", "owner/built", "--private"])]
codes.append(main(["bitext", "absent.yaml", "--output_dir", "other"]))
loaded = load_dataset("owner/built", split="train").to_list()
print(json.dumps({"codes": codes, "loaded": loaded, "read": [pair["eng"] for pair in pairs]}))
"""


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
