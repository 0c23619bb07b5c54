"""Tables of results, verdicts on claims, and whether runs made twice agree."""

import re
from dataclasses import replace
from functools import partial

import pytest

from sensia_trainer.experiments.matrix import Matrix, Run, expand, load_matrix, result_file
from sensia_trainer.experiments.tables import (
    agreement,
    check_claims,
    draw_table,
    judge,
    load_results,
    measured,
    of_an_earlier_recipe,
    render_agreement,
    render_claims,
    render_report,
    render_table,
    render_verdicts,
    summarise,
    table_rows,
    yardstick,
)
from sensia_trainer.utils.files import write_json
from sensia_trainer.utils.recipes import RECIPES


CLAIM = {"text": "Senses help", "column": "R@1", "better": "full", "than": "no-sense"}
RECALLS = {"full-s1": 0.5, "full-s2": 0.502, "no-sense-s1": 0.2}


@pytest.mark.parametrize(
    ("metric", "overlap", "random"),
    [
        ("e.flores.sense_recall_x", "e.flores.overlap_recall_x", "e.flores.random_sense_recall_x"),
        ("e.matrix.context.zero_shot", "e.matrix.overlap.zero_shot", "e.matrix.random_context.zero_shot"),
        ("e.matrix.sense.en-id", "e.matrix.overlap.en-id", "e.matrix.random_sense.en-id"),
        ("e.matrix.bits_per_byte.id", "without a yardstick", "without a yardstick"),
        ("e.flores.target_perplexity", "without a yardstick", "without a yardstick"),
    ],
)
def test_what_stands_beside_a_column(metric, overlap, random):
    found = [yardstick({"label": "R@1", "metric": metric}, name) for name in ("overlap", "random")]
    assert found == [{"label": "R@1", "metric": overlap}, {"label": "R@1", "metric": random}]


@pytest.fixture
def matrix():
    return Matrix(
        title="Loss ablations",
        caption="Small runs.",
        axes={
            "variant": {"full": {}, "no-sense": {"w_sense": 0}},
            "seed": {"s1": {"seed": 1}, "s2": {"seed": 2}},
        },
        average="seed",
        columns=[
            {"label": "PPL", "metric": "evaluation.flores.perplexity", "digits": 1},
            {"label": "R@1", "metric": "evaluation.flores.recall"},
            {"label": "XCOPA", "task": "xcopa"},
        ],
        paper={"source": "Table 6", "values": {"full": {"PPL": 10.58}, "no-sense": {"PPL": 7.7e7}}},
        claims=[CLAIM],
    )


def result(recall):
    scores = {"cond": {"accuracy": 0.5, "interval": [0.45, 0.55]}}
    flores = {"perplexity": 100 * recall, "recall": recall, "recall_interval": [recall - 0.05, recall + 0.05]}
    return {"evaluation": {"flores": flores, "tasks": [{"task": "xcopa", "template": "plain", "scores": scores}]}}


@pytest.fixture
def results():
    return {name: result(recall) for name, recall in RECALLS.items()}


def test_the_paper_stands_beside(matrix, results, tmp_path):
    runs = expand(matrix)
    text = render_table(matrix, runs, results)
    lines = text.splitlines()
    assert "| variant | runs | PPL | PPL (paper) | R@1 | XCOPA |" in lines
    assert "| full | 2 | 50.1 [48.8, 51.4] | 10.6 | 0.501 [0.449, 0.553] | 0.500 [0.450, 0.550] |" in lines
    assert "| no-sense | 1 | 20.0 | 7.7e+07 | 0.200 [0.150, 0.250] | 0.500 [0.450, 0.550] |" in lines
    assert "Small runs." in text and "over test items and runs" in text and "Paper: Table 6." in text
    assert "| full | 0 | – | 10.6 | – | – |" in render_table(matrix, runs, {})
    files = draw_table(matrix, runs, results, tmp_path / "table")
    assert {file.suffix for file in files} == {".png", ".svg"}
    assert draw_table(matrix, runs, {}, tmp_path / "none") == []


def test_what_has_not_run_is_named_below(matrix, results):
    matrix = replace(matrix, paper={})
    runs = expand(matrix)
    without = {name: found for name, found in results.items() if not name.startswith("no-sense")}
    text = render_table(matrix, runs, without)
    assert "| no-sense" not in text and text.endswith("Not run yet: no-sense.\n")
    claims = render_claims(matrix, runs, without)
    assert claims == ""
    known = {"text": "It finds some", "column": "R@1", "better": "full", "than": "zero"}
    claims = render_claims(replace(matrix, claims=[*matrix.claims, known]), runs, without)
    assert "It finds some" in claims and "1 more claims are about runs" in claims
    assert "Not run yet" not in render_table(matrix, runs, results)


