from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import yaml

from sensia_trainer.bitext import hub
from sensia_trainer.bitext.hub import push_bitext


class Api:
    """Keeps what would have gone to the Hub."""

    files: dict = {}

    def create_repo(self, repo_id, **options):
        assert options == {"repo_type": "dataset", "private": True, "exist_ok": True}
        return SimpleNamespace(repo_id=f"someone/{repo_id}")

    def upload_folder(self, repo_id, folder_path, **options):
        folder = Path(folder_path)
        Api.files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert options["delete_patterns"] == "data/*.parquet"  # files of an earlier, longer upload go


def test_push_uploads_parquet_and_card_at_once(tmp_path, monkeypatch):
    rows = [{"translation": {"en": f"e{n}", "id": f"i{n}"}, "corpus": "toy"} for n in range(5)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "built")
    card = "---\nconfigs: [{config_name: default, data_files: [{split: train, path: data/*.parquet}]}]\n---\n"
    for name in ("README.md", "statistics.json", "statistics.md", "lengths.png", "lengths.svg"):
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
    assert len(Api.files) == 7


def test_only_a_finished_bitext_is_pushed(tmp_path):
    with pytest.raises(ValueError, match="no finished bitext"):
        push_bitext(tmp_path, "toy")
