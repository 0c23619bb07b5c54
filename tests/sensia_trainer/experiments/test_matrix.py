import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from filelock import FileLock

from sensia_trainer.commands.reproduce import fields_of, main
from sensia_trainer.evaluation.report_tables import PAPER
from sensia_trainer.experiments import matrix
from sensia_trainer.experiments.matrix import (
    _set_aside_another,
    check_runs,
    differing,
    execute,
    expand,
    is_finished,
    is_up_to_date,
    launch_with,
    load_matrix,
    read_ledger,
    select,
    write_ledger,
)
from sensia_trainer.experiments.tables import judge, load_results, measured, table_rows
from sensia_trainer.utils.recipes import RECIPES as RECIPES_FOLDER


RECIPE = {"model": "base", "max_steps": 10, "phases": ["align", "polish"], "w_sense": None}
MATRIX = {
    "title": "Loss ablations",
    "caption": "Small runs.",
    "recipe": "adapt.yaml",
    "fields": {"max_steps": 4},
    "evaluation": "evaluate.yaml",
    "evaluation_fields": {"target": "id"},
    "axes": {
        "variant": {"full": {}, "no-sense": {"w_sense": 0}},
        "seed": {"s1": {"seed": 1}, "s2": {"seed": 2}},
    },
    "average": "seed",
    "columns": [
        {"label": "PPL", "metric": "metrics.after.target_perplexity", "digits": 1},
        {"label": "XCOPA", "task": "xcopa"},
    ],
    "paper": {"source": "Table 6", "values": {"full": {"PPL": 10.58}, "no-sense": {"PPL": 13.64}}},
}


@pytest.fixture
def matrix_file(tmp_path):
    def write(**changes):
        (tmp_path / "adapt.yaml").write_text(yaml.safe_dump(RECIPE))
        (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump({"tasks": ["xcopa"]}))
        path = tmp_path / "matrix.yaml"
        path.write_text(
            yaml.safe_dump({k: v for k, v in (MATRIX | changes).items() if v is not None}, sort_keys=False)
        )
        return path

    return write


class Launcher:
    """Stands for training and evaluation: leaves the files they leave, and counts what it was asked to do."""

    def __init__(self, fail=(), silent=(), fail_evaluation=False):
        self.commands, self.fail, self.silent, self.fail_evaluation = [], fail, silent, fail_evaluation

    def __call__(self, command):
        self.commands.append(command)
        folder = Path(command[-1]) if "--output_dir" in command else Path(command[-1]).parent
        if folder.name in self.fail:
            return 3
        if folder.name in self.silent:
            return 0
        if "--output_dir" in command:
            recipe = yaml.safe_load(Path(command[1]).read_text())
            perplexity = 10.0 * recipe["seed"] + (0 if recipe["w_sense"] is None else 100)
            (folder / "metrics.json").write_text(json.dumps({"after": {"target_perplexity": perplexity}}))
        elif self.fail_evaluation:
            return 1
        else:
            scores = {"cond": {"accuracy": 0.5, "interval": [0.45, 0.55]}}
            tasks = [{"task": "xcopa", "template": "plain", "scores": scores}]
            Path(command[-1]).write_text(json.dumps({"kind": "evaluation", "complete": True, "tasks": tasks}))
        return 0


def test_the_product_of_the_axes_with_complete_recipes(matrix_file):
    runs = expand(load_matrix(matrix_file()))
    assert [run.name for run in runs] == ["full-s1", "full-s2", "no-sense-s1", "no-sense-s2"]
    assert runs[0].recipe == RECIPE | {"max_steps": 4, "seed": 1}
    assert runs[3].recipe == RECIPE | {"max_steps": 4, "seed": 2, "w_sense": 0}
    assert runs[3].labels == {"variant": "no-sense", "seed": "s2"}
    assert runs[0].evaluation == {"tasks": ["xcopa"], "target": "id"}
    assert len({run.fingerprint for run in runs}) == 4
    licensed = replace(runs[0], recipe=runs[0].recipe | {"text_licence": "CC0"})
    assert licensed.fingerprint == runs[0].fingerprint  # what is said of the text makes no other run


def test_a_column_may_be_of_a_task_in_one_language(matrix_file):
    columns = [{"label": "XStoryCloze, English", "task": "xstorycloze", "language": "en"}]
    assert load_matrix(matrix_file(columns=columns)).columns == columns


