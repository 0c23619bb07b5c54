"""The pages of docs/ are true: snippets run, commands and recipes exist, tables are fresh, the site builds."""

import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from sensia_trainer.cli import COMMANDS
from sensia_trainer.config import SensiaConfig
from sensia_trainer.curation.recipe import parse_recipe
from sensia_trainer.utils.recipes import RECIPES, find_recipe, read_recipe
from sensia_trainer.vocabulary.settings import VocabularySettings


ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
EVERYTHING = "\n".join(PAGES.values())
NOTEBOOK = json.loads((DOCS / "first-steps.ipynb").read_text(encoding="utf-8"))
OF_THE_LAUNCHER = {"--num_processes", "--config_file"}


def blocks(language, text):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def command_lines():
    for block in blocks("bash", EVERYTHING):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("sensia "):
                yield shlex.split(line, comments=True)[1:]


@pytest.fixture(scope="module")
def render():
    sys.path.insert(0, str(DOCS))  # as where the script is called by its name
    return runpy.run_path(str(DOCS / "render.py"))


# ---- What is rendered ----


@pytest.mark.parametrize(
    "page", ["index", "your-language", "your-model", "hyperparameters", "languages", "comparison"]
)
def test_tables_are_rendered_from_the_results(page, render):
    fresh = render["rendered"](PAGES[page])
    assert fresh == PAGES[page], "`python docs/render.py` renews it"
    assert "\n| " in fresh.partition("<!-- rendered: ")[2].partition("<!-- end -->")[0]


def test_what_one_model_of_several_languages_gives_and_costs(render):
    """The sentence above the table is read off its rows."""
    rows = [line.split(" | ") for line in render["several_table"]().splitlines()[2:7]]
    assert all(float(row[2]) >= float(row[1]) for row in rows)
    assert [row[0] for row in rows if float(row[5].strip(" |")) <= float(row[4])] == ["| Chinese"]


@pytest.mark.parametrize(
    ("changes", "is_one"),
    [({}, True), ({"pairs": "other"}, False), ({"learning_rate": 2e-3}, False), ({"eval_steps": 9}, True)],
)
def test_a_control_is_one_of_the_same_pairs_and_recipe(render, tmp_path, monkeypatch, changes, is_one):
    monkeypatch.setitem(render["control_of"].__globals__, "RESULTS", tmp_path)
    (tmp_path / "recommended").mkdir()
    for method, other in (("sensia", {}), ("lm-only", {"method": "lm-only"} | changes)):
        settings = {"learning_rate": 4e-3, "pairs": "mine"} | other
        result = {"metrics": {"data": {"fingerprint": settings.pop("pairs")}}, "recipe": settings}
        (tmp_path / "recommended" / f"id-{method}.json").write_text(json.dumps(result))
    assert bool(render["control_of"]("id")) == is_one == len(render["controls_of"]("id"))
    assert render["control_of"]("tr") is None


@pytest.mark.parametrize("name", ["recall", "curves", "pairs"])
def test_figures_are_drawn_from_the_results(name, render, tmp_path, real_pictures):
    render["FIGURES"][name](tmp_path / name)
    drawn = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
    assert drawn == (DOCS / "figures" / f"{name}.svg").read_text(encoding="utf-8"), "`python docs/render.py`"


def test_pictures_of_the_method_are_drawn(tmp_path, real_pictures):
    overview = runpy.run_path(str(DOCS / "overview.py"))
    for name, draw in overview["PICTURES"].items():
        _, drawn = overview["save_figure"](draw(), tmp_path / name)
        assert drawn.read_text(encoding="utf-8") == (DOCS / "figures" / f"{name}.svg").read_text(encoding="utf-8")


def test_the_page_of_the_notebook_is_its_cells(render):
    assert render["notebook_page"](NOTEBOOK) == PAGES["first-steps"]


# ---- What is said ----


def test_the_notebook_runs(tmp_path, monkeypatch):
    pytest.importorskip("django")
    monkeypatch.chdir(tmp_path)
    cells = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    text, names = "\n".join(cells), {}
    for long, short in (("STEPS = 150", "STEPS = 3"), ("range(100)", "range(8)"), ("range(100, ", "range(8, "),
                        ("6100", "56"), ("batch_size=64", "batch_size=8")):  # fmt: skip
        assert long in text
        text = text.replace(long, short)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, "first-steps.ipynb", "exec"), names)
    assert "recall@1 among 8" in printed.getvalue() and "16 senses a word" in printed.getvalue()
    assert (tmp_path / "outputs" / "first-steps" / "README.md").is_file()


@pytest.mark.slow
def test_python_snippets(tmp_path):
    pytest.importorskip("sentence_transformers")
    (tmp_path / "model_cards").symlink_to(ROOT / "model_cards")
    snippets = [s for name in PAGES if name != "first-steps" for s in blocks("python", PAGES[name])]
    assert len(snippets) > 3
    text = "\n".join(f"exec({snippet!r}, {{}})" for snippet in snippets)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= len(snippets)


