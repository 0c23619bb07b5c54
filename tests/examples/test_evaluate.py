import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sensia_trainer.evaluation.suite import EvaluationConfig, check_config
from sensia_trainer.utils.recipes import RECIPES


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("evaluate_script", EXAMPLES / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["evaluate", "evaluate_local"])
def test_recipes_are_valid(name):
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    check_config(EvaluationConfig(**{"model": "m", "output": "r.json", "target": "sw"} | recipe))


def test_the_language_is_never_taken_for_granted(script, tmp_path, capsys):
    with pytest.raises(SystemExit):
        script.main(["evaluate", "--model", "m", "--output", str(tmp_path / "a.json")])
    assert "--target" in capsys.readouterr().err


def test_evaluate_and_compare(script, tmp_path, tiny_model, tokenizer, capsys):
    tiny_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    file = tmp_path / "data/copa_en/test.en.labelled.jsonl"
    file.parent.mkdir(parents=True)
    row = {
        "premise": "The cat sleeps.",
        "choice1": "It is good.",
        "choice2": "We meet.",
        "question": "cause",
        "label": 0,
    }
    file.write_text("".join(json.dumps(row | {"idx": i}) + "\n" for i in range(3)), encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("tasks: ['copa:en']\nflores: false\ngrid_search: false\ngenerate: false\nprogress: false\n")
    output = tmp_path / "out" / "a.json"
    script.main([str(recipe), "--model", str(tmp_path / "model"), "--target", "id", "--output", str(output),
                 "--data_dir", str(tmp_path / "data")])  # fmt: skip
    printed = capsys.readouterr().out
    assert "copa en plain cond" in printed and "at chance" in printed and str(output) in printed
    script.main(["compare", str(output), "--output", str(tmp_path / "table.md")])
    assert str(tmp_path / "table.csv") in capsys.readouterr().out


def test_the_script_starts_by_its_name():
    """Its folder is first on the path then, and its name is that of a library it must not hide from the package."""
    command = [sys.executable, "examples/evaluate.py", "compare", "--help"]
    run = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True)
    assert run.returncode == 0 and "Render results" in run.stdout, run.stderr


def test_unknown_fields_are_refused(script, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: m\noutput: o.json\nbatchsize: 3\n")
    with pytest.raises(ValueError, match="'batchsize': did you mean .*batch_size"):
        script.main([str(recipe)])