def test_some_runs_of_the_product_are_not_wanted(matrix_file):
    names = [run.name for run in expand(load_matrix(matrix_file(leave_out=["no-*-s1", "full-s2"])))]
    assert names == ["full-s1", "no-sense-s2"]
    with pytest.raises(ValueError, match="No run is called 'no-sens-s1'; nearest: .'no-sense-s1'"):
        expand(load_matrix(matrix_file(leave_out=["no-sens-s1"])))


def test_a_value_may_bring_its_own_recipe_script_and_evaluation(matrix_file, tmp_path):
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"vocab_size": 7}))
    axes = {
        "model": {
            "ours": {},
            "other": {"recipe": "other.yaml", "script": "pretrain.py", "evaluation": {"target": "tr"}},
            "published": {"train": False, "evaluation": {"model": "some/model"}},
        }
    }
    fields = {"evaluation_fields": {"target": "id", "model": "another/model"}}  # for a row that names none itself
    ours, other, published = expand(load_matrix(matrix_file(axes=axes, average=None, **fields)))
    assert "model" not in ours.evaluation  # its own
    assert other.script == "pretrain.py" and other.recipe == {"vocab_size": 7, "max_steps": 4}
    assert other.evaluation["target"] == "tr"
    assert not published.train and published.recipe == {} and published.evaluation["model"] == "some/model"


def test_execution_leaves_results_and_repeats_nothing(matrix_file, tmp_path):
    runs = expand(load_matrix(matrix_file()))
    launch = Launcher()
    outcome = execute(runs, tmp_path / "results", tmp_path / "runs", launch, "recipes/matrix.yaml")
    assert outcome == {"finished": [run.name for run in runs], "skipped": [], "busy": [], "failed": []}
    assert len(launch.commands) == 8
    train, evaluate = launch.commands[:2]
    folder = tmp_path / "runs" / "full-s1"
    assert train == ["adapt", str(folder / "recipe.yaml"), "--output_dir", str(folder)]
    assert evaluate[:4] == ["evaluate", str(folder / "evaluation.yaml"), "--model", str(folder)]
    result = json.loads((tmp_path / "results" / "no-sense-s2.json").read_text())
    assert result["metrics"]["after"]["target_perplexity"] == 120
    command = "sensia reproduce recipes/matrix.yaml --results_dir results --runs_dir runs --only no-sense-s2"
    assert result["metrics"]["command"] == command
    assert json.loads((tmp_path / "runs" / "no-sense-s2" / "metrics.json").read_text())["command"] == command
    assert result["evaluation"]["tasks"][0]["task"] == "xcopa"

    again = Launcher()
    assert execute(runs, tmp_path / "results", tmp_path / "elsewhere", again)["skipped"] == [run.name for run in runs]
    assert again.commands == []


def test_a_changed_recipe_or_a_lost_result_is_run_again(matrix_file, tmp_path):
    runs = expand(load_matrix(matrix_file()))
    execute(runs, tmp_path / "results", tmp_path / "runs", Launcher())
    (tmp_path / "results" / "full-s2.json").unlink()
    changed = expand(load_matrix(matrix_file(axes=MATRIX["axes"] | {"seed": {"s1": {"seed": 9}, "s2": {"seed": 2}}})))
    outcome = execute(changed, tmp_path / "results", tmp_path / "runs", Launcher())
    assert outcome["finished"] == ["full-s1", "full-s2", "no-sense-s1"]
    assert outcome["skipped"] == ["no-sense-s2"]


def test_failures_are_recorded_and_the_rest_goes_on(matrix_file, tmp_path):
    runs = expand(load_matrix(matrix_file()))
    launch = Launcher(fail=["full-s1"], silent=["no-sense-s1"])
    outcome = execute(runs, tmp_path / "results", tmp_path / "runs", launch)
    assert outcome["failed"] == ["full-s1", "no-sense-s1"]
    assert outcome["finished"] == ["full-s2", "no-sense-s2"]
    ledger = read_ledger(tmp_path / "results")
    assert "ended with code 3" in ledger["full-s1"]["message"]
    assert "left no metrics.json" in ledger["no-sense-s1"]["message"]
    assert not (tmp_path / "results" / "full-s1.json").exists()
    retried = execute(runs, tmp_path / "results", tmp_path / "runs", Launcher())
    assert retried["finished"] == ["full-s1", "no-sense-s1"]


