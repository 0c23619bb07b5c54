"""Recipes fill dataclasses, the command line wins, unknown fields are refused; every recipe in examples/ parses."""

from dataclasses import dataclass, field

import pytest
import yaml

from sensia_trainer.config import SensiaConfig
from sensia_trainer.training.adaptation import AdaptationData
from sensia_trainer.training.pretraining import PretrainingData
from sensia_trainer.utils.recipes import RECIPES as RECIPES_FOLDER
from sensia_trainer.utils.recipes import parse_recipe, read_recipe


RECIPES = RECIPES_FOLDER
ON_CPU = ["--use_cpu", "true", "--fp16", "false"]


@dataclass
class Fruit:
    name: str
    weight: float = 1.0
    colours: list[str] = field(default_factory=list)


def write(path, content):
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_the_command_line_wins_over_the_recipe(tmp_path):
    recipe = write(tmp_path / "a.yaml", {"name": "apple", "weight": "2e-1", "colours": ["red", "green"]})
    (fruit,) = parse_recipe((Fruit,), [recipe, "--name", "pear"])
    assert fruit == Fruit("pear", 0.2, ["red", "green"])
    assert parse_recipe((Fruit,), ["--name", "plum"])[0] == Fruit("plum")


def test_unknown_fields_are_refused_with_near_names(tmp_path):
    recipe = write(tmp_path / "a.yaml", {"name": "apple", "wieght": 2})
    with pytest.raises(ValueError, match="'wieght': did you mean \\['weight'\\]"):
        parse_recipe((Fruit,), [recipe])


def test_missing_recipe_and_wrong_shape(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_recipe(tmp_path / "no.yaml")
    with pytest.raises(ValueError, match="must be a mapping"):
        read_recipe(write(tmp_path / "list.yaml", [1, 2]))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("adapt_*.yaml")) + [RECIPES / "quickstart.yaml"], ids=str)
def test_adaptation_recipes(path, tmp_path):
    data, args = parse_recipe((AdaptationData, SensiaConfig), [str(path), *ON_CPU, "--output_dir", str(tmp_path)])
    assert data.bitext and args.target_language


def test_reference_recipe_is_the_published_code(tmp_path):
    argv = [str(RECIPES / "reference.yaml"), *ON_CPU, "--output_dir", str(tmp_path)]
    _, args = parse_recipe((AdaptationData, SensiaConfig), argv)
    start = args.phase_state(0.0)
    assert (start.w_sense, start.w_context, start.w_lm) == pytest.approx((0.5392, 0.4412, 0.0196), abs=5e-5)
    assert (args.symmetric, args.sense_pooling, args.polish_freeze) == (False, "contextual", "none")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("pretrain_*.yaml")), ids=str)
def test_pretraining_recipes(path, tmp_path):
    from sensia_trainer.commands.pretrain import PretrainingArguments

    argv = [str(path), *ON_CPU, "--bf16", "false", "--output_dir", str(tmp_path)]
    data, args = parse_recipe((PretrainingData, PretrainingArguments), argv)
    assert bool(data.dataset) != bool(data.text_files)
    if "micro" not in path.stem:
        assert 8 * args.per_device_train_batch_size * args.gradient_accumulation_steps * data.block_size == 524_288
