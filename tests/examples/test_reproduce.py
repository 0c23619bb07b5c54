import importlib
import json
from pathlib import Path

import pytest
import yaml


MAIN = importlib.import_module("sensia_trainer.commands.reproduce").main


@pytest.fixture
def matrices(tmp_path):
    """Two matrices of two runs each, without evaluation."""
    (tmp_path / "adapt.yaml").write_text("max_steps: 3\n")
    for name in ("first", "second"):
        matrix = {
            "title": f"The {name} matrix",
            "recipe": "adapt.yaml",
            "axes": {"variant": {"full": {}, f"only-{name}": {"w_sense": 0}}},
            "columns": [{"label": "PPL", "metric": "metrics.after.target_perplexity", "digits": 1}],
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(matrix, sort_keys=False))
    return [str(tmp_path / "first.yaml"), str(tmp_path / "second.yaml")]


@pytest.fixture
def folders(tmp_path):
    return ["--results_dir", str(tmp_path / "results"), "--runs_dir", str(tmp_path / "runs")]


def train(command):
    Path(command[-1], "metrics.json").write_text(json.dumps({"after": {"target_perplexity": 12.5}}))
    return 0


def test_a_subset_then_the_rest_then_nothing(matrices, folders, tmp_path, capsys):
    seen = []

    def launch(command):
        seen.append(Path(command[-1]).name)
        return train(command)

    MAIN([*matrices, *folders, "--only", "only-*"], launch)
    assert seen == ["only-first", "only-second"]
    MAIN([*matrices, *folders, "--list"])
    listed = capsys.readouterr().out
    assert "first/full: to run" in listed and "second/only-second: finished" in listed
    MAIN([*matrices, *folders], launch)
    assert seen[2:] == ["full", "full"]
    MAIN([*matrices, *folders], launch)
    assert len(seen) == 4
    report = (tmp_path / "results" / "first" / "README.md").read_text(encoding="utf-8")
    assert "# The first matrix" in report and "| full | 1 | 12.5 |" in report
    assert (tmp_path / "results" / "first" / "table.png").is_file()


def test_tables_are_rendered_from_the_results_alone(matrices, folders, tmp_path):
    MAIN([*matrices, *folders], train)
    readme = tmp_path / "results" / "second" / "README.md"
    before = readme.read_text(encoding="utf-8")
    readme.unlink()
    MAIN([*matrices, "--results_dir", str(tmp_path / "results"), "--render_only"])
    assert readme.read_text(encoding="utf-8") == before


def test_one_report_of_all_matrices_and_of_runs_made_twice(matrices, folders, tmp_path, capsys):
    MAIN([*matrices, *folders], train)
    again = ["--results_dir", str(tmp_path / "again"), "--runs_dir", str(tmp_path / "elsewhere")]
    MAIN([*matrices, *again, "--only", "full"], train)
    (tmp_path / "preface.md").write_text("Read this first.\n")
    report = tmp_path / "RESULTS.md"
    files = ["--report", str(report), "--preface", str(tmp_path / "preface.md"), "--again", str(tmp_path / "again")]
    MAIN([*matrices, "--results_dir", str(tmp_path / "results"), "--render_only", *files])
    text = report.read_text(encoding="utf-8")
    assert text.startswith("# Results\n\nRead this first.\n\n## The first matrix") and "## The second matrix" in text
    assert "(results/first/table.png)" in text and "| full | PPL | 12.5 | 12.5 | equal |" in text
    assert "only-first | PPL | 12.5 | 12.5" not in text


def test_runs_that_were_looked_at_in_training_share_a_figure(matrices, folders, tmp_path):
    content = yaml.safe_load(Path(matrices[0]).read_text(encoding="utf-8"))
    Path(matrices[0]).write_text(yaml.safe_dump(content | {"dynamics": "full"}, sort_keys=False))
    history = [{"step": step, "eval_sense_recall_source_to_target": step / 10} for step in (1, 2)]

    def launch(command):
        measured = {"languages": {"source": "en", "target": "id"}, "before": {}, "after": {}, "history": history}
        Path(command[-1], "metrics.json").write_text(json.dumps(measured))
        return 0

    MAIN([matrices[0], *folders], launch)
    report = (tmp_path / "results" / "first" / "README.md").read_text(encoding="utf-8")
    assert "(dynamics.png)" in report and (tmp_path / "results" / "first" / "dynamics.png").is_file()
    drawn = (tmp_path / "results" / "first" / "dynamics.svg").read_text(encoding="utf-8")
    assert "Indonesian -->" in drawn and "recall@1, English to target, sense vectors -->" in drawn
    files = [str(tmp_path / "results" / "first" / f"{run}.json") for run in ("full", "only-first")]
    evaluate = importlib.import_module("sensia_trainer.commands.evaluate").main
    evaluate(["dynamics", *files, "--output", str(tmp_path / "again.png")])
    drawn = (tmp_path / "again.svg").read_text(encoding="utf-8")
    assert all(f"{file} -->" in drawn for file in files)  # one language: told apart by their names
    (tmp_path / "metrics.json").write_text(json.dumps({"history": []}))
    with pytest.raises(ValueError, match="`metrics` are .* none has evaluations during training"):
        evaluate(["dynamics", str(tmp_path / "metrics.json"), "--output", str(tmp_path / "none.png")])


def test_a_figure_of_all_runs_is_one_of_those_that_were_trained(tmp_path):
    axes = {"variant": {"trained": {}, "base": {"train": False, "evaluation": {"model": "base"}}}}
    matrix = {"title": "Some", "recipe": "adapt.yaml", "evaluation": "evaluate.yaml", "axes": axes, "dynamics": "*"}
    columns = [{"label": "PPL", "metric": "metrics.after.target_perplexity"}]
    for name, content in {
        "some": matrix | {"columns": columns},
        "adapt": {"seed": 1},
        "evaluate": {"seed": 1},
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    metrics = {
        "languages": {"source": "en", "target": "id"},
        "history": [{"step": 1, "eval_sense_entropy_target": 1.0}],
    }
    results = {"trained": {"metrics": metrics, "evaluation": {}}, "base": {"evaluation": {}}}
    (tmp_path / "some").mkdir()
    for name, result in results.items():
        (tmp_path / "some" / f"{name}.json").write_text(json.dumps(result))
    MAIN([str(tmp_path / "some.yaml"), "--results_dir", str(tmp_path), "--render_only"])
    assert "Indonesian -->" in (tmp_path / "some" / "dynamics.svg").read_text(encoding="utf-8")


def test_failed_runs_end_with_an_error_after_the_others(matrices, folders):
    def launch(command):
        return 1 if Path(command[-1]).name == "only-first" else train(command)

    with pytest.raises(SystemExit, match="first/only-first"):
        MAIN([*matrices, *folders], launch)


def test_unknown_runs_are_refused(matrices, folders):
    with pytest.raises(ValueError, match="No run is called 'ful'; nearest: \\['full'"):
        MAIN([*matrices, *folders, "--only", "ful"])