def test_training_is_not_repeated_when_only_the_evaluation_failed(matrix_file, tmp_path):
    (run,) = select(expand(load_matrix(matrix_file())), ["full-s1"])
    launch = Launcher(fail_evaluation=True)
    assert execute([run], tmp_path / "results", tmp_path / "runs", launch)["failed"] == ["full-s1"]
    again = Launcher()
    assert execute([run], tmp_path / "results", tmp_path / "runs", again)["finished"] == ["full-s1"]
    assert [Path(command[-1]).name for command in again.commands] == ["evaluation.json"]
    # Nor what was measured of it: the recipe of the evaluation, which lies in the model's folder, is not touched.
    written = (tmp_path / "runs" / "full-s1" / "evaluation.yaml").stat().st_mtime_ns
    (tmp_path / "runs" / "full-s1" / "evaluation.json").unlink()
    (tmp_path / "results" / "full-s1.json").unlink()
    execute([run], tmp_path / "results", tmp_path / "runs", Launcher())
    assert (tmp_path / "runs" / "full-s1" / "evaluation.yaml").stat().st_mtime_ns == written
    axes = {"variant": {"full": {"max_steps": 5}}, "seed": {"s1": {"seed": 1}}}
    (changed,) = expand(load_matrix(matrix_file(axes=axes)))
    once_more = Launcher()
    execute([changed], tmp_path / "results", tmp_path / "runs", once_more)
    assert len(once_more.commands) == 2  # another model is evaluated again


def test_an_unfinished_evaluation_has_no_result(matrix_file, tmp_path):
    (run,) = select(expand(load_matrix(matrix_file())), ["full-s1"])
    execute([run], tmp_path / "results", tmp_path / "runs", Launcher())
    file = tmp_path / "runs" / "full-s1" / "evaluation.json"
    file.write_text(file.read_text().replace("true", "false"))  # its mark
    (tmp_path / "results" / "full-s1.json").unlink()
    again = Launcher()
    assert execute([run], tmp_path / "results", tmp_path / "runs", again)["finished"] == ["full-s1"]
    assert [Path(command[-1]).name for command in again.commands] == ["evaluation.json"]


def test_files_of_an_earlier_run_do_not_pass_for_new_ones(matrix_file, tmp_path):
    (run,) = select(expand(load_matrix(matrix_file())), ["full-s1"])
    folder = tmp_path / "runs" / "full-s1"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    assert execute([run], tmp_path / "results", tmp_path / "runs", Launcher(silent=["full-s1"]))["failed"] == [
        "full-s1"
    ]


def test_a_ledger_survives_a_line_cut_short(tmp_path):
    write_ledger(tmp_path, {"run": "a", "status": "finished"})
    with open(tmp_path / "ledger.jsonl", "a") as file:
        file.write('{"run": "a", "sta')
    assert read_ledger(tmp_path) == {"a": {"run": "a", "status": "finished"}}
    write_ledger(tmp_path, {"run": "a", "status": "failed", "error": "no pair\u2028in it"})
    assert read_ledger(tmp_path)["a"]["status"] == "failed"


def test_started_is_not_finished(matrix_file, tmp_path):
    run = expand(load_matrix(matrix_file()))[0]
    (tmp_path / "full-s1.json").write_text("{}")
    record = {"run": run.name, "fingerprint": run.fingerprint}
    assert not is_finished(run, tmp_path, {run.name: record | {"status": "started"}})
    assert is_finished(run, tmp_path, {run.name: record | {"status": "finished"}})
    assert not is_finished(run, tmp_path, {run.name: record | {"status": "finished", "fingerprint": "other"}})


def test_a_run_whose_recipe_came_to_tell_more_of_its_text_is_finished(matrix_file, tmp_path):
    then = expand(load_matrix(matrix_file()))[0]
    (tmp_path / "full-s1.json").write_text(json.dumps({"recipe": then.recipe}))
    ledger = {then.name: {"fingerprint": then.fingerprint, "status": "finished"}}
    for more, same in (({"language": "id", "licence": "CC0"}, True), ({"hard_negative_weight": 1.0}, False)):
        now = replace(then, recipe=then.recipe | more)
        assert now.fingerprint != then.fingerprint
        assert is_finished(now, tmp_path, ledger) == same
        _set_aside_another(write_recipe(tmp_path / "run" / str(same), then.recipe), now.recipe, "adapt")
        assert bool(list((tmp_path / "run" / str(same)).glob("superseded-*"))) != same
    other = replace(then, evaluation=then.evaluation | {"seed": 7})
    assert not is_finished(other, tmp_path, ledger)


