"""What README.md says is true: its snippets and commands run, its recipes and files exist."""

import os
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.tiny import tiny_bitext


ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BASE = ROOT / "model_cards" / "backpack-micro-en"
# A command of hours becomes one of seconds.
SHORT = "--max_steps 4 --eval_steps 4 --per_device_train_batch_size 4 --held_out_pairs 4 --disable_tqdm true"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(command, folder):
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clone(tmp_path):
    """A folder in which the README's relative paths mean what they mean in the repository."""
    for name in ("examples", "model_cards"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.skipif(not BASE.exists(), reason="model_cards/backpack-micro-en is not here")
def test_python_snippets(clone):
    assert len(blocks("python")) == 2
    for snippet in blocks("python"):
        assert run([sys.executable, "-c", snippet], clone).strip()


def test_make_targets():
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    assert targets == ["adapt", "test"]
    for target in targets:
        recipe = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert {"adapt": "quickstart", "test": "pytest"}[target] in recipe


@pytest.mark.skipif(not BASE.exists(), reason="model_cards/backpack-micro-en is not here")
def test_commands(clone):
    rows = [f"{pair['en']} {i}\t{pair['id']} {i}" for i, pair in enumerate(tiny_bitext(24)["translation"])]
    (clone / "my_bitext.tsv").write_text("en\tsw\n" + "\n".join(rows) + "\n")
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    commands = [line for line in lines if line and not line.startswith("make ")]
    assert commands
    for command in commands:
        run([*shlex.split(command, comments=True), *SHORT.split()], clone)
        assert (clone / "outputs" / "my-model" / "README.md").is_file()


def test_extras_exist():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = re.search(r"Some need more packages: (.*?)\n\n", README, flags=re.DOTALL)[1]
    extras = re.findall(r"`([a-z]+)`", named) + re.search(r"\.\[(.*?)\]", named)[1].split(",")
    assert len(extras) > 3 and set(extras) - {"et", "tr", "zh"} <= set(setup["options.extras_require"])


def test_recipes_and_files_exist():
    named = re.findall(r"`(?:examples/)?((?:recipes/)?[\w/{},*]+\.(?:yaml|py))`", README)
    assert "quickstart.yaml" in named and "evaluate.py" in named
    for name in named:
        for pattern in expand(name):
            where = (
                ROOT / "examples"
                if pattern.endswith(".py") or pattern.startswith("recipes/")
                else ROOT / "sensia_trainer/recipes"
            )
            assert list(where.glob(pattern)), name


def expand(pattern):
    """Shell braces: `a_{b,c}` is `a_b` and `a_c`."""
    found = re.search(r"{(.*?)}", pattern)
    return [pattern.replace(found[0], choice) for choice in found[1].split(",")] if found else [pattern]
