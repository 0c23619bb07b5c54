"""Experiments as matrices of runs: a recipe expands into runs, and a ledger makes them resumable.

`tables.py` renders the results.

A matrix recipe names the recipe of one run and what varies, field by field:

```yaml
title: Loss ablations
recipe: sensia_id.yaml              # of examples/adapt.py, beside this file
fields: {max_steps: 600}            # for every run
evaluation: evaluate.yaml           # of examples/evaluate.py (or `evaluation_script`), for every model; optional
evaluation_fields: {target: id}
axes:                               # the runs are the product of the axes
  variant: {full: {}, no-sense: {w_sense: 0}}
  seed: {s1: {seed: 1}, s2: {seed: 2}}
average: seed                       # shown as mean [95 % interval]; optional
columns:
  - {label: PPL, metric: metrics.after.target_perplexity, digits: 2}
  - {label: XCOPA, task: xcopa, digits: 3}
paper: {source: Table 6, values: {full: {PPL: 10.58}}}
claims:                             # what the table is asked; the answer is read off the intervals
  - {text: Without the sense loss perplexity rises, column: PPL, better: full, than: no-sense, lower: true}
```

A value of an axis may hold, besides fields of the recipe: `recipe` and `script` (another kind of run), `evaluation`
(fields of the evaluation), and `train: false` (evaluate a finished model, named by the evaluation's `model`).
"""

import difflib
import fnmatch
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from ..evaluation.results import is_whole
from ..training.runs import METRICS_FILE
from ..utils.files import fingerprint, portable, write_json
from ..utils.recipes import find_recipe, read_recipe


LEDGER_FILE = "ledger.jsonl"
RESERVED = ("recipe", "script", "evaluation", "train")
Launch = Callable[[list[str]], int]


@dataclass
class Matrix:
    """A matrix recipe; see the module's example for its fields."""

    title: str
    axes: dict
    columns: list
    recipe: str = ""
    script: str = "examples/adapt.py"
    caption: str = ""
    fields: dict = field(default_factory=dict)
    evaluation: str = ""
    evaluation_script: str = "examples/evaluate.py"
    evaluation_fields: dict = field(default_factory=dict)
    average: str = ""
    paper: dict = field(default_factory=dict)
    claims: list = field(default_factory=list)
    folder: str = "."

    def __post_init__(self):
        if not self.axes or not all(isinstance(values, dict) and values for values in self.axes.values()):
            raise ValueError(f"`axes` must map each axis to its named values, got {self.axes!r}.")
        if self.average and self.average not in self.axes:
            raise ValueError(f"`average` is {self.average!r}, but the axes are {sorted(self.axes)}.")
        for column in self.columns:
            unknown = set(column) - {"label", "metric", "task", "template", "scoring", "digits"}
            if "label" not in column or ("metric" in column) == ("task" in column) or unknown:
                raise ValueError(
                    f"A column needs `label` and either `metric` (a dotted path) or `task` (with `template` and "
                    f"`scoring`), and may have `digits`; got {column!r}."
                )
        labels = {column["label"] for column in self.columns}
        for claim in self.claims:
            needed = {"text", "column", "better", "than"}
            if not needed <= set(claim) <= needed | {"lower"} or claim["column"] not in labels:
                raise ValueError(
                    f"A claim needs `text`, `column` (one of {sorted(labels)}), `better` and `than` (rows), and may "
                    f"have `lower: true` where less is better; got {claim!r}."
                )