def test_what_has_no_weight_does_not_tell_runs_apart():
    warm = {"tau_sense": 0.1, "tau_context": 0.1, "hard_negative_weight": 1.0, "align_weights": [0.05, 0.25, 0.7]}
    assert differing(warm, {}) == ["align_weights", "hard_negative_weight", "tau_context", "tau_sense"]
    for method in ("lm-only", "fine-tuning"):
        control = {"method": method}
        assert differing(control | warm, control) == []
        assert differing(control | {"learning_rate": 1.0}, control) == ["learning_rate"]
    # A method's own numbers are what a recipe has that leaves them out.
    mcl = {"method": "mcl"}
    assert differing(mcl | {"tau_context": 0.05, "tau_sense": 0.1}, mcl) == []
    assert differing(mcl | warm, mcl) == ["hard_negative_weight", "tau_context"]
    assert differing({"method": "lm-only", "w_sense": 1} | warm, {"method": "lm-only", "w_sense": 1}) == [
        "hard_negative_weight",
        "tau_sense",
    ]


@pytest.mark.parametrize("script, seed, rate", [("pretrain", 42, 5e-5), ("induce", 1234, 2e-4), ("adapt", 1234, 5e-5)])
def test_what_a_recipe_leaves_out_is_the_default_of_its_command(script, seed, rate):
    assert differing({"seed": seed, "learning_rate": rate}, {}, script) == []
    assert differing({"seed": seed + 1, "learning_rate": rate + 1}, {}, script) == ["learning_rate", "seed"]


def test_two_runs_of_one_name_are_refused(matrix_file):
    axes = {"method": {"lora": {}, "lora-new": {"seed": 2}}, "words": {"new-words": {}, "words": {"seed": 3}}}
    with pytest.raises(ValueError, match="gives two runs the name 'lora-new-words'"):
        expand(replace(load_matrix(matrix_file()), axes=axes, average=""))


