"""Run experiment matrices and render their tables beside the paper's.

    sensia reproduce table6 --results_dir results --runs_dir runs --list
    sensia reproduce table6 --results_dir results --runs_dir runs
    sensia reproduce micro/id --results_dir results --runs_dir runs --only "sensia-*"
    sensia reproduce table6 --results_dir results --render_only
    sensia reproduce sensia_trainer/recipes/micro/*.yaml --results_dir results --render_only \\
        --report results/RESULTS.md --preface sensia_trainer/recipes/micro/preface.md --again results/again

What has a finished result under the same recipe is not run again; a run that was interrupted goes on from its last
checkpoint. Results, ledger and report are in `RESULTS_DIR/NAME OF THE MATRIX`, weights in `RUNS_DIR/...`. Several GPUs
are the launcher's matter: `--launcher "--config_file one_node_ddp"`.
"""

import os
import sys
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

from ..utils.arguments import Parser, hints_of
from ..utils.files import check_writable, portable, write_text
from ..utils.recipes import find_recipe


DYNAMICS_NOTE = (
    "How the runs went (Figure 2), on what training looks at. Dashed: overlap of tokens, without a model; dotted: "
    "random weights; dash-dotted: the sentences where overlap fails."
)
CURVES_NOTE = (
    "Columns of the table along one of its axes, with intervals. Dashed: what overlap of tokens finds, without a "
    "model; dotted: random weights."
)
FRONTIER_NOTE = (
    "Every row of the table as a point; diamonds and line: what no other row passes. At the cost of the same row, a "
    "dash is what overlap of tokens finds without a model, and a cross what random weights find. Numbers that would "
    "lie upon others are left out."
)


def parser():
    parser = Parser(prog="sensia reproduce", description=__doc__)
    parser.add_argument("matrices", nargs="+", help="matrix recipes")
    parser.add_argument("--results_dir", default="results", help="folder of results, ledgers and reports")
    parser.add_argument("--runs_dir", default="runs", help="folder of weights and checkpoints")
    parser.add_argument("--only", nargs="*", default=[], help="names or patterns of runs; all by default")
    parser.add_argument("--list", action="store_true", help="show the runs and what is finished, run nothing")
    parser.add_argument("--render_only", action="store_true", help="redraw the tables from the results that are there")
    parser.add_argument("--report", help="Markdown file of all tables together")
    parser.add_argument("--preface", help="Markdown file to begin the report with")
    parser.add_argument("--again", help="results of runs that were made a second time, to compare with")
    parser.add_argument("--launcher", default="", help="arguments of `accelerate launch` for training")
    parser.add_argument("--allow_scripts", action="store_true", help="run scripts that a matrix names: they are code")
    return parser


def fields_of(command) -> dict:
    """The types of the fields of a command that takes a recipe, by name."""
    return hints_of(import_module(f".{command}", __package__).parser().dataclass_types)


def is_analysis(result) -> bool:
    """Whether the evaluation of a run is what `sensia analyze` left."""
    return result.get("evaluation", {}).get("kind") == "analysis"


