"""The folders of `model_cards/` are fit for the Hub: complete, small, one copy of the code, cards that are true."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sensia_trainer.hub.model_card import write_card
from sensia_trainer.hub.publishing import publish
from sensia_trainer.utils.recipes import find_recipe


ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "model_cards").glob("*/config.json"))
BACKPACKS = [folder for folder in FOLDERS if folder.name.startswith("backpack")]
MEGABYTE = 1_000_000

of_all = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
of_backpacks = pytest.mark.parametrize("folder", BACKPACKS, ids=lambda folder: folder.name)


@of_all
def test_the_folder_could_be_published(folder):
    report = publish(folder, f"owner/{folder.name}", dry_run=True)
    sizes = dict(report["files"])
    assert {"README.md", "config.json", "metrics.json", "tokenizer.json"} <= set(sizes)
    assert sizes["model.safetensors"] <= 8 * MEGABYTE


@of_backpacks
def test_the_code_is_the_repository_s_own(folder):
    for name in ("configuration_backpack.py", "modeling_backpack.py"):
        link = folder / name
        assert link.is_symlink() and not os.path.isabs(os.readlink(link))
        assert link.resolve() == ROOT / "modeling_backpack" / name
    auto_map = json.loads((folder / "config.json").read_text(encoding="utf-8"))["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}


@of_all
def test_the_card_is_rendered_from_the_metrics(folder, tmp_path):
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["model_name"] == folder.name
    assert metrics["data"]["licence"]
    script, recipe = re.search(r"(\S+\.py) (\S+)", metrics["command"]).groups()
    assert (ROOT / script).is_file() and find_recipe(recipe).is_file()
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    assert write_card(copy).read_text(encoding="utf-8") == (folder / "README.md").read_text(encoding="utf-8")


@of_all
def test_the_snippet_of_the_card_runs_with_torch_and_transformers_alone(folder, tmp_path):
    card = (folder / "README.md").read_text(encoding="utf-8")
    snippet = re.search(r"```python\n(.*?)```", card, flags=re.DOTALL)[1]
    snippet, count = re.subn(r'^repo = ".*"$', f"repo = {str(folder)!r}", snippet, flags=re.MULTILINE)
    assert count == 1
    script = tmp_path / "snippet.py"
    if "nearest = " in snippet:
        snippet += "\nassert len(source) > 1 and nearest.tolist() == list(range(len(source))), nearest\n"
    script.write_text(f"import sys\nsys.modules.update(modeling_backpack=None, sensia_trainer=None)\n{snippet}")
    run = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, script], **run)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= (3 if folder in BACKPACKS else 1)