def test_what_lies_beside_a_matrix_or_its_recipe_is_found(matrix_file, tmp_path):
    for name in ("base/pairs.tsv", "more.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("en\tid\n")
    (tmp_path / "base" / "base.yaml").write_text("bitext: pairs.tsv\n")
    matrix = replace(load_matrix(matrix_file()), recipe="base/base.yaml", folder=str(tmp_path), average="", fields={})
    run, other = expand(replace(matrix, axes={"pairs": {"few": {}, "more": {"bitext": ["more.tsv", "no.tsv"]}}}))
    assert run.recipe["bitext"] == str(tmp_path / "base" / "pairs.tsv")
    assert other.recipe["bitext"] == [str(tmp_path / "more.tsv"), "no.tsv"]


def test_a_method_of_an_axis_goes_before_the_recipe(matrix_file, tmp_path):
    (tmp_path / "warm.yaml").write_text("tau_context: 0.1\nsymmetric: true\nsource_lm_weight: 1.0\n")
    axes = {"method": {"mcl": {"method": "mcl"}, "warm-mcl": {"method": "mcl", "tau_context": 0.3}, "sensia": {}}}
    mcl, warm, sensia = expand(
        replace(load_matrix(matrix_file()), recipe=str(tmp_path / "warm.yaml"), axes=axes, average="")
    )
    assert (mcl.recipe["tau_context"], mcl.recipe["symmetric"], mcl.recipe["source_lm_weight"]) == (0.05, False, 1.0)
    assert warm.recipe["tau_context"] == 0.3
    assert (sensia.recipe["tau_context"], sensia.recipe["symmetric"]) == (0.1, True)


def write_recipe(folder, recipe):
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def test_selection_by_name_and_pattern(matrix_file):
    runs = expand(load_matrix(matrix_file()))
    assert [run.name for run in select(runs, ["full-*"])] == ["full-s1", "full-s2"]
    assert select(runs, []) == runs
    with pytest.raises(ValueError, match="nearest: \\['full-s2', 'full-s1'\\]|nearest: \\['full-s1', 'full-s2'\\]"):
        select(runs, ["full-s3"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x", "title": None}, "unknown field 'titel'; nearest: \\['title'\\]"),
        ({"title": None}, "lacks \\['title'\\]"),
        ({"axes": {"variant": {}}}, "`axes`"),
        ({"average": "language"}, "`average` is 'language'"),
        ({"columns": [{"label": "PPL"}]}, "A column needs"),
        ({"columns": ["PPL"]}, "`columns` must be a list of mappings"),
        ({"columns": "PPL"}, "`columns` must be a list of mappings"),
        ({"fields": ["max_steps"]}, "`fields` is .* but must be a mapping"),
        ({"axes": {"variant": {"full": 3}}, "average": None}, "`axes`: 'full' of 'variant' must be a mapping"),
        ({"columns": [{"label": "PPL", "metric": "a", "digit": 2}]}, "A column needs"),
        ({"claims": [{"text": "a", "column": "BLEU", "better": "full", "than": "no-sense"}]}, "A claim needs"),
        ({"claims": [{"text": "a", "column": "PPL", "better": "full"}]}, "A claim needs"),
    ],
)
def test_wrong_matrices_are_refused(matrix_file, changes, message):
    with pytest.raises(ValueError, match=message):
        expand(load_matrix(matrix_file(**changes)))


def test_runs_with_new_words_share_what_they_learn(matrix_file, tmp_path):
    runs = expand(load_matrix(matrix_file(fields={"max_steps": 4, "vocabulary_size": 12}, evaluation=None)))
    launch = Launcher()
    execute(runs[:2], tmp_path / "results", tmp_path / "runs", launch)
    cache = ["--vocabulary_cache", str(tmp_path / "runs" / "vocabularies")]
    assert [command[2:4] for command in launch.commands] == [cache, cache]


def test_runs_without_yardsticks_get_those_of_their_tokenizer(matrix_file, tmp_path):
    runs = expand(load_matrix(matrix_file()))
    of_base = {"overlap_recall_source_to_target": 0.5, "random_context_recall_source_to_target": 0.1, "pairs": 9}
    (tmp_path / "results" / "m").mkdir(parents=True)
    (tmp_path / "results" / "base.json").write_text(json.dumps({"flores": of_base}))
    own = {"overlap_recall_source_to_target": 0.7}
    kinds = [({"kind": "adaptation"}, {}), ({"kind": "baseline"}, {}), ({"kind": "adaptation", "vocabulary": {}}, own)]
    for run, (metrics, flores) in zip(runs, kinds, strict=False):
        result = {"metrics": metrics, "evaluation": {"flores": {"target_perplexity": 3.0} | flores}}
        (tmp_path / "results" / "m" / f"{run.name}.json").write_text(json.dumps(result))
    found = [
        {key: value for key, value in result["evaluation"]["flores"].items() if key != "target_perplexity"}
        for result in load_results(runs, tmp_path / "results" / "m", "base.json").values()
    ]
    overlap = {"overlap_recall_source_to_target": 0.5}
    assert found == [overlap | {"random_context_recall_source_to_target": 0.1}, overlap, own]
    assert len(load_results(runs, tmp_path / "results" / "m", "nowhere.json")) == 3


def test_the_base_stands_beside_runs_that_were_evaluated_on_the_same_source_sentences(matrix_file, tmp_path):
    runs = expand(load_matrix(matrix_file()))
    english = {"source": "eng_Latn", "split": "devtest"}
    of_base = english | {"fingerprint": "en-id", "overlap_recall_source_to_target": 0.5, "source_bits_per_byte": 2.1}
    (tmp_path / "results" / "m").mkdir(parents=True)
    (tmp_path / "results" / "base.json").write_text(json.dumps({"flores": of_base}))
    own = english | {"fingerprint": "en-et", "source_bits_per_byte": 2.0}
    kinds = [("adaptation", own), ("adaptation", own | {"split": "dev"}), ("baseline", own)]
    logged = [{"step": 9, "source_sense_drift_cosine": 0.75}]
    for run, (kind, flores) in zip(runs, kinds, strict=False):
        result = {"metrics": {"kind": kind, "history": logged}, "evaluation": {"flores": flores}}
        (tmp_path / "results" / "m" / f"{run.name}.json").write_text(json.dumps(result))
    results = list(load_results(runs, tmp_path / "results" / "m", "base.json").values())
    column = {"label": "English of the base", "metric": "base.source_bits_per_byte"}
    assert [measured(result, column) for result in results] == [(2.1, None), None, None]
    drift = {"label": "English senses", "metric": "metrics.after.source_sense_drift_cosine"}
    assert measured(results[0], drift) == (0.75, None)
    assert not any("overlap_recall_source_to_target" in result["evaluation"]["flores"] for result in results)


RECIPES = RECIPES_FOLDER
MATRICES = sorted([*RECIPES.glob("smollm2*.yaml"), *RECIPES.glob("table*.yaml"), *RECIPES.glob("micro/*.yaml")])


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.stem)
def test_shipped_matrices_name_only_fields_that_exist(path, monkeypatch):
    monkeypatch.setenv("SENSIA_DATA", "/data")
    matrix = load_matrix(path)
    runs = expand(matrix)
    check_runs(runs, fields_of)
    for run in runs:  # together they may be no more texts than pairs
        if run.train and run.recipe.get("replay_source") and run.recipe.get("monolingual_target"):
            assert run.recipe.get("replay_ratio", 0.25) + run.recipe.get("monolingual_ratio", 0.25) <= 1, run.name
    rows = {row["name"] for row in table_rows(matrix, runs, {})}
    assert set(matrix.paper.get("values", {})) <= rows
    labels = {column["label"] for column in matrix.columns}
    assert all(set(values) <= labels for values in matrix.paper.get("values", {}).values())
    assert len({run.fingerprint for run in runs}) == len(runs)
    assert all(judge(table_rows(matrix, runs, {}), claim)["verdict"] == "not measured" for claim in matrix.claims)