def test_results_of_an_earlier_recipe_are_named_below(matrix, results):
    (run, *_), name = expand(matrix), "By an earlier recipe, to be run again"
    run = replace(run, recipe={"w_lm": 0.7, "logging_steps": 50, "polish_weights": [0.15, 0.15, 0.7]})
    same, other = {"w_lm": 0.7, "logging_steps": 10, "licence": "CC0"}, {"w_lm": 0.5}
    unnamed = same | {"hard_negative_weight": 1}  # and 0 where it is not named
    for recipe, said in ((same, ""), (other, f"{name}: {run.name}."), (unnamed, f"{name}: {run.name}.")):
        text = render_table(matrix, [run], {run.name: results[run.name] | {"recipe": recipe}})
        assert said in text and bool(said) == (name in text)


def test_results_of_another_evaluation_are_named_below(matrix, results):
    runs = [
        replace(run, evaluation={"target": "ind_Latn", "max_items": 500, "output": "b.json"}) for run in expand(matrix)
    ]
    for result in results.values():
        result["evaluation"]["config"] = {"target": "ind_Latn", "max_items": 500, "output": "a.json"}
    assert of_an_earlier_recipe(runs, results) == []
    results["full-s1"]["evaluation"]["config"]["max_items"] = 5
    assert of_an_earlier_recipe(runs, results) == ["full-s1"]


def test_a_task_may_be_in_several_languages_and_of_ones_own():
    scores = {"cond": {"accuracy": 0.5}}
    tasks = [
        {"task": "xcopa", "language": code, "template": "plain", "scores": {"cond": {"accuracy": accuracy}}}
        for code, accuracy in (("et", 0.4), ("id", 0.6))
    ]
    tasks.append({"task": "mine", "language": "id", "template": "own", "scores": scores})
    result = {"evaluation": {"tasks": tasks}}
    assert measured(result, {"task": "xcopa"}) == (0.4, None)
    assert measured(result, {"task": "xcopa", "language": "id"}) == (0.6, None)
    assert measured(result, {"task": "mine"}) == (0.5, None)


def test_measured_reads_intervals_beside_values():
    result = {"evaluation": {"flores": {"recall": 0.5, "recall_interval": [0.4, 0.6]}, "tasks": []}}
    assert measured(result, {"label": "R", "metric": "evaluation.flores.recall"}) == (0.5, [0.4, 0.6])
    assert measured(result, {"label": "R", "metric": "evaluation.flores.other"}) is None
    assert measured({"evaluation": None}, {"label": "R", "metric": "evaluation.flores.recall"}) is None
    assert measured(result, {"label": "X", "task": "xcopa"}) is None
    mixture = {"full": {"mean": 2.5, "interval": [2.4, 2.6]}}
    assert measured({"evaluation": mixture}, {"label": "CE", "metric": "evaluation.full.mean"}) == (2.5, [2.4, 2.6])


@pytest.mark.parametrize(
    ("better", "than", "lower", "verdict"),
    [
        ((0.6, [0.5, 0.7]), (0.3, [0.2, 0.4]), False, "holds"),
        ((0.6, [0.5, 0.7]), (0.3, [0.2, 0.4]), True, "does not hold"),
        ((0.3, [0.2, 0.4]), (0.6, [0.5, 0.7]), False, "does not hold"),
        ((0.3, [0.2, 0.4]), (0.6, [0.5, 0.7]), True, "holds"),
        ((0.6, [0.4, 0.8]), (0.5, [0.3, 0.7]), False, "open"),
        ((0.6, [0.5, 0.7]), (0.44, [0.34, 0.54]), False, "holds"),  # intervals that overlap; sqrt(.1^2 + .1^2) = .141
        ((0.6, [0.5, 0.7]), (0.47, [0.37, 0.57]), False, "open"),
        ((0.5, [0.4, 0.6]), (0.5, [0.4, 0.6]), False, "open"),
        ((0.6, None), (0.3, [0.2, 0.4]), False, "open"),
        (None, (0.3, [0.2, 0.4]), False, "not measured"),
    ],
)
def test_verdicts(better, than, lower, verdict):
    rows = [{"name": "full", "cells": {"R@1": better}}, {"name": "no-sense", "cells": {"R@1": than}}]
    assert judge(rows, CLAIM | {"lower": lower})["verdict"] == verdict


def test_the_interval_of_a_mean_over_runs():
    # Items: (.1^2 + .2^2) / 2 = .025; runs: 12.7062^2 * .02 / 2 = 1.61448; the square root of their sum is 1.28042.
    value, (low, high) = summarise([(0.4, [0.3, 0.5]), (0.6, [0.4, 0.8])])
    assert value == pytest.approx(0.5) and (low, high) == pytest.approx((-0.78042, 1.78042), abs=1e-5)
    # Runs that agree are no more certain than their items.
    assert summarise([(0.5, [0.4, 0.6])] * 3)[1] == pytest.approx([0.4, 0.6])
    assert summarise([]) is None and summarise([(0.5, None)]) == (0.5, None)


