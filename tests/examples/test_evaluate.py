import json

import pytest
import yaml

from sensia_trainer.cli import main
from sensia_trainer.evaluation.settings import EvaluationConfig
from sensia_trainer.evaluation.suite import check_config
from sensia_trainer.utils.recipes import RECIPES


@pytest.mark.parametrize("name", ["evaluate", "evaluate_local"])
def test_recipes_are_valid(name):
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    check_config(EvaluationConfig(**{"model": "m", "output": "r.json", "target": "sw"} | recipe))


def test_the_language_is_never_taken_for_granted(tmp_path, capsys):
    assert main(["evaluate", "evaluate", "--model", "m", "--output", str(tmp_path / "a.json")]) == 2
    assert "--target" in capsys.readouterr().err


def test_evaluate_and_compare(tmp_path, tiny_model, tokenizer, capsys):
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
    main(["evaluate", str(recipe), "--model", str(tmp_path / "model"), "--target", "id", "--output", str(output),
                 "--data_dir", str(tmp_path / "data")])  # fmt: skip
    printed = capsys.readouterr().out
    assert "copa en plain cond" in printed and "at chance" in printed and str(output) in printed
    main(["evaluate", "compare", str(output), "--output", str(tmp_path / "table.md")])
    assert str(tmp_path / "table.csv") in capsys.readouterr().out


def test_unknown_fields_are_refused(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: m\noutput: o.json\nbatchsize: 3\n")
    assert main(["evaluate", str(recipe)]) == 2
    assert "'batchsize'. Did you mean 'batch_size'" in capsys.readouterr().err