def test_table_1_quotes_the_paper():
    quoted = load_matrix("table1").paper["values"]
    rows = ("xglm", "bloomz", "goldfish", "fine-tuning", "mcl", "sensia")
    labels = {"xcopa": "XCOPA", "xstorycloze": "XStoryCloze", "belebele": "Belebele"}
    published = {}
    for row in PAPER["rows"]:
        for name, value in zip(rows, row["values"] if row["language"] != "zh" else ()):
            published.setdefault(f"{row['language']}-{name}", {})[labels[row["task"]]] = value
    assert quoted == published
    released = {run.name: run.evaluation["model"] for run in expand(load_matrix("table1")) if not run.train}
    assert released["sw-goldfish"] == "goldfish-models/swa_latn_1000mb" and released["sw-xglm"] == "facebook/xglm-7.5B"


@pytest.mark.parametrize(
    "name, trained",
    [("table3", "table1"), ("table4", "table1"), ("table5", "table1"), ("micro/senses", "micro/recommended")],
)
def test_analyses_without_training_are_of_runs_that_another_matrix_makes(name, trained):
    made = {f"../../{Path(trained).name}/{run.name}": run for run in expand(load_matrix(trained))}
    for run in expand(load_matrix(name)):
        model, control = made[run.evaluation["model"]], made[run.evaluation["control"]]
        assert not run.train and run.evaluation_script == "analyze"
        assert model.recipe["target_language"] == control.recipe["target_language"] == run.labels["language"]
        assert (model.recipe.get("method"), control.recipe["method"]) == (None, "lm-only")
        assert run.evaluation["target_file"].endswith(f"{model.evaluation['target']}.devtest")
        if "vocabulary" in run.evaluation:
            assert run.evaluation["vocabulary"] == run.evaluation["model"] + "/vocabulary"


def test_a_run_that_evaluates_another_is_made_again_when_that_was(matrix_file, tmp_path):
    evaluated = {"model": "../../other/full", "control": "../../other/lm-only"}
    axes = {"language": {"id": {"train": False, "evaluation": evaluated}}}
    runs = expand(load_matrix(matrix_file(axes=axes, average=None)))
    folders = tmp_path / "results" / "matrix", tmp_path / "runs" / "matrix"
    for name in ("full", "lm-only"):
        (tmp_path / "runs" / "other" / name).mkdir(parents=True)
        (tmp_path / "runs" / "other" / name / "metrics.json").write_text("{}")
    launch = Launcher()
    outcomes = [execute(runs, *folders, launch) for _ in range(2)]
    assert [outcome["skipped"] for outcome in outcomes] == [[], ["id"]] and len(launch.commands) == 1
    (tmp_path / "runs" / "other" / "lm-only" / "metrics.json").write_text('{"seed": 2}')
    assert execute(runs, *folders, launch)["finished"] == ["id"] and len(launch.commands) == 2
    assert execute(runs, folders[0], tmp_path / "elsewhere", launch)["skipped"] == ["id"]  # the others are not there