def test_verdicts_of_several_tables_side_by_side():
    claim = {"text": "Senses help", "verdict": "holds"}
    other = {"text": "Only here", "verdict": "open"}
    text = render_verdicts({"id": [claim, other], "et": [claim | {"verdict": "open"}], "table6": []})
    assert text == "| claim | id | et |\n| --- | --- | --- |\n| Senses help | holds | open |\n"
    assert render_verdicts({"id": [claim]}) == ""


def test_claims_that_do_not_hold_are_listed_wherever_they_stand():
    claim, alone = ({"text": text, "verdict": "does not hold"} for text in ("Senses help", "Only here"))
    text = render_verdicts({"id": [claim, alone], "et": [claim], "sw": [claim | {"verdict": "holds"}]})
    assert text.startswith("| claim | id | et | sw |\n") and "Only here" not in text.partition("\n\n")[0]
    assert text.endswith("in which table:\n\n- Senses help (id, et)\n- Only here (id)\n")
    assert "| claim |" not in render_verdicts({"id": [alone]})


def test_claims_are_whole_sentences_that_mean_the_same_everywhere():
    matrices = [load_matrix(file) for folder in (RECIPES, RECIPES / "micro") for file in sorted(folder.glob("*.yaml"))
                if "axes:" in file.read_text(encoding="utf-8")]  # fmt: skip
    by = {}
    for matrix in matrices:
        texts = [claim["text"] for claim in matrix.claims]
        assert len(set(texts)) == len(texts), matrix.title
        for claim in matrix.claims:
            text = re.sub(r"^[A-Z]\w+: ", "", claim["text"])  # the language
            assert not re.match("(?i)(and|also|the same|as many|nor) ", text), claim["text"]
            expected = by.setdefault(claim["text"], (claim["column"], bool(claim.get("lower"))))
            assert (claim["column"], bool(claim.get("lower"))) == expected, claim["text"]
    assert len(by) > 100


def test_claims_are_answered_from_the_table(matrix, results):
    lines = render_claims(matrix, expand(matrix), results).splitlines()
    assert lines[2].startswith("| Senses help | R@1 | full: 0.501 [0.449, 0.553] | no-sense: 0.200 [0.150, 0.250] |")
    assert lines[2].endswith("| **holds** |")
    matrix.claims = []
    assert render_claims(matrix, expand(matrix), results) == ""
    with pytest.raises(ValueError, match="names the rows \\['half'\\]"):
        judge([{"name": "full", "cells": {"R@1": None}}], CLAIM | {"better": "full", "than": "half"})


@pytest.mark.parametrize(
    "side, allowed", [("better", "['full', 'no-sense']"), ("than", "'no-sense', 'overlap', 'random'")]
)
def test_a_claim_about_no_row_is_refused_before_the_runs(matrix, side, allowed):
    for name in ("overlap", "random", "zero"):
        matrix.claims = [CLAIM | {"than": name}]
        check_claims(matrix, expand(matrix))
    matrix.claims = [CLAIM | {side: "ful"}]
    with pytest.raises(ValueError, match=f"has 'ful' for `{side}`, which must be one of .*{re.escape(allowed)}"):
        check_claims(matrix, expand(matrix))


@pytest.mark.parametrize("metric", ["evaluation.flores", "evaluation.tasks", "evaluation.tasks.x"])
def test_a_column_of_what_is_no_number_is_refused(metric):
    measured_of = partial(measured, result(0.5), {"label": "R@1", "metric": metric})
    if metric.endswith("x"):
        assert measured_of() is None
    else:
        with pytest.raises(ValueError, match=f"`metric` '{metric}', which is no number but a"):
            measured_of()


@pytest.mark.parametrize("earlier", [(), ("full",), ("no-sense",), ("full", "no-sense")])
def test_an_earlier_recipe_is_not_compared_with_that_of_today(matrix, results, earlier):
    runs = expand(matrix)
    results = {name: result | {"recipe": {"w_lm": 0.5}} for name, result in results.items()}
    rows = [replace(r, recipe={"w_lm": 0.7 if any(r.name.startswith(e) for e in earlier) else 0.5}) for r in runs]
    (judged,) = (judge(table_rows(matrix, rows, results), claim) for claim in matrix.claims)
    assert judged["verdict"] == ("not measured" if len(earlier) == 1 else "holds")


