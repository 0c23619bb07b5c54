"""A Space: whole without this package, checked like every upload, private unless asked."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from sensia_trainer.commands import publish as command
from sensia_trainer.hub import publishing
from sensia_trainer.hub.publishing import collect_space, publish


pytest.importorskip("gradio")

ROOT = Path(__file__).parents[3]
CARDS = ROOT / "model_cards"


@pytest.fixture
def folder(tmp_path):
    """A released model beside the one that it began as."""
    for name in ("backpack-micro-sensia-id", "backpack-micro-en"):
        shutil.copytree(CARDS / name, tmp_path / name)
    return tmp_path / "backpack-micro-sensia-id"


def test_a_dry_run_lists_the_page_its_code_and_both_models(folder, capsys):
    command.main([str(folder), "owner/senses", "--space", "--dry-run", "--title", "Senses: <b>Indonesian</b>"])
    shown = capsys.readouterr().out
    for path in (
        "app.py",
        "requirements.txt",
        "README.md",
        "sensia_trainer/explorer/page.py",
        "sensia_trainer/explorer/words.tsv",
        "modeling_backpack/modeling_backpack.py",
        "models/backpack-micro-sensia-id/model.safetensors",
        "models/backpack-micro-en/config.json",
    ):
        assert f"  {path}\n" in shown
    assert "Dry run: owner/senses" in shown


@pytest.mark.slow
def test_a_space_runs_on_what_its_repository_holds(folder, tmp_path):
    """In a process that knows no other copy of the code."""
    space = tmp_path / "space"
    for upload in collect_space(folder, "owner/senses", tmp_path, license=None, base_model=None):
        (space / upload.path).parent.mkdir(parents=True, exist_ok=True)
        (space / upload.path).write_bytes(upload.read())
    front = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and len(front["short_description"]) <= 60
    assert (
        front["license"] == "other"
        and front["license_link"] == "models/backpack-micro-sensia-id/README.md#training-data"
    )
    lines = (space / "requirements.txt").read_text().splitlines()[1:]
    assert f"torch=={version('torch').partition('+')[0]}" in lines and all(
        "==" in line and "+" not in line for line in lines
    )
    script = (
        "import app, sensia_trainer, json\n"
        "views = [str(one.value) for one in app.page.blocks.values() if str(one.elem_id).endswith('-view')]\n"
        "print(json.dumps([sensia_trainer.__file__, views]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=space, env=environment, capture_output=True, text=True, check=True
    )
    where, views = json.loads(done.stdout.splitlines()[-1])
    assert Path(where).is_relative_to(space)
    assert "senses of “book”" in views[0] and "buku" in views[0]
    assert "Before: backpack-micro-en" in views[-1]


def test_a_space_is_refused_for_what_is_refused_of_a_model(folder):
    (folder / "notes.txt").write_text("token: hf_" + "a1B2" * 9)
    with pytest.raises(ValueError, match="notes.txt, line 1"):
        publish(folder, "owner/senses", repo_type="space", dry_run=True)
    (folder / "notes.txt").unlink()
    (folder / "delta.json").write_text("{}")
    with pytest.raises(ValueError, match="is a delta, which no page can show"):
        publish(folder, "owner/senses", repo_type="space", dry_run=True)
    (folder / "delta.json").unlink()
    (folder.parent / "backpack-micro-en" / "state.json").write_text('{"of": "/home/someone/data"}')
    with pytest.raises(ValueError, match="models/backpack-micro-en/state.json, line 1, names a folder"):
        publish(folder, "owner/senses", repo_type="space", dry_run=True)


def test_a_space_is_created_private_and_as_one_of_gradio(folder, monkeypatch):
    made = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **options):
            made["repo"] = (repo_id, options)
            return "https://hub/spaces/owner/senses"

        def create_commit(self, repo_id, operations, **options):
            made["commit"] = options | {"paths": [operation.path_in_repo for operation in operations]}
            return type("Commit", (), {"oid": "1" * 40})()

    monkeypatch.setattr(publishing, "HfApi", Api)
    monkeypatch.setattr(publishing, "_on_the_hub", lambda *_: (None, {"old.py", "app.py"}))
    monkeypatch.setattr(publishing.RepoCard, "validate", lambda self, repo_type: made.update(validated=repo_type))
    report = publish(folder, "owner/senses", repo_type="space")
    options = {"repo_type": "space", "private": True, "exist_ok": True, "space_sdk": "gradio"}
    assert made["repo"] == ("owner/senses", options) and made["validated"] == "space"
    assert made["commit"]["repo_type"] == "space" and {"app.py", "old.py"} <= set(made["commit"]["paths"])
    assert report["removed"] == ["old.py"] and report["changed"]