def test_a_model_named_from_here_is_evaluated_again_when_it_was_trained_again(matrix_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    axes = {"run": {"induced": {"train": False, "evaluation": {"model": "outputs/induced"}}}}
    runs = expand(load_matrix(matrix_file(axes=axes, average=None)))
    metrics = tmp_path / "outputs/induced/metrics.json"
    metrics.parent.mkdir(parents=True)
    launch = Launcher()
    for content, outcome in (("{}", "finished"), ("{}", "skipped"), ('{"seed": 2}', "finished")):
        metrics.write_text(content)
        assert is_up_to_date(*runs, "results", "runs", read_ledger("results")) == (outcome == "skipped")
        assert execute(runs, "results", "runs", launch)[outcome] == ["induced"]
    assert len(launch.commands) == 2


def test_an_untrained_run_needs_a_model(matrix_file):
    matrix = load_matrix(matrix_file(axes={"model": {"goldfish": {"train": False}}}, average=None))
    with pytest.raises(ValueError, match="must name a `model`"):
        expand(matrix)


def test_only_training_gets_the_arguments_of_the_launcher(monkeypatch):
    seen = []

    class Process:
        def __init__(self, command):
            seen.append(command)

        def wait(self):
            return 0

    monkeypatch.setattr("subprocess.Popen", Process)
    for launcher in ("accelerate launch --num_processes 2", "--num_processes 2"):
        launch = launch_with(launcher)
        launch(["adapt", "r.yaml"])
        launch(["evaluate", "e.yaml"])
        launch(["mine.py", "r.yaml"])
    ours = [sys.executable, "-m", "sensia_trainer"]
    assert seen == 2 * [
        [*ours, "adapt", "r.yaml", "--num_processes", "2"],
        [*ours, "evaluate", "e.yaml"],
        ["accelerate", "launch", "--num_processes", "2", "mine.py", "r.yaml"],
    ]


SAVES = """
import pathlib, signal, sys, time
def save(number, frame):
    time.sleep(1)  # longer than subprocess.run would wait
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit({signal.SIGINT: 130, signal.SIGTERM: 75}[number])
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, save)
pathlib.Path(sys.argv[1], "started").touch()
time.sleep(60)
"""


def reproduce_slowly(folder):
    run = expand(load_matrix(folder / "matrix.yaml"))[0]
    real = subprocess.Popen
    matrix.subprocess.Popen = lambda command: real([sys.executable, "-c", SAVES, str(folder)])
    try:
        execute([run], folder / "results", folder / "runs", launch_with(""))
    except KeyboardInterrupt:
        sys.exit(130)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_what_runs_may_save_when_the_whole_is_stopped(matrix_file, tmp_path, number, code):
    matrix_file()
    process = multiprocessing.get_context("forkserver").Process(target=reproduce_slowly, args=(tmp_path,))
    process.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    os.kill(process.pid, number)
    if number == signal.SIGINT:  # a terminal sends it to both
        (child,) = psutil.Process(process.pid).children()
        child.send_signal(number)
    process.join()
    assert process.exitcode == code and (tmp_path / "saved").exists()
    assert read_ledger(tmp_path / "results")["full-s1"]["status"] == "interrupted"


def test_a_run_that_another_process_is_at_is_left_to_it(matrix_file, tmp_path):
    runs = expand(load_matrix(matrix_file()))
    (tmp_path / "runs" / "full-s2").mkdir(parents=True)
    with FileLock(tmp_path / "runs" / "full-s2" / ".matrix.lock"):
        outcome = execute(runs, tmp_path / "results", tmp_path / "runs", Launcher())
    assert outcome["busy"] == ["full-s2"] and len(outcome["finished"]) == 3
    outcome = execute(runs, tmp_path / "results", tmp_path / "runs", Launcher())
    assert outcome["finished"] == ["full-s2"] and not outcome["busy"]


def test_another_recipe_begins_afresh_and_nothing_is_lost(matrix_file, tmp_path):
    folder = tmp_path / "runs" / "full-s1"
    (run,) = select(expand(load_matrix(matrix_file())), ["full-s1"])
    execute([run], tmp_path / "results", tmp_path / "runs", Launcher())
    (folder / "checkpoint-4").mkdir()
    (tmp_path / "results" / "full-s1.json").unlink()
    for fields, begins in (({"logging_steps": 3}, False), ({"max_steps": 9}, True)):
        (run,) = select(expand(load_matrix(matrix_file(fields={"max_steps": 4} | fields))), ["full-s1"])
        launch = Launcher()
        assert execute([run], tmp_path / "results", tmp_path / "runs", launch)["finished"] == ["full-s1"]
        assert (folder / "checkpoint-4").is_dir() != begins and len(launch.commands) == 2
    assert (folder / "superseded-1" / "checkpoint-4").is_dir()


@pytest.mark.parametrize("name", ["../climb", "a/b", ".hidden", "a b", "", "a\nb", "..", "C:x"])
def test_names_that_would_leave_the_folder_are_refused(matrix_file, name):
    with pytest.raises(ValueError, match="part of the names of files"):
        expand(load_matrix(matrix_file(axes={"variant": {name: {}}}, average=None)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": {"max_step": 3}}, "Run 'full-s1' has an unknown field 'max_step'. Did you mean 'max_steps'"),
        ({"fields": {"max_steps": "many"}}, "Run 'full-s1': `max_steps` is 'many', but must be a whole number"),
        ({"fields": {"model": "${NOWHERE}/x"}}, "Run 'full-s1': The environment variable NOWHERE"),
        ({"evaluation_fields": {"tasks": {"a": 1}}}, "Run 'full-s1': `tasks` is"),
        ({"script": "evil.py"}, "script 'evil.py', which is not a command of `sensia` but code"),
        ({"script": "/bin/sh"}, "script '/bin/sh', which is not a command"),
        ({"evaluation_script": "./e.py"}, "script './e.py', which is not a command"),
    ],
)
def test_what_no_run_could_do_is_refused_before_the_first(matrix_file, changes, message):
    with pytest.raises(ValueError, match=message):
        check_runs(expand(load_matrix(matrix_file(**changes))), fields_of)


def test_scripts_of_ones_own_where_they_are_allowed(matrix_file):
    check_runs(expand(load_matrix(matrix_file(script="mine.py"))), fields_of, allow_scripts=True)
    with pytest.raises(ValueError, match="no command 'adpt' that a matrix may run. Did you mean 'adapt'"):
        expand(load_matrix(matrix_file(script="adpt")))


def test_the_name_of_the_file_in_examples_is_the_same_run(matrix_file):
    long, short = (expand(load_matrix(matrix_file(script=name)))[0] for name in ("examples/adapt.py", "adapt"))
    assert long == short and long.fingerprint == short.fingerprint


def test_no_two_matrices_write_into_one_folder_of_results():
    """The paper's and those of micro scale may be given with the same `--results_dir`."""
    stems = Counter(path.stem for path in RECIPES_FOLDER.rglob("*.yaml") if "axes" in yaml.safe_load(path.read_text()))
    assert stems and max(stems.values()) == 1


def test_two_matrices_of_one_name_are_refused(matrix_file, tmp_path):
    path = Path(matrix_file())
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / path.name
    other.write_text(path.read_text())
    with pytest.raises(ValueError, match="would be written over each other"):
        main([str(path), str(other), "--results_dir", str(tmp_path / "results"), "--list"])


def test_a_claim_about_a_run_that_is_not_there_is_found_before_the_first(matrix_file, tmp_path):
    claim = {"text": "A typo", "column": "R@1", "better": "ful", "than": "overlap"}
    columns = [{"label": "R@1", "metric": "evaluation.flores.sense_recall_source_to_target"}]
    path = matrix_file(columns=columns, claims=[claim])
    with pytest.raises(ValueError, match="'A typo' has 'ful' for `better`"):
        main([str(path), "--results_dir", str(tmp_path / "results"), "--list"])