def main(argv, launch=None):
    arguments = parser().parse_args(argv)

    from ..analysis.drawings import save_figures
    from ..analysis.summary import render_sections
    from ..experiments.curves import draw_curves
    from ..experiments.frontier import draw_frontier
    from ..experiments.matrix import (
        check_runs,
        execute,
        expand,
        is_up_to_date,
        launch_with,
        load_matrix,
        read_ledger,
        select,
    )
    from ..experiments.tables import (
        agreement,
        check_claims,
        draw_table,
        judge,
        load_results,
        render_agreement,
        render_claims,
        render_report,
        render_table,
        render_verdicts,
        table_rows,
    )
    from ..training.by_pair import draw_dynamics_of_runs

    names = {find_recipe(name): name for name in arguments.matrices}
    stems = [path.stem for path in names]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ValueError(
            f"`matrices` holds two of the name {twice[0]!r}, whose results would be written over each other; run them "
            "one at a time, with a `--results_dir` for each."
        )
    matrices = {path: load_matrix(path) for path in names}
    expanded = {path: expand(matrix) for path, matrix in matrices.items()}
    chosen = select([run for runs in expanded.values() for run in runs], arguments.only)
    if not (arguments.list or arguments.render_only):
        check_runs(chosen, fields_of, arguments.allow_scripts)
    # What would fail after the last run is found before the first.
    for path, matrix in matrices.items():
        check_claims(matrix, expanded[path])
    preface = Path(arguments.preface).read_text(encoding="utf-8") if arguments.preface else ""
    if arguments.again and not Path(arguments.again).is_dir():
        raise ValueError(f"`--again` is {arguments.again!r}, which is not a folder.")
    if arguments.report:
        check_writable(arguments.report)
    failed, sections, verdicts = [], [], {}
    for path, matrix in matrices.items():
        runs = expanded[path]
        wanted = [run for run in runs if run in chosen]
        results_dir, runs_dir = (Path(folder) / path.stem for folder in (arguments.results_dir, arguments.runs_dir))
        if arguments.list:
            ledger = read_ledger(results_dir)
            for run in wanted:
                state = "finished" if is_up_to_date(run, results_dir, runs_dir, ledger) else "to run"
                print(f"{path.stem}/{run.name}: {state}")
            continue
        if not arguments.render_only:
            launch = launch or launch_with(arguments.launcher)
            outcome = execute(wanted, results_dir, runs_dir, launch, portable(names[path]))
            failed += [f"{path.stem}/{name}" for name in outcome["failed"]]
            if outcome["busy"]:
                print(f"Another process is at {', '.join(outcome['busy'])}; the tables are without them.")
        results = load_results(runs, results_dir, matrix.yardsticks)
        text = "\n".join([render_table(matrix, runs, results), render_claims(matrix, runs, results)])
        if arguments.again:
            repeated = agreement(matrix, runs, results, load_results(runs, Path(arguments.again) / path.stem))
            text += f"\nThe same again, from scratch:\n\n{render_agreement(repeated)}" if repeated else ""
        rows = table_rows(matrix, runs, results)
        verdicts[path.stem] = [judge(rows, claim) for claim in matrix.claims]
        figure = draw_table(matrix, runs, results, results_dir / "table")
        results_dir.mkdir(parents=True, exist_ok=True)
        parts = [(text, results_dir / "table.png" if figure else None)]
        if draw_frontier(matrix, runs, results, results_dir / "frontier"):
            parts.append((FRONTIER_NOTE, results_dir / "frontier.png"))
        if draw_curves(matrix, runs, results, results_dir / "curves"):
            parts.append((CURVES_NOTE, results_dir / "curves.png"))
        trained = {name: one["metrics"] for name, one in results.items() if "metrics" in one}
        went = {name: metrics for name, metrics in trained.items() if fnmatchcase(name, matrix.dynamics)}
        if draw_dynamics_of_runs(went, results_dir / "dynamics"):
            parts.append((DYNAMICS_NOTE, results_dir / "dynamics.png"))
        beside = [(text, figure.name if figure else "") for text, figure in parts]
        if analyses := [result["evaluation"] for result in results.values() if is_analysis(result)]:
            save_figures(analyses, results_dir / "figures")
            beside.append((render_sections(analyses, results_dir), ""))
        write_text(results_dir / "README.md", render_report(matrix.title, "", beside))
        sections += [(f"## {matrix.title}\n\n{text}", parts[0][1]), *parts[1:]]
        print(f"{results_dir / 'README.md'}: {len(results)} of {len(runs)} runs")
    if arguments.report:
        report = Path(arguments.report)
        summary = render_verdicts(verdicts)
        preface += f"\n## What holds where\n\n{summary}" if summary else ""
        relative = [(text, os.path.relpath(figure, report.parent) if figure else "") for text, figure in sections]
        write_text(report, render_report("Results", preface, relative))
        print(report)
    if failed:
        sys.exit(f"These runs failed; their messages are in the ledgers: {', '.join(failed)}")
