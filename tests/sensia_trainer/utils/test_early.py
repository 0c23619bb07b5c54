"""What is said without torch is what would be said with it."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from sensia_trainer import cli
from sensia_trainer.utils.early import ends_early, known_names, without_torch


ROOT = Path(__file__).parents[3]
MISSPELT = ["adapt", "quickstart", "--learning_rat", "1"]
PROGRAM = """
import contextlib, io, json, sys
from sensia_trainer import cli
said = []
for argv in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        try:
            code = cli.main(argv)
        except SystemExit as left:
            code = left.code
    said.append([code, out.getvalue()])
print(json.dumps([said, sorted({"torch", "datasets", "accelerate"} & set(sys.modules))]))
"""


def test_help_and_misspelt_names_come_without_torch_and_are_the_same(capsys, monkeypatch):
    lines = [*([name, "--help_all"] for name in cli.TRAINING), ["induce", "--help"], MISSPELT]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-c", PROGRAM, json.dumps(lines)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, slow = json.loads(done.stdout)
    assert not slow
    monkeypatch.setenv("COLUMNS", "100")
    for argv, (code, text) in zip(lines, said, strict=True):
        try:
            expected = cli.main(argv)
        except SystemExit as left:
            expected = left.code
        captured = capsys.readouterr()
        if argv == ["induce", "--help"]:  # what it sets otherwise than the library is told, where it says no more
            assert "--max_steps INT" in captured.out and "(default: 40000)" in " ".join(captured.out.split())
        assert code == expected and text == captured.out + captured.err, argv


def test_every_option_is_known():
    parsers = [import_module(f"sensia_trainer.commands.{name}").parser() for name in cli.TRAINING]
    options = {option for parser in [*parsers, launch_command_parser()] for option in parser._option_string_actions}
    names = {option[2:].replace("-", "_").removeprefix("no_") for option in options if option.startswith("--")}
    assert names - {"help"} <= known_names()


@pytest.mark.parametrize(
    "argv, early",
    [
        (["quickstart", "--max_steps", "3", "--no-symmetric", "--num_processes=2", "-x"], False),
        (["quickstart", "--help_all"], True),
        (["quikstart"], True),
        (["quickstart", "--max-stps", "3"], True),
        (["--oops=1"], True),
        (["recipe.yaml"], True),
        ([], False),
    ],
)
def test_what_ends_before_a_training(argv, early, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("based_on: quickstart\nmax_stps: 3\n")
    assert ends_early(argv) is early


def test_a_model_may_stand_where_a_recipe_stands():
    assert not ends_early(["gpt2", "--max_steps", "3"], recipe=False) and ends_early(["gpt2"])


def test_nothing_is_hidden_where_torch_is_loaded():
    from transformers import utils

    without_torch()
    assert utils.is_torch_available()