def test_commands_take_what_they_are_given():
    lines = list(command_lines())
    assert len(lines) > 10
    parsers = {}
    for name, *arguments in lines:
        if arguments[:1] in (["compare"], ["dynamics"]):
            continue
        module = importlib.import_module(f"sensia_trainer.commands.{name}")
        known = parsers.setdefault(name, set(module.parser()._option_string_actions)) | OF_THE_LAUNCHER
        assert {word for word in arguments if word.startswith("--")} <= known, arguments
        if (
            name in ("adapt", "pretrain")
            and not arguments[0].startswith("-")
            or "/" in arguments[0]
            and name == "bitext"
        ):
            assert find_recipe(arguments[0]).is_file()


def test_adaptations_say_how_long_and_how_fast():
    """A command or a recipe that says neither would train 150,000 steps at the rate of a large model."""
    commands = [words for words in command_lines() if words[0] == "adapt" and words[1].startswith("-")]
    assert len(commands) > 2
    for words in commands:
        assert {"--max_steps", "--learning_rate"} <= set(words), words
    recipes = [yaml.safe_load(block) for block in blocks("yaml", EVERYTHING)]
    assert len(recipes) > 2
    for recipe in recipes:
        if "sources" in recipe:  # of `sensia bitext`
            based_on = read_recipe(find_recipe(recipe.pop("based_on")))
            parse_recipe(based_on | recipe)
            continue
        assert recipe["based_on"] == "adapt" and {"model", "max_steps", "learning_rate"} <= set(recipe), recipe


def test_models_with_a_gate_are_adapted_as_the_recipe_does():
    recipe = yaml.safe_load(find_recipe("adapt_smollm2").read_text())
    gated = [words for words in command_lines() if {"outputs/induced", "--induce_steps"} & set(words[2:])]
    gated = [words for words in gated if words[0] == "adapt"]
    assert len(gated) > 1
    for words in gated:
        for name in ("train", "context_state", "sense_pooling"):
            assert words[words.index(f"--{name}") + 1] == recipe[name], (words, name)


def test_every_command_is_named():
    for name in COMMANDS:
        assert f"`sensia {name}`" in PAGES["quickstart"], name


def test_recipes_exist():
    named = re.findall(r"`(?:recipes/)?([\w/{},*]+\.yaml)`", EVERYTHING)
    assert "quickstart.yaml" in named
    for name in named:
        for pattern in expand(name):
            assert list(RECIPES.glob(pattern)), name


def expand(pattern):
    """Shell braces: `a_{b,c}` is `a_b` and `a_c`."""
    found = re.search(r"{(.*?)}", pattern)
    return [pattern.replace(found[0], choice) for choice in found[1].split(",")] if found else [pattern]


def test_extras_exist():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = re.findall(r'pip install "\.\[([\w,]+)\]"', EVERYTHING)
    extras = {extra for names in named for extra in names.split(",")}
    assert len(extras) > 3 and extras <= set(setup["options.extras_require"])


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)", PAGES[page]):
        assert link.startswith("https://") or (DOCS / link).exists(), link


def test_hyperparameters_are_all_there_with_their_defaults():
    own = [name for name in SensiaConfig.__annotations__ if name != "FREE"]
    fields = {field.name: field for cls in (SensiaConfig, VocabularySettings) for field in dataclasses.fields(cls)}
    shown = {}
    for names, defaults in re.findall(r"^\| (`.*?) \| (.*?) \|", PAGES["hyperparameters"], flags=re.MULTILINE):
        names = re.findall(r"`(\w+)`", names)
        several = [defaults] if isinstance(default_of(fields[names[0]]), list) else defaults.split(", ")
        shown |= dict(zip(names, several * len(names) if len(several) == 1 else several, strict=True))
    silent = {"logging_steps", "eval_steps", "dataloader_drop_last", "use_cache", "remove_unused_columns"}
    assert set(own) - silent - {"ddp_find_unused_parameters"} <= set(shown)
    for name, default in shown.items():
        actual = default_of(fields[name])
        said = None if default == "–" else default
        written = ", ".join(map(str, actual)) if isinstance(actual, list) else actual
        assert said == (None if written is None else str(written)), name


def default_of(field):
    made = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if made else field.default


def test_the_speed_beside_the_published_code_is_the_benchmark_s():
    rows = json.loads((ROOT / "results" / "benchmarks" / "benchmark_adapt.json").read_text(encoding="utf-8"))["rows"]
    pace = {(row["way"], row["pairs"]): row["pairs_per_second"] for row in rows}
    small, large, published = pace["ours", 4], pace["ours", 16], pace["published", 4]
    (line,) = [line for line in PAGES["comparison"].splitlines() if line.startswith("| speed")]
    assert (
        f"| {published:.2f} pairs" in line and f"| {small:.2f} in batches of 4, {small / published:.1f} times" in line
    )
    assert f"; {large:.2f} in batches of 16" in line


