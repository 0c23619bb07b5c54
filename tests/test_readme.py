"""README.md and CONTRIBUTING.md are true: snippets and commands run, files and targets exist."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sensia_trainer.utils.recipes import find_recipe
from tests.tiny import tiny_bitext


ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# A command of minutes becomes one of seconds.
SHORT = "--max_steps 2 --eval_strategy no --per_device_train_batch_size 4 --held_out_pairs 4 --disable_tqdm true"


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


ONE_AFTER_THE_OTHER = """
import json, sys
from sensia_trainer.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["sensia", *arguments]
    assert not main(arguments)
"""


def run(command, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clone(tmp_path):
    """A folder in which the README's relative paths mean what they mean in the repository."""
    (tmp_path / "model_cards").symlink_to(ROOT / "model_cards")
    return tmp_path


def test_python_snippet(clone):
    (snippet,) = blocks("python")
    assert run([sys.executable, "-c", snippet], clone).strip()


@pytest.mark.slow
def test_commands(clone):
    pytest.importorskip("django")
    rows = [f"{pair['en']} {i}\t{pair['id']} {i}" for i, pair in enumerate(tiny_bitext(24)["translation"])]
    (clone / "my_bitext.tsv").write_text("en\tsw\n" + "\n".join(rows) + "\n")
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    installation, *commands = [shlex.split(line, comments=True) for line in lines if line]
    assert installation == ["pip", "install", ".[quickstart]"] and len(commands) == 3
    assert all(name == "sensia" for name, *_ in commands)
    calls = [[*arguments, *SHORT.split()] for _, *arguments in commands]
    run([sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(calls)], clone)
    for folder in ("quickstart", "sw", "my-model"):
        assert (clone / "outputs" / folder / "README.md").is_file()


def test_make_targets():
    targets = set(re.findall(r"^make ([\w-]+)", CONTRIBUTING, flags=re.MULTILINE))
    assert targets == {"test", "quality", "docs", "test-versions"}
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_recipes_exist():
    named = re.findall(r"sensia adapt ([\w/]+)", README)
    assert named and all(find_recipe(name).is_file() for name in named)


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(file):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / file).read_text(encoding="utf-8")):
        assert link.startswith("https://") or (ROOT / file).parent.joinpath(link).exists(), link
