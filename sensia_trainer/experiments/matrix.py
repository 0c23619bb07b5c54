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
leave_out: ["no-sense-s2"]          # runs of that product that are not wanted, by name or pattern; optional
average: seed                       # shown as mean [95 % interval]; optional
columns:
  - {label: PPL, metric: metrics.after.target_perplexity, digits: 2}
  - {label: XCOPA, task: xcopa, digits: 3}
paper: {source: Table 6, values: {full: {PPL: 10.58}}}
claims:                             # what the table is asked; the answer is read off the intervals
  - {text: Without the sense loss perplexity rises, column: PPL, better: full, than: no-sense, lower: true}
dynamics: "full-*"                  # the figure of how these runs went (Figure 2), a line for each; optional
yardsticks: yardsticks/id.json      # of runs without: what tokens and random weights find; optional
frontier:                           # figures of what is gained against what it costs, every row a point; optional
  - {cost: PPL, gain: XCOPA}        # with `within: variant` a frontier for each variant
curves:                             # figures of a column over another, a line for all rows alike but for this axis
  - {axis: variant, x: pairs, y: XCOPA}
```

A value of an axis may hold, besides fields of the recipe: `recipe` and `script` (another kind of run), `evaluation`
(fields of the evaluation), and `train: false` (evaluate a finished model, named by the evaluation's `model`).

`script` and `evaluation_script` name commands of `sensia` (`adapt`, `pretrain`, `evaluate`, `analyze`), also by the
file in `examples/`. Any other file is code of the matrix's author that the matrix makes run, and wants
`--allow_scripts`.
"""

import difflib
import fnmatch
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from ..config import PRESETS, SensiaConfig
from ..evaluation.results import is_whole
from ..training.runs import METRICS_FILE, decides, defaults_of
from ..training.settings import (
    AdaptationData,
    InductionConfig,
    InductionData,
    PretrainingArguments,
    PretrainingData,
    TrainedParts,
)
from ..utils.arguments import hints_of, typed
from ..utils.errors import UsageError, did_you_mean
from ..utils.files import fingerprint, plain, portable, read_json, write_json, write_text
from ..utils.launching import EXIT_INTERRUPTED, EXIT_PREEMPTED
from ..utils.recipes import beside, expand_variables, find_model, find_recipe, merge_layers, read_layers, read_recipe
from ..vocabulary.settings import VocabularySettings


LEDGER_FILE = "ledger.jsonl"
LOCK_FILE = ".matrix.lock"
RESERVED = ("recipe", "script", "evaluation", "train")
GROUPS = {
    "adapt": (SensiaConfig, AdaptationData, VocabularySettings, TrainedParts),
    "pretrain": (PretrainingData, PretrainingArguments),
    "induce": (InductionData, InductionConfig),
}
TRAINING, EVALUATION = tuple(GROUPS), ("evaluate", "analyze")
SAID = ("text_licence",)  # fields that tell of the data and no run from another, left out of what names a run
TOLD = (*SAID, "language", "licence", "num_proc", "target_language_name")  # those of which the same is true
Launch = Callable[[list[str]], int]


@dataclass
class Matrix:
    """A matrix recipe; see the module's example for its fields."""

    title: str
    axes: dict
    columns: list
    recipe: str = ""
    script: str = "adapt"
    caption: str = ""
    fields: dict = field(default_factory=dict)
    evaluation: str = ""
    evaluation_script: str = "evaluate"
    evaluation_fields: dict = field(default_factory=dict)
    leave_out: list[str] = field(default_factory=list)
    average: str = ""
    paper: dict = field(default_factory=dict)
    claims: list = field(default_factory=list)
    frontier: list = field(default_factory=list)
    curves: list = field(default_factory=list)
    dynamics: str = ""
    yardsticks: str = ""
    folder: str = "."

    def __post_init__(self):
        hints = hints_of([type(self)])
        for name in hints:
            setattr(self, name, typed(name, getattr(self, name), hints[name]))
        if not self.axes or not all(isinstance(values, dict) and values for values in self.axes.values()):
            raise ValueError(f"`axes` must map each axis to its named values, got {self.axes!r}.")
        if self.average and self.average not in self.axes:
            raise ValueError(f"`average` is {self.average!r}, but the axes are {sorted(self.axes)}.")
        for name in ("columns", "claims", "frontier", "curves"):
            for entry in getattr(self, name):
                if not isinstance(entry, dict):
                    raise ValueError(f"`{name}` must be a list of mappings, got {entry!r} in it.")
        for column in self.columns:
            unknown = set(column) - {"label", "metric", "task", "language", "template", "scoring", "digits"}
            if "label" not in column or ("metric" in column) == ("task" in column) or unknown:
                raise ValueError(
                    f"A column needs `label` and either `metric` (a dotted path) or `task` (with `language`, "
                    f"`template` and `scoring`), and may have `digits`; got {column!r}."
                )
        labels = {column["label"] for column in self.columns}
        for claim in self.claims:
            needed = {"text", "column", "better", "than"}
            if not needed <= set(claim) <= needed | {"lower"} or claim["column"] not in labels:
                raise ValueError(
                    f"A claim needs `text`, `column` (one of {sorted(labels)}), `better` and `than` (rows), and may "
                    f"have `lower: true` where less is better; got {claim!r}."
                )
        for panel in self.frontier:
            named = {panel.get("cost"), panel.get("gain")} <= labels and set(panel) <= {"cost", "gain", "within"}
            if not named or panel.get("within", next(iter(self.axes))) not in self.axes:
                raise ValueError(
                    f"A panel of `frontier` needs `cost` and `gain`, each one of {sorted(labels)}, and may have "
                    f"`within`, one of {sorted(self.axes)}; got {panel!r}."
                )
        for panel in self.curves:
            known = set(panel) == {"axis", "x", "y"} and panel["axis"] in self.axes and panel["axis"] != self.average
            if not known or not {panel["x"], panel["y"]} <= labels:
                raise ValueError(
                    f"A panel of `curves` needs `axis` (one of {sorted({*self.axes} - {self.average})}), `x` and `y`, "
                    f"each one of {sorted(labels)}; got {panel!r}."
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
        script, evaluation_script = (
            f"examples/{name}.py" if name in (*TRAINING, *EVALUATION) else name
            for name in (self.script, self.evaluation_script)
        )
        recipe = {name: value for name, value in self.recipe.items() if name not in SAID}
        return fingerprint([script, recipe, evaluation_script, self.evaluation, self.train])[:16]


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
    """The runs of a matrix: the product of its axes, the first axis slowest, named by their values, less `leave_out`.

    Where two axes set one field, the later axis wins. `ValueError` for what is none.
    """
    read = {"": []}

    def base(name):
        if name not in read:
            read[name] = read_layers(Path(matrix.folder) / name)
        return read[name]

    def located(fields):
        return {name: beside(Path(matrix.folder), name, value) for name, value in fields.items()}

    runs = []
    for values in itertools.product(*(axis.items() for axis in matrix.axes.values())):
        labels = {axis: str(value) for axis, (value, _) in zip(matrix.axes, values)}
        for axis, (value, overrides) in zip(matrix.axes, values):
            if not re.fullmatch(r"[\w+=,@-][\w.+=,@-]*", str(value)):
                raise ValueError(
                    f"`axes` names a value of {axis!r} {str(value)!r}, which becomes part of the names of files: give "
                    "it letters, digits and any of _ . + = , @ - (no dot in front)."
                )
            if not isinstance(overrides, dict | None):
                raise ValueError(f"`axes`: {value!r} of {axis!r} must be a mapping of fields, got {overrides!r}.")
        merged, evaluation_fields = {}, dict(matrix.evaluation_fields)
        for _, overrides in values:
            merged |= overrides or {}
            evaluation_fields |= (overrides or {}).get("evaluation", {})
        special = {name: merged.pop(name) for name in RESERVED if name in merged}
        train = special.get("train", True)
        if train:  # what it has trained is what is evaluated
            evaluation_fields.pop("model", None)
        runs.append(
            Run(
                name="-".join(labels.values()),
                labels=labels,
                script=_command(special.get("script", matrix.script), TRAINING),
                recipe=merge_layers(
                    [*base(special.get("recipe", matrix.recipe)), located(matrix.fields), located(merged)], PRESETS
                )
                if train
                else {},
                evaluation_script=_command(matrix.evaluation_script, EVALUATION),
                evaluation=merge_layers([*base(matrix.evaluation), evaluation_fields]) if matrix.evaluation else {},
                train=train,
            )
        )
        if not train and not runs[-1].evaluation.get("model"):
            raise ValueError(f"Run {runs[-1].name!r} has `train: false`, so its `evaluation` must name a `model`.")
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"`axes` gives two runs the name {twice[0]!r}: rename a value of an axis.")
    left_out = select(runs, matrix.leave_out) if matrix.leave_out else []
    return [run for run in runs if run not in left_out]


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
        for line in path.read_text(encoding="utf-8").split("\n"):
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
    """Whether this very run, with these recipes or some that differ in nothing that decides, has left its result."""
    record, file = ledger.get(run.name, {}), result_file(results_dir, run)
    if record.get("status") != "finished" or not file.is_file():
        return False
    if record.get("fingerprint") == run.fingerprint:
        return True
    then = read_json(file).get("recipe", {})
    another = differing(run.recipe, then, run.script)
    return record.get("fingerprint") == replace(run, recipe=then).fingerprint and not another


def differing(now: dict, then: dict, script: str = "adapt") -> list[str]:
    """The fields of two recipes of a command that decide something and differ; one that a recipe leaves out has its
    default, or its method's."""
    defaults = plain({name: value for group in GROUPS.get(script, ()) for name, value in defaults_of(group).items()})
    now, then = (merge_layers([defaults, recipe], PRESETS) for recipe in (now, then))
    told = {*TOLD} | (idle_fields(now) & idle_fields(then))
    return sorted(name for name in {*now, *then} - told if decides(name) and now.get(name) != then.get(name))


def idle_fields(recipe: dict) -> set[str]:
    """The fields of a recipe, with its defaults, that decide nothing since what they set has no weight: a control's
    temperatures do not tell it from another's."""
    constant = [recipe.get(name) for name in ("w_sense", "w_context", "w_lm")]
    idle = {"align_weights", "joint_weights", "polish_weights"} if None not in constant else set()
    for weight, name in zip(constant, ("tau_sense", "tau_context")):
        idle |= {name, f"{name}_end"} if weight == 0 else set()
    return idle | ({"hard_negative_weight", "noisy_pair_exponent"} if constant[:2] == [0, 0] else set())


def launch_with(launcher: str) -> Launch:
    """
    A function that runs a command and returns its exit code. Training starts with the arguments of `launcher`
    (`accelerate launch --config_file …`, or those arguments alone).

    Ctrl-C and SIGTERM reach the command, which saves and ends; its code then tells.
    """
    arguments = shlex.split(launcher)
    arguments = arguments[2:] if arguments[:2] == ["accelerate", "launch"] else arguments

    def launch(command):
        name, *rest = command
        if name in TRAINING or name in EVALUATION:
            command = [sys.executable, "-m", "sensia_trainer", name, *rest, *(arguments if name in TRAINING else [])]
        else:
            command = ["accelerate", "launch", *arguments, *command]
        process = subprocess.Popen(command)
        forward = {signal.SIGINT: lambda *_: None, signal.SIGTERM: lambda *_: process.terminate()}
        previous = {number: signal.signal(number, handler) for number, handler in forward.items()}
        try:
            return process.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    return launch


def check_runs(runs: list[Run], fields_of: Callable[[str], dict], allow_scripts: bool = False) -> None:
    """
    Refuses, before any of them starts, runs with fields that their command does not have, or of a wrong type.

    Args:
        runs (`list[Run]`): The runs.
        fields_of (`Callable[[str], dict]`): The types of a command's fields, by name.
        allow_scripts (`bool`, *optional*, defaults to `False`): Whether a matrix may name scripts of its own.

    Raises:
        `ValueError`: names the run and the field, or the script.
    """
    for run in runs:
        for command, recipe in ((run.script, run.recipe), (run.evaluation_script, run.evaluation)):
            if command not in (*TRAINING, *EVALUATION):
                if not allow_scripts:
                    raise ValueError(
                        f"Run {run.name!r} is of the script {command!r}, which is not a command of `sensia` but code "
                        "of the matrix's author. Read it, and give `--allow_scripts` to run it."
                    )
                continue
            hints = fields_of(command)
            for name, value in recipe.items():
                if name not in hints:
                    raise UsageError(f"Run {run.name!r} has an unknown field {name!r}.{did_you_mean(name, hints)}")
                try:
                    for item in value if isinstance(value, list) else [value]:
                        expand_variables(item)
                    typed(name, value, hints[name])
                except UsageError as error:
                    raise UsageError(f"Run {run.name!r}: {error}") from None


def execute(runs: list[Run], results_dir, runs_dir, launch: Launch, matrix_file="MATRIX.yaml") -> dict:
    """Runs what has no finished result yet, one after the other, and goes on after a failure.

    Each run trains in `runs_dir/NAME` (an interrupted one goes on from its checkpoint there), is evaluated, and leaves
    `results_dir/NAME.json`. What happened to it is recorded in `results_dir/ledger.jsonl`. Its metrics name the
    command that makes this run of `matrix_file`. Several processes may share the work: each run is one's alone.

    Returns:
        `dict`: `finished`, `skipped` (finished before), `busy` (another process is at it) and `failed` run names.

    Raises:
        `KeyboardInterrupt`, `SystemExit`: where the running command was interrupted or told to end, and has saved.
    """
    outcome = {"finished": [], "skipped": [], "busy": [], "failed": []}
    for run in runs:
        folder = Path(runs_dir) / run.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / LOCK_FILE, timeout=0):
                outcome[_execute(run, results_dir, folder, launch, matrix_file)].append(run.name)
        except Timeout:
            outcome["busy"].append(run.name)
    return outcome


def is_up_to_date(run, results_dir, runs_dir, ledger) -> bool:
    """Whether a run is finished, by its recipe and by the models that it evaluates, where these are at hand."""
    evaluated = _evaluated(run, Path(runs_dir) / run.name)
    is_same = not evaluated or ledger.get(run.name, {}).get("evaluated", "") == evaluated
    return is_finished(run, results_dir, ledger) and is_same


def _execute(run, results_dir, folder, launch, matrix_file) -> str:
    ledger, evaluated = read_ledger(results_dir), _evaluated(run, folder)
    if is_up_to_date(run, results_dir, folder.parent, ledger):
        return "skipped"
    if ledger.get(run.name, {}).get("evaluated", "") != evaluated:
        (folder / "evaluation.json").unlink(missing_ok=True)
    record = {"run": run.name, "fingerprint": run.fingerprint} | ({"evaluated": evaluated} if evaluated else {})
    write_ledger(
        results_dir, record | {"status": "started", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    )
    started = time.monotonic()
    code, failed = _run_steps(run, folder, launch)
    record |= {"seconds": round(time.monotonic() - started, 1)}
    if code in (EXIT_INTERRUPTED, EXIT_PREEMPTED, -signal.SIGINT, -signal.SIGTERM):
        write_ledger(results_dir, record | {"status": "interrupted"})
        raise KeyboardInterrupt if code in (EXIT_INTERRUPTED, -signal.SIGINT) else SystemExit(EXIT_PREEMPTED)
    if failed:
        write_ledger(results_dir, record | {"status": "failed", "message": portable(failed)})
        return "failed"
    if run.train:
        metrics = read_json(folder / METRICS_FILE)
        command = f"sensia reproduce {matrix_file} --results_dir results --runs_dir runs --only {run.name}"
        write_json(folder / METRICS_FILE, metrics | {"command": command})
    result = {"run": run.name, "labels": run.labels, "fingerprint": run.fingerprint, "recipe": run.recipe}
    for name, file in (("metrics", METRICS_FILE), ("evaluation", "evaluation.json")):
        if (folder / file).is_file():
            result[name] = read_json(folder / file)
    write_json(result_file(results_dir, run), portable(result) | {"seconds": record["seconds"]})
    write_ledger(results_dir, record | {"status": "finished"})
    return "finished"


def _evaluated(run, folder) -> str:
    """The metrics, as a hash, of the models that a run without training evaluates, in folders relative to its own or
    to the working directory, or of the package; empty where none of them is here."""
    names = () if run.train else (run.evaluation.get(side) for side in ("model", "control"))
    names = [expand_variables(name) for name in names if name]
    folders = [[folder / name, Path(find_model(name))] for name in names]
    files = (next((one for one in found if one.is_dir()), folder) / METRICS_FILE for found in folders)
    found = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    return fingerprint(found)[:16] if found else ""


def _run_steps(run, folder, launch) -> tuple[int, str | None]:
    """Training and evaluation of one run: the last exit code; what went wrong, or None."""
    steps = []
    if run.train:
        # The complete recipe, not fields on a command line: lists and empty values keep their types, and it is kept.
        recipe = folder / "recipe.yaml"
        shared = ["--vocabulary_cache", str(folder.parent / "vocabularies")]
        shared = shared if run.recipe.get("vocabulary_size") else []
        command = [run.script, str(recipe), *shared, "--output_dir", str(folder)]
        steps.append((recipe, run.recipe, command, folder / METRICS_FILE, _is_json))
        _set_aside_another(recipe, run.recipe, run.script)
    if run.evaluation:
        recipe, output = folder / "evaluation.yaml", folder / "evaluation.json"
        model = ["--model", str(folder)] if run.train else []
        command = [run.evaluation_script, str(recipe), *model, "--output", str(output)]
        steps.append((recipe, run.evaluation, command, output, _is_json if command[0] == "analyze" else is_whole))
    changed = False
    for recipe, content, command, output, is_there in steps:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        # A step that ended before the run was interrupted is not repeated: its output belongs to the recipe beside it.
        if not changed and is_there(output) and recipe.is_file() and recipe.read_text(encoding="utf-8") == text:
            continue
        changed = True
        output.unlink(missing_ok=True)
        if not (recipe.is_file() and recipe.read_text(encoding="utf-8") == text):  # an evaluation looks whether it is
            write_text(recipe, text)
        code = launch(command)
        if code != 0:
            return code, f"{shlex.join(command)} ended with code {code}"
        if not is_there(output):
            return code, f"{shlex.join(command)} left no {output.name} that is whole"
    return 0, None


def _set_aside_another(recipe: Path, wanted: dict, script: str) -> None:
    """Moves what another recipe has trained in a run's folder into `superseded-N` beside it, so that the run that is
    wanted now begins afresh; one that differs in what decides nothing goes on."""
    try:
        there = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return
    if not differing(wanted, there, script):
        return
    aside = recipe.parent / f"superseded-{1 + len(list(recipe.parent.glob('superseded-*')))}"
    aside.mkdir()
    for path in recipe.parent.iterdir():
        if path.name != LOCK_FILE and not path.name.startswith("superseded-"):
            path.rename(aside / path.name)


def _is_json(path) -> bool:
    try:
        return bool(read_json(path))
    except ValueError:
        return False


def _command(script: str, known: tuple[str, ...]) -> str:
    """The command of `sensia` that a matrix names, also as `examples/NAME.py`; any other script as it is."""
    name = Path(script).stem if script.startswith("examples/") else script
    if name not in known and "." not in script and "/" not in script:
        raise ValueError(f"There is no command {script!r} that a matrix may run.{did_you_mean(script, known)}")
    return name if name in known else script