def test_dense_alignment_beside_sense_adaptation_and_overlap(render):
    """What the page of comparisons says of the paper's recipe, by contexts, mean of both directions."""
    above = set()
    for code in ("id", "et", "sw", "tr", "zh"):
        runs = "zh/own-{}.json" if code == "zh" else f"{code}/{{}}*.json"
        ours, dense = (render["mean_recall"](render["read"](runs.format(method))) for method in ("sensia", "mcl"))
        overlap = render["mean_recall"](render["read"]("zh/own-sensia.json"), "overlap") if code == "zh" else None
        overlap = overlap or render["overlap_of"](code)
        assert dense < ours, code
        above |= {code} if ours > overlap else set()
        assert dense < overlap or code in ("sw", "zh")
    assert above == {"sw", "zh"}


def test_methods_beside_each_other_are_quoted_right(render):
    above_overlap = set()
    for code in ("id", "et", "sw", "tr", "zh"):
        runs = "methods_id/{}-s*.json" if code == "id" else f"methods/{code}-{{}}.json"
        ours, paper, dense = (render["read"](runs.format(method)) for method in ("sensia", "paper", "mcl"))
        assert render["mean_recall"](ours) > render["mean_recall"](dense), code
        above_overlap |= {code} if render["mean_recall"](dense) > render["mean_recall"](ours, "overlap") else set()
        for kind in ("sense", "context"):
            assert render["mean_recall"](ours, kind) > render["mean_recall"](paper, kind), (code, kind)
        for side in ("target", "source"):
            bits = ([run["evaluation"]["flores"][f"{side}_bits_per_byte"] for run in runs] for runs in (ours, paper))
            assert max(next(bits)) < min(next(bits)), (code, side)
    assert above_overlap == {"sw", "zh"}


def test_the_study_of_domains_is_quoted_right(render):
    page, path = " ".join(PAGES["your-language"].split()), "recipe/both-sides+no-freezing+even-weights+more-context"
    before, after = (render["read"](path + end)[0]["metrics"]["after"] for end in (".json", "+balanced-domains.json"))
    for name, words in {
        "sense_recall_source_to_target": "found {:.2f} of the translations of FLORES dev in place of {:.2f}",
        "target_bits_per_byte": "wrote with {:.2f} bits a byte in place of {:.2f}",
    }.items():
        assert words.format(after[name], before[name]) in page
    released = render["read"]("recommended/id-sensia.json")[0]["metrics"]
    base, kept = (released[name]["source_bits_per_byte"] for name in ("before", "after"))
    more = [
        100 * (run["metrics"]["after"]["source_bits_per_byte"] / base - 1)
        for run in render["read"]("recipe/*.json")
        if run["recipe"].get("source_lm_weight") and not run["recipe"].get("replay_source")
        if run["metrics"]["config"]["steps"] == 500 and run["recipe"].get("method", "sensia") == "sensia"
    ]
    reading = " ".join(PAGES["reading-results"].split())
    assert f"({min(more):.0f} to {max(more):.0f} % more bits a byte than the base" in reading and kept < base
    assert f"about {base:.1f} for English" in reading


def test_the_public_interface_is_documented():
    """Functions, classes and methods of the API page have docstrings, of their own or of what they override."""
    for path in re.findall(r"^::: ([\w.]+)", PAGES["api"], flags=re.MULTILINE):
        for name, thing in public_things(path):
            text = inspect.getdoc(thing)  # dataclasses make one of their signature
            assert text and not text.startswith(f"{name}("), f"{path}: {name} has no docstring"


def public_things(path):
    """`(name, object)` of what a module, or a class with its methods, makes public."""
    try:
        thing = importlib.import_module(path)
        things = [t for t in vars(thing).values() if getattr(t, "__module__", None) == path and callable(t)]
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        things = [getattr(importlib.import_module(module), name)]
    for thing in things:
        if thing.__name__.startswith("_"):
            continue
        yield thing.__name__, thing
        for name, member in vars(thing).items() if inspect.isclass(thing) else ():
            if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod)):
                yield f"{thing.__name__}.{name}", getattr(thing, name) if isinstance(member, classmethod) else member


# ---- The site ----


@pytest.mark.skipif(not find_spec("mkdocs") or not find_spec("mkdocstrings"), reason="the site's tools are not here")
def test_the_site_builds_strictly(tmp_path):
    """Not quietly, since warnings that are not told are not counted."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "recall.svg" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "PhaseSchedule" in (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