@pytest.mark.parametrize("overlap, verdict", [(0.2, "holds"), (0.9, "does not hold"), (0.51, "open")])
def test_a_claim_about_overlap_is_a_verdict_against_that_of_the_same_runs(matrix, overlap, verdict):
    matrix.columns = [
        {"label": "R@1", "metric": "evaluation.flores.sense_recall_source_to_target"},
        {"label": "PPL", "metric": "evaluation.flores.target_perplexity"},
    ]
    values = {"sense_recall_source_to_target": 0.5, "overlap_recall_source_to_target": overlap}
    values |= {"random_sense_recall_source_to_target": 0.07, "target_perplexity": 9.0}
    flores = values | {f"{name}_interval": [value - 0.05, value + 0.05] for name, value in values.items()}
    rows = table_rows(matrix, expand(matrix), {"full-s1": {"evaluation": {"flores": flores}}})
    judged = judge(rows, CLAIM | {"than": "overlap"})
    assert judged["verdict"] == verdict and judged["values"][1][0] == pytest.approx(overlap)
    assert judge(rows, CLAIM | {"than": "random"})["values"][1][0] == pytest.approx(0.07)
    assert judge(rows, CLAIM | {"column": "PPL", "than": "overlap"})["verdict"] == "not measured"


@pytest.mark.parametrize("interval, verdict", [([0.1, 0.3], "holds"), ([-0.3, -0.1], "does not hold"), (None, "open")])
def test_a_difference_is_compared_with_zero(interval, verdict):
    difference = {"mean": sum(interval) / 2, "interval": interval} if interval else {"mean": 0.2}
    columns = [{"label": "Δρ", "metric": "evaluation.difference.mean"}]
    claim = {"text": "more alike", "column": "Δρ", "better": "id", "than": "zero"}
    matrix = Matrix(title="t", axes={"language": {"id": {}}}, columns=columns, claims=[claim])
    runs = expand(matrix)
    judged = judge(table_rows(matrix, runs, {"id": {"evaluation": {"difference": difference}}}), claim)
    assert judged["verdict"] == verdict and judged["values"][1] == (0.0, [0.0, 0.0])
    assert judge(table_rows(matrix, runs, {}), claim)["verdict"] == "not measured"


def test_runs_made_twice(matrix, results):
    again = {"full-s1": result(0.5), "no-sense-s1": result(0.21), "full-s2": result(0.9)}
    rows = agreement(matrix, expand(matrix), results, again)
    found = {(row["run"], row["column"]): row["agrees"] for row in rows}
    assert found["full-s1", "R@1"] == "equal" and found["no-sense-s1", "R@1"] == "within the interval"
    assert found["full-s2", "R@1"] == "differs" and found["no-sense-s1", "PPL"] == "differs"
    assert "| full-s1 | R@1 | 0.5 | 0.5 | equal |" in render_agreement(rows)


def test_a_report_of_all_tables():
    sections = [("## A\n\ntable", "a/table.png"), ("## B\n", ""), ("Every row a point.", "b.png")]
    assert render_report("Results", "Read this first.\n", sections) == (
        "# Results\n\nRead this first.\n\n## A\n\ntable\n\n![The table above as a figure](a/table.png)\n\n## B\n\n"
        "Every row a point.\n\n![Every row a point.](b.png)\n"
    )


def test_an_evaluation_of_fewer_items_than_now_is_of_an_earlier_recipe():
    """What a recipe no longer names has its default; vectors, which it leaves to the model, may be any."""
    run = Run("a", {}, "adapt", {}, "evaluate", {"target": "id"}, True)
    config = {"target": "id", "max_items": None, "pooling": "mixture"}
    result = {"recipe": {}, "evaluation": {"config": config}}
    assert of_an_earlier_recipe([run], {"a": result}) == []
    result["evaluation"]["config"] = config | {"max_items": 100}
    assert of_an_earlier_recipe([run], {"a": result}) == ["a"]


def test_yardsticks_of_random_weights_are_of_the_same_vectors(tmp_path):
    run = Run("a", {}, "adapt", {}, "evaluate", {"target": "id"}, True)
    flores = {"fingerprint": "x", "source": "en", "split": "dev"}
    base = {"flores": flores | {"random_context_recall": 0.1, "overlap_recall": 0.5}, "config": {"pooling": None}}
    write_json(tmp_path / "base.json", base)
    for state, shown in ((None, True), ("mixture", True), ("backbone", False)):
        evaluation = {"flores": dict(flores), "config": {"context_state": state}}
        write_json(
            result_file(tmp_path / "results", run), {"metrics": {"kind": "adaptation"}, "evaluation": evaluation}
        )
        found = load_results([run], tmp_path / "results", "base.json")["a"]["evaluation"]["flores"]
        assert ("random_context_recall" in found) == shown and found["overlap_recall"] == 0.5
