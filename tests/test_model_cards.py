"""The folders of `model_cards/` are fit for the Hub: whole, small, with this version's code and true cards."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sensia_trainer.cli import COMMANDS
from sensia_trainer.hub.publishing import publish
from sensia_trainer.hub.release import refresh
from sensia_trainer.utils.recipes import find_recipe


ROOT = Path(__file__).resolve().parents[1]
RELEASED = sorted(path.parent for path in (ROOT / "model_cards").glob("*/config.json"))
DELTAS = [folder for folder in RELEASED if (folder / "delta.json").is_file()]
FOLDERS = [folder for folder in RELEASED if folder not in DELTAS]
BACKPACKS = [folder for folder in FOLDERS if folder.name.startswith("backpack")]
MEGABYTE = 1_000_000
RUNNER = """
import contextlib, io, json, runpy, sys
sys.modules.update(modeling_backpack=None, sensia_trainer=None)
lines = {}
for name in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            runpy.run_path(f"{name}.py")
        except BaseException as error:
            raise RuntimeError(f"the snippet of {name} fails") from error
    lines[name] = len(output.getvalue().splitlines())
print(json.dumps(lines))
"""

of_released = pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
of_backpacks = pytest.mark.parametrize("folder", BACKPACKS, ids=lambda folder: folder.name)


@of_released
def test_the_folder_could_be_published(folder):
    report = publish(folder, f"owner/{folder.name}", dry_run=True)
    sizes = dict(report["files"])
    assert {"README.md", "config.json", "metrics.json", "tokenizer.json"} <= set(sizes)
    weights = [size for name, size in sizes.items() if name.endswith(".safetensors")]
    assert weights and max(weights) <= 8 * MEGABYTE


@pytest.mark.parametrize("folder", DELTAS, ids=lambda folder: folder.name)
def test_a_delta_is_small_and_says_what_it_is(folder):
    files = [file for file in folder.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 40 * MEGABYTE
    facts = json.loads((folder / "delta.json").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"its base, `{facts['base']}`" in card and "## A delta" in card
    assert f"| Parameters | {facts['model']['Parameters']:,} |" in card


@of_backpacks
def test_the_code_is_the_repository_s_own(folder):
    """Real copies, so that a copy of the folder is whole; `make cards` makes them again after a change."""
    code = {path.name: path.read_bytes() for path in (ROOT / "modeling_backpack").glob("*_backpack.py")}
    assert {path.name: path.read_bytes() for path in folder.glob("*.py")} == code, "run `make cards`"
    assert not [path.name for path in folder.iterdir() if path.is_symlink()]
    auto_map = json.loads((folder / "config.json").read_text(encoding="utf-8"))["auto_map"]
    names = {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    assert names <= set(auto_map) <= names | {"AutoModelForSequenceClassification"}


@of_released
def test_the_card_is_rendered_from_the_metrics(folder, tmp_path, real_pictures):
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["model_name"] == folder.name.removesuffix("-delta")
    assert metrics["data"]["licence"]
    command, recipe = re.match(r"sensia (\w+) (\S+)", metrics["command"]).groups()
    assert command in COMMANDS and find_recipe(recipe).is_file()
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    refresh(copy)
    for file in folder.iterdir():
        if file.is_file() and file.suffix != ".png":  # which depends on the version of matplotlib to the bit
            assert (copy / file.name).read_bytes() == file.read_bytes(), f"{file.name}: run `make cards`"


def snippet_of(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    snippet, count = re.subn(r'^repo = ".*"$', f"repo = {str(folder)!r}", "\n".join(blocks), flags=re.MULTILINE)
    assert count == len(blocks) == (2 if folder in BACKPACKS else 1)
    if "nearest = " in snippet:
        expected = "[i % len(source) for i in range(len(target))]"
        snippet += f"\nassert len(source) > 1 and nearest.tolist() == {expected}, nearest\n"
    return snippet


@pytest.mark.slow
def test_the_snippets_of_the_cards_run_without_this_package(tmp_path):
    """All in one process that cannot import it, since importing the libraries takes longer than they do."""
    for folder in FOLDERS:
        (tmp_path / f"{folder.name}.py").write_text(snippet_of(folder), encoding="utf-8")
    runner = tmp_path / "run.py"
    runner.write_text(RUNNER, encoding="utf-8")
    run = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, runner, *(folder.name for folder in FOLDERS)], **run)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    lines = json.loads(done.stdout)
    assert all(lines[folder.name] >= (3 if folder in BACKPACKS else 1) for folder in FOLDERS), lines