@dataclass(frozen=True)
class Run:
    """One run of a matrix: its name, its value on every axis, and the complete recipes it is made of."""

    name: str
    labels: dict
    script: str
    recipe: dict
    evaluation_script: str
    evaluation: dict
    train: bool

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides what the run computes."""
        parts = [self.script, self.recipe, self.evaluation_script, self.evaluation, self.train]
        return fingerprint(parts)[:16]


def load_matrix(path) -> Matrix:
    """Reads a matrix recipe. `ValueError` for unknown or missing fields, with the nearest names."""
    path = find_recipe(path)
    content = read_recipe(path)
    known = [f.name for f in fields(Matrix) if f.name != "folder"]
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            raise ValueError(f"The matrix {str(path)!r} has an unknown field {name!r}; nearest: {near or known}.")
    missing = [name for name in ("title", "axes", "columns") if name not in content]
    if missing:
        raise ValueError(f"The matrix {str(path)!r} lacks {missing}.")
    return Matrix(**content, folder=str(Path(path).parent))


def expand(matrix: Matrix) -> list[Run]:
    """The runs of a matrix: the product of its axes, the first axis slowest, named by their values.

    Where two axes set one field, the later axis wins.
    """
    read = {"": {}}

    def base(name):
        if name not in read:
            read[name] = read_recipe(Path(matrix.folder) / name)
        return read[name]

    runs = []
    for values in itertools.product(*(axis.items() for axis in matrix.axes.values())):
        labels = {axis: str(value) for axis, (value, _) in zip(matrix.axes, values)}
        merged, evaluation_fields = {}, dict(matrix.evaluation_fields)
        for _, overrides in values:
            merged |= overrides or {}
            evaluation_fields |= (overrides or {}).get("evaluation", {})
        special = {name: merged.pop(name) for name in RESERVED if name in merged}
        train = special.get("train", True)
        runs.append(
            Run(
                name="-".join(labels.values()),
                labels=labels,
                script=special.get("script", matrix.script),
                recipe=base(special.get("recipe", matrix.recipe)) | matrix.fields | merged if train else {},
                evaluation_script=matrix.evaluation_script,
                evaluation=base(matrix.evaluation) | evaluation_fields if matrix.evaluation else {},
                train=train,
            )
        )
        if not train and not runs[-1].evaluation.get("model"):
            raise ValueError(f"Run {runs[-1].name!r} has `train: false`, so its `evaluation` must name a `model`.")
    return runs


def select(runs: list[Run], patterns: list[str]) -> list[Run]:
    """The runs whose name matches any of the patterns (`no-*`), all without patterns."""
    for pattern in patterns:
        if not any(fnmatch.fnmatch(run.name, pattern) for run in runs):
            names = [run.name for run in runs]
            near = difflib.get_close_matches(pattern, names, n=3)
            raise ValueError(f"No run is called {pattern!r}; {f'nearest: {near}' if near else f'there are {names}'}.")
    return [run for run in runs if not patterns or any(fnmatch.fnmatch(run.name, p) for p in patterns)]


def read_ledger(folder) -> dict[str, dict]:
    """The last record of every run. A line that a crash cut short is ignored."""
    path, last = Path(folder) / LEDGER_FILE, {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            last[record["run"]] = record
    return last


def write_ledger(folder, record: dict) -> None:
    """Appends one record in a single write, so that several processes may share a ledger."""
    path = Path(folder) / LEDGER_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        cut = size and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, (("\n" if cut else "") + json.dumps(record, ensure_ascii=False) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def result_file(results_dir, run: Run) -> Path:
    return Path(results_dir) / f"{run.name}.json"


def is_finished(run: Run, results_dir, ledger: dict) -> bool:
    """Whether this very run, with these recipes, has left its result."""
    record = ledger.get(run.name, {})
    same = record.get("status") == "finished" and record.get("fingerprint") == run.fingerprint
    return same and result_file(results_dir, run).is_file()


def launch_with(launcher: str) -> Launch:
    """A function that runs a command behind `launcher` (`accelerate launch --config_file …`) and returns its code."""

    def launch(command):
        prefix = shlex.split(launcher) if command[0].endswith(".py") else []
        return subprocess.run([*prefix, *command]).returncode

    return launch


def execute(runs: list[Run], results_dir, runs_dir, launch: Launch, matrix_file="MATRIX.yaml") -> dict:
    """Runs what has no finished result yet, one after the other, and goes on after a failure.

    Each run trains in `runs_dir/NAME` (an interrupted one goes on from its checkpoint there), is evaluated, and leaves
    `results_dir/NAME.json`. What happened to it is recorded in `results_dir/ledger.jsonl`. Its metrics name the
    command that makes this run of `matrix_file`.

    Returns:
        `dict`: `finished`, `skipped` and `failed` run names.
    """
    outcome = {"finished": [], "skipped": [], "failed": []}
    for run in runs:
        if is_finished(run, results_dir, read_ledger(results_dir)):
            outcome["skipped"].append(run.name)
            continue
        record = {"run": run.name, "fingerprint": run.fingerprint}
        write_ledger(
            results_dir, record | {"status": "started", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        )
        started = time.monotonic()
        folder = Path(runs_dir) / run.name
        folder.mkdir(parents=True, exist_ok=True)
        failed = _run_steps(run, folder, launch)
        seconds = round(time.monotonic() - started, 1)
        if failed is None:
            if run.train:
                metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
                command = f"python examples/reproduce.py {matrix_file} --results_dir results --runs_dir runs"
                write_json(folder / METRICS_FILE, metrics | {"command": f"{command} --only {run.name}"})
            result = {"run": run.name, "labels": run.labels, "fingerprint": run.fingerprint, "recipe": run.recipe}
            for name, file in (("metrics", METRICS_FILE), ("evaluation", "evaluation.json")):
                if (folder / file).is_file():
                    result[name] = json.loads((folder / file).read_text(encoding="utf-8"))
            write_json(result_file(results_dir, run), portable(result) | {"seconds": seconds})
            write_ledger(results_dir, record | {"status": "finished", "seconds": seconds})
            outcome["finished"].append(run.name)
        else:
            write_ledger(results_dir, record | {"status": "failed", "seconds": seconds, "message": portable(failed)})
            outcome["failed"].append(run.name)
    return outcome


def _run_steps(run, folder, launch) -> str | None:
    """Training and evaluation of one run; what went wrong, or None."""
    steps = []
    if run.train:
        # The complete recipe, not fields on a command line: lists and empty values keep their types, and it is kept.
        recipe = folder / "recipe.yaml"
        command = [run.script, str(recipe), "--output_dir", str(folder)]
        steps.append((recipe, run.recipe, command, folder / METRICS_FILE, Path.is_file))
    if run.evaluation:
        recipe, output = folder / "evaluation.yaml", folder / "evaluation.json"
        model = ["--model", str(folder)] if run.train else []
        command = [sys.executable, run.evaluation_script, str(recipe), *model, "--output", str(output)]
        steps.append((recipe, run.evaluation, command, output, is_whole))
    changed = False
    for recipe, content, command, output, is_there in steps:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        # A step that ended before the run was interrupted is not repeated: its output belongs to the recipe beside it.
        if not changed and is_there(output) and recipe.is_file() and recipe.read_text(encoding="utf-8") == text:
            continue
        changed = True
        output.unlink(missing_ok=True)
        recipe.write_text(text, encoding="utf-8")
        code = launch(command)
        if code != 0:
            return f"{shlex.join(command)} ended with code {code}"
        if not is_there(output):
            return f"{shlex.join(command)} left no {output.name} that is whole"
    return None


def load_results(runs: list[Run], results_dir) -> dict[str, dict]:
    """The results of the runs that have one."""
    files = {run.name: result_file(results_dir, run) for run in runs}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
