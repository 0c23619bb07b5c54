"""Recipes fill dataclasses, the command line wins, what cannot be meant is refused; every packaged recipe parses."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from sensia_trainer.config import PRESETS, SensiaConfig
from sensia_trainer.training.settings import AdaptationData, PretrainingData, TrainedParts
from sensia_trainer.utils.arguments import recipe_parser
from sensia_trainer.utils.recipes import RECIPES, expand_variables, find_recipe, parse_recipe, read_recipe
from sensia_trainer.vocabulary.settings import VocabularySettings


ON_CPU = ["--use_cpu", "true", "--fp16", "false"]


@dataclass
class Fruit:
    name: str
    weight: float = 1.0
    colours: list[str] = field(default_factory=list)
    seeds: int | None = None
    ripe: bool = True
    origin: dict | None = None


@pytest.fixture(autouse=True)
def data_folder(monkeypatch):
    monkeypatch.setenv("SENSIA_DATA", "data")


def parse(dataclass_types, argv):
    return parse_recipe(recipe_parser(dataclass_types, prog="sensia fruit"), argv)


def write(path, content):
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_key_that_is_named_twice_is_refused(tmp_path):
    (tmp_path / "twice.yaml").write_text("bitext:\n  id: a.tsv\n  sw: b.tsv\n  id: c.tsv\n")
    with pytest.raises(ValueError, match="'id' is named twice.*line 2"):
        read_recipe(tmp_path / "twice.yaml")
    (tmp_path / "merged.yaml").write_text("a: &one {x: 1, y: 2}\nb: {<<: *one, x: 3}\n")
    assert read_recipe(tmp_path / "merged.yaml")["b"] == {"x": 3, "y": 2}


def test_the_command_line_wins_over_the_recipe(tmp_path):
    recipe = write(tmp_path / "a.yaml", {"name": "apple", "weight": "2e-1", "colours": ["red", "green"]})
    (fruit,) = parse((Fruit,), [recipe, "--name", "pear"])
    assert fruit == Fruit("pear", 0.2, ["red", "green"])
    assert parse((Fruit,), ["--name", "plum"])[0] == Fruit("plum")


def test_unknown_fields_are_refused_with_near_names(tmp_path):
    recipe = write(tmp_path / "a.yaml", {"name": "apple", "wieght": 2})
    with pytest.raises(ValueError, match="a.yaml' has an unknown field 'wieght'. Did you mean 'weight'"):
        parse((Fruit,), [recipe])
    with pytest.raises(ValueError, match="no option '--wieght'. Did you mean `weight`"):
        parse((Fruit,), ["--name", "apple", "--wieght", "2"])
    with pytest.raises(ValueError, match="no option '--seed'. Did you mean `seeds`"):  # no abbreviations
        parse((Fruit,), ["--name", "apple", "--seed", "2"])


def test_missing_recipe_and_wrong_shape(tmp_path):
    with pytest.raises(ValueError, match="recipe 'quikstart' does not exist.*Did you mean 'quickstart'"):
        find_recipe("quikstart")
    with pytest.raises(ValueError, match="must be a mapping"):
        read_recipe(write(tmp_path / "list.yaml", [1, 2]))
    (tmp_path / "torn.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match="torn.yaml' is not YAML"):
        read_recipe(tmp_path / "torn.yaml")


def test_what_is_missing_or_too_much_is_named():
    with pytest.raises(ValueError, match="required: --name"):
        parse((Fruit,), [])
    with pytest.raises(ValueError, match="'pear' is one argument too many"):
        parse((Fruit,), ["--name", "apple", "--ripe", "true", "pear"])


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("weight", "ten", "`weight` is 'ten', but must be a number"),
        ("weight", float("nan"), "`weight` is nan, but must be a number"),
        ("weight", True, "`weight` is True, but must be a number"),
        ("seeds", "ten", "`seeds` is 'ten', but must be a whole number"),
        ("seeds", 1.5, "`seeds` is 1.5, but must be a whole number"),
        ("seeds", [1], "`seeds` is \\[1\\], but must be a whole number"),
        ("ripe", "perhaps", "`ripe` is 'perhaps', but must be true or false"),
        ("ripe", None, "`ripe` is None, but must be true or false"),
        ("name", False, "`name` is False, but must be text; write it in quotes \\('no'\\)"),  # Norwegian
        ("colours", {"a": 1}, "`colours` is {'a': 1}, but must be a list, each item text"),
        ("origin", "here", "`origin` is 'here', but must be a mapping"),
        ("origin", '{"country": ', "`origin` is '{.*', but must be a mapping"),
    ],
)
def test_values_of_the_wrong_type_are_named(tmp_path, name, value, message):
    recipe = write(tmp_path / "a.yaml", {"name": "apple"} | {name: value})
    with pytest.raises(ValueError, match=f"a.yaml': {message}"):
        parse((Fruit,), [recipe])
    if isinstance(value, str):
        with pytest.raises(ValueError, match=f"^{message}"):
            parse((Fruit,), ["--name", "apple", f"--{name}", value])


def test_text_becomes_what_the_field_is(tmp_path):
    recipe = write(tmp_path / "a.yaml", {"name": 5, "weight": "2e-3", "seeds": 3.0, "colours": "red", "ripe": "no"})
    assert parse((Fruit,), [recipe]) == (Fruit("5", 0.002, ["red"], 3, False),)
    argv = ["--name", "a", "--seeds", "7", "--no_ripe", "--colours", "red", "blue", "--origin", '{"a": 1}']
    assert parse((Fruit,), argv) == (Fruit("a", 1.0, ["red", "blue"], 7, False, {"a": 1}),)
    assert parse((Fruit,), [write(tmp_path / "b.yaml", {"name": "a", "seeds": None})])[0].seeds is None


def test_paths_are_looked_for_beside_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    for file in ("there/pears.tsv", "there/plums.tsv", "here/plums.tsv"):
        (tmp_path / file).write_text("")
    recipe = write(tmp_path / "there" / "a.yaml", {"name": "there", "colours": ["pears.tsv", "plums.tsv", "no.tsv"]})
    monkeypatch.chdir(tmp_path / "here")
    (fruit,) = parse((Fruit,), [recipe])
    assert fruit.colours == [str(tmp_path / "there" / "pears.tsv"), "plums.tsv", "no.tsv"] and fruit.name == "there"
    (fruit,) = parse((Fruit,), ["../there/a.yaml", "--colours", "pears.tsv"])
    assert fruit.colours == ["pears.tsv"]
    recipe = write(tmp_path / "there" / "b.yaml", {"name": "n", "colours": ["pears.tsv,plums.tsv", "red, green"]})
    (fruit,) = parse((Fruit,), [recipe])
    assert fruit.colours == [f"{tmp_path / 'there' / 'pears.tsv'},plums.tsv", "red, green"]


def test_paths_of_a_recipe_beneath_are_looked_for_beside_that_one(tmp_path, monkeypatch):
    for file in ("pears.tsv", "above/pears.tsv"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    write(tmp_path / "base.yaml", {"name": "a", "colours": ["pears.tsv"]})
    recipe = write(tmp_path / "above" / "a.yaml", {"based_on": "../base.yaml"})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (fruit,) = parse((Fruit,), [recipe])
    assert Path(fruit.colours[0]).resolve() == tmp_path / "pears.tsv"


def test_a_model_is_looked_for_beside_the_recipe_too(tmp_path, monkeypatch):
    from sensia_trainer.training.settings import AdaptationData

    (tmp_path / "here").mkdir()
    (tmp_path / "there" / "mine").mkdir(parents=True)
    recipe = write(tmp_path / "there" / "a.yaml", {"model": "mine", "dense_model": "gpt2", "bitext": "a.tsv"})
    monkeypatch.chdir(tmp_path / "here")
    (data,) = parse((AdaptationData,), [recipe])
    assert (data.model, data.dense_model) == (str(tmp_path / "there" / "mine"), "gpt2")
    (tmp_path / "here" / "mine").mkdir()
    (data,) = parse((AdaptationData,), [recipe])
    assert data.model == "mine"


def test_variables_of_the_environment(monkeypatch):
    monkeypatch.setenv("FRUIT", "/pears")
    monkeypatch.delenv("NO_FRUIT", raising=False)
    assert expand_variables("${FRUIT}/a$b") == "/pears/a$b" and expand_variables(3) == 3
    assert parse((Fruit,), ["--name", "${FRUIT}/a"])[0].name == "${FRUIT}/a"  # expanded where it is read
    with pytest.raises(ValueError, match="`colours`: The environment variable NO_FRUIT is not set"):
        parse((Fruit,), ["--name", "a", "--colours", "b", "${NO_FRUIT}/a"])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("adapt_*.yaml")) + [RECIPES / "quickstart.yaml"], ids=str)
def test_adaptation_recipes(path, tmp_path):
    argv = [str(path), *ON_CPU, "--output_dir", str(tmp_path)]
    data, *_, args = parse((AdaptationData, VocabularySettings, TrainedParts, SensiaConfig), argv)
    assert data.bitext and args.target_language


@pytest.mark.parametrize(
    "method, weights", [("lm_only", (0, 0, 1.0)), ("fine_tuning", (0, 0, 1.0)), ("mcl", (0, 1.0, 1.5))]
)
def test_baselines_of_the_paper_differ_from_its_recipe_in_the_method_alone(tmp_path, method, weights):
    paper, baseline = (read_recipe(name) for name in ("adapt_paper", f"adapt_paper_{method}"))
    assert {name for name in baseline if paper.get(name) != baseline[name]} <= {"method", "dense_model", "output_dir"}
    parser = recipe_parser((AdaptationData, VocabularySettings, SensiaConfig), prog="sensia adapt")
    argv = [f"adapt_paper_{method}", *ON_CPU, "--output_dir", str(tmp_path)]
    data, _, args = parse_recipe(parser, argv, presets=PRESETS)
    assert data.method == method.replace("_", "-") and (args.w_sense, args.w_context, args.w_lm) == weights
    assert (args.max_steps, args.learning_rate, args.warmup_steps, args.seed) == (150_000, 5e-5, 0.1, 1234)
    assert (args.per_device_train_batch_size, args.max_grad_norm, args.label_smoothing) == (64, 1.0, 0.05)


def test_induction_recipes():
    from sensia_trainer.commands.induce import parser

    paths = sorted(RECIPES.glob("induce_*.yaml"))
    assert paths
    for path in paths:
        data, args = parse_recipe(parser(), [str(path), *ON_CPU, "--bf16", "false"])
        assert data.model and data.text_files and args.max_steps > 0


def test_reference_recipe_is_the_published_code(tmp_path):
    argv = [str(RECIPES / "reference.yaml"), *ON_CPU, "--output_dir", str(tmp_path)]
    _, args = parse((AdaptationData, SensiaConfig), argv)
    start = args.phase_state(0.0)
    assert (start.w_sense, start.w_context, start.w_lm) == pytest.approx((0.5392, 0.4412, 0.0196), abs=5e-5)
    assert (args.symmetric, args.sense_pooling, args.polish_freeze) == (False, "contextual", "none")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("pretrain_*.yaml")), ids=str)
def test_pretraining_recipes(path, tmp_path):
    from sensia_trainer.training.settings import PretrainingArguments

    argv = [str(path), *ON_CPU, "--bf16", "false", "--output_dir", str(tmp_path)]
    data, args = parse((PretrainingData, PretrainingArguments), argv)
    assert bool(data.dataset) != bool(data.text_files)
    if "micro" not in path.stem:
        assert 8 * args.per_device_train_batch_size * args.gradient_accumulation_steps * data.block_size == 524_288


def test_recipes_that_are_based_on_others(tmp_path):
    write(tmp_path / "a.yaml", {"name": "a", "seeds": 1, "colours": ["red"]})
    write(tmp_path / "b.yaml", {"seeds": 2, "weight": 3.0})
    recipe = write(tmp_path / "c.yaml", {"based_on": ["a", "b.yaml"], "weight": 5.0})
    assert read_recipe(recipe) == {"name": "a", "seeds": 2, "colours": ["red"], "weight": 5.0}
    assert parse((Fruit,), [recipe]) == (Fruit("a", 5.0, ["red"], 2),)
    write(tmp_path / "d.yaml", {"based_on": "e"})
    write(tmp_path / "e.yaml", {"based_on": "d"})
    with pytest.raises(ValueError, match="is based on itself"):
        read_recipe(tmp_path / "d.yaml")
    with pytest.raises(ValueError, match="'no-such-recipe' does not exist"):
        read_recipe(write(tmp_path / "f.yaml", {"based_on": "no-such-recipe"}))


def test_the_recommended_recipe_is_the_default(tmp_path):
    argv = [*ON_CPU, "--model", "m", "--bitext", "b.tsv", "--target_language", "id", "--output_dir", str(tmp_path)]
    types = (AdaptationData, VocabularySettings, SensiaConfig)
    parser = recipe_parser(types, prog="sensia adapt")
    _, words, args = parse_recipe(parser, argv, default="adapt")
    recommended = read_recipe("adapt")
    assert words.vocabulary_size == recommended["vocabulary_size"] > 0
    assert args.source_lm_weight == recommended["source_lm_weight"] > 0
    _, words, args = parse_recipe(recipe_parser(types, prog="sensia adapt"), ["adapt_paper", *argv], default="adapt")
    assert (words.vocabulary_size, args.source_lm_weight, args.polish_freeze) == (0, 0.0, "modules")
