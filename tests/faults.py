"""Breaks runs in every way that was thought of, and says how they took it.

    python tests/faults.py --quick        # a sample, some seconds; also a test of the suite
    python tests/faults.py --full         # everything, by hand
    python tests/faults.py --full --only 'adapt.*tau'

- kills: a command dies (SIGKILL) or is told to end at each kind of moment, and is started again: its weights and its
  history must be those of a run that nobody stopped, bit for bit, and a third start must change nothing;
- damage: files of a checkpoint are removed, cut or changed in one bit, and the run goes on;
- inputs: everything in `fault_inputs.py`.

Each try is `clear` (the right result, or an error in one line that names the thing), `silent` (went on wrongly) or
`unclear` (a traceback, or a line that does not say what is wrong). Exit code 1 if anything is silent, or 2 % unclear.
"""

import argparse
import contextlib
import importlib
import io
import json
import logging
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

PATIENCE = 120  # seconds for one try
KILLED = {
    "adapt": "adapt adapt.yaml --output_dir",
    "words": "adapt adapt.yaml --vocabulary_size 8 --train lora --lora_r 2 --output_dir",
    "induce": "induce induce.yaml --output_dir",
    "pretrain": "pretrain pretrain.yaml --output_dir",
}
STEPS = "--max_steps 5 --save_steps 2 --save_total_limit 2"
# Where a run is stopped: function, which call of it, before or after it, and the signal.
CHECKPOINTING, FILES, RUNS = (
    f"sensia_trainer.training.{name}" for name in ("checkpointing", "checkpoint_files", "runs")
)
STOP = f"{CHECKPOINTING}:StopOnSignal.on_step_end"
MOMENTS = [
    (STOP, 1, "before", signal.SIGKILL),  # before the first checkpoint
    (STOP, 3, "before", signal.SIGKILL),  # between two
    (STOP, 3, "before", signal.SIGTERM),
    (STOP, 3, "before", signal.SIGINT),
    (STOP, 5, "before", signal.SIGTERM),  # in the last step
    (STOP, 5, "before", signal.SIGINT),
    (STOP, 5, "before", signal.SIGKILL),
    (f"{CHECKPOINTING}:ResumableTrainer._save_rng_state", 2, "before", signal.SIGKILL),  # while one is written
    (f"{CHECKPOINTING}:write_manifest", 2, "before", signal.SIGKILL),
    (f"{CHECKPOINTING}:write_manifest", 2, "after", signal.SIGKILL),
    (f"{FILES}:_replace", 1, "before", signal.SIGKILL),
    (f"{FILES}:_replace", 2, "after", signal.SIGKILL),
    (f"{FILES}:_replace", 3, "after", signal.SIGKILL),  # after the last
    (f"{CHECKPOINTING}:rotate_checkpoints", 3, "before", signal.SIGKILL),
    (f"{CHECKPOINTING}:StopOnSignal.on_save", 3, "before", signal.SIGKILL),
    (f"{CHECKPOINTING}:ResumableTrainer.train", 1, "after", signal.SIGKILL),
    (f"{CHECKPOINTING}:ResumableTrainer.train", 1, "after", signal.SIGINT),
    (f"{CHECKPOINTING}:ResumableTrainer._save", 4, "before", signal.SIGKILL),  # the model itself
    (f"{CHECKPOINTING}:ResumableTrainer._save", 4, "after", signal.SIGKILL),
    (f"{RUNS}:RunFolder.finish", 1, "before", signal.SIGKILL),  # the card
    (f"{RUNS}:run_metrics", 2, "before", signal.SIGKILL),
    (f"{RUNS}:RunFolder.settle", 1, "after", signal.SIGKILL),
    (f"{RUNS}:RunFolder.rehearse", 1, "before", signal.SIGKILL),
]
SAMPLE = (4, 18)  # moments of the quick form
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 75, signal.SIGINT: 130}


# ---- One try of a command ----


@contextlib.contextmanager
def inside(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(command: str, folder):
    """Runs `sensia COMMAND` in this process. Returns its exit code (`None`: a traceback), and all that it said."""
    from sensia_trainer.cli import main

    said, told, ended = io.StringIO(), io.StringIO(), None
    handler = logging.StreamHandler(told)
    logging.getLogger().addHandler(handler)

    def impatient(*_):
        raise TimeoutError(f"not done after {PATIENCE} s")

    previous = signal.signal(signal.SIGALRM, impatient)
    signal.alarm(PATIENCE)
    try:
        with inside(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            ended = main(shlex.split(command))
    except SystemExit as exit:
        if isinstance(exit.code, str):
            told.write(f"sensia: {exit.code}\n")
        ended = exit.code if isinstance(exit.code, int) else 1
    except BaseException:
        told.write(traceback.format_exc())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        logging.getLogger().removeHandler(handler)
    return ended, said.getvalue(), told.getvalue()


def judge(fault, ended, said, told) -> tuple[str, str]:
    """`clear`, `silent` or `unclear`, and the line that shows it."""
    lines = [line for line in told.splitlines() if line.startswith("sensia")]
    if ended is None or "Traceback (most recent call last)" in told:
        return "unclear", f"traceback: {told.strip().splitlines()[-1][:200]}"
    if ended:
        good = len(lines) == 1 and re.search(fault.names, lines[0], re.IGNORECASE)
        return ("clear" if good else "unclear"), " / ".join(lines)[:300] or f"exit code {ended}, and nothing said"
    good = fault.tells is not None and re.search(fault.tells, said + told, re.IGNORECASE)
    return ("clear" if good else "silent"), f"went well: {(said + told).strip()[-200:]!r}"


def inputs(folder: Path, faults) -> list[tuple[str, str, str]]:
    """The verdict on each fault: name, verdict, what shows it."""
    found = []
    for number, fault in enumerate(faults):
        command = fault.command.replace("adapt.yaml", f"adapt.yaml --output_dir out-{number}")
        command = command.replace("pretrain.yaml", f"pretrain.yaml --output_dir out-{number}")
        command = command.replace("induce.yaml", f"induce.yaml --output_dir out-{number}")
        given = fault.command.count("--output_dir")
        ended, said, told = run(fault.command if given else command, folder)
        if not ended and (metrics := folder / f"out-{number}" / "metrics.json").is_file():
            said += json.dumps(json.loads(metrics.read_text())["data"])
        found.append((f"sensia {fault.command}", *judge(fault, ended, said, told)))
        say(found[-1])
    return found


# ---- Kills ----


def die_at(moment):
    """Has the process stopped at a moment, a row of `MOMENTS`."""
    place, call, when, number = moment
    module, _, path = place.partition(":")
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), [0]

    def stops(*args, **kwargs):
        calls[0] += 1
        if calls[0] == call and when == "before":
            os.kill(os.getpid(), number)
        result = original(*args, **kwargs)
        if calls[0] == call and when == "after":
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, stops)
    if owner is sys.modules.get(FILES) and name in vars(sys.modules.get(CHECKPOINTING, owner)):
        setattr(sys.modules[CHECKPOINTING], name, stops)


def child(command, folder, moment):
    if moment is not None:
        die_at(moment)
    with open(os.devnull, "w") as nowhere, inside(folder):
        from sensia_trainer.cli import main

        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            sys.exit(main(shlex.split(command)))


def in_process(command, folder, moment=None) -> int:
    """The exit code of a process of its own; minus the signal that killed it."""
    process = multiprocessing.get_context("forkserver").Process(target=child, args=(command, str(folder), moment))
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        return 1000
    return process.exitcode


def outcome(folder: Path):
    """What a run has computed: weights by the byte, measurements, and the history without times."""
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = [{k: v for k, v in row.items() if "second" not in k and "runtime" not in k} for row in metrics["history"]]
    rows = [row for row in rows if "total_flos" not in row]
    return (folder / "model.safetensors").read_bytes(), metrics.get("before"), metrics["after"], rows


def kills(folder: Path, moments, commands=tuple(KILLED)) -> list[tuple[str, str, str]]:
    found = []
    for command in commands:
        line = KILLED[command]
        whole = f"{line} whole-{command} {STEPS}"
        assert in_process(whole, folder) == 0, f"{whole} fails"
        expected = outcome(folder / f"whole-{command}")
        for number, moment in enumerate(moments):
            out = folder / f"killed-{command}-{number}"
            again = f"{line} {out.name} {STEPS}"
            place, call, when, sent = moment
            name = f"{command}, {signal.Signals(sent).name} {when} call {call} of {place.split(':')[1]}"
            codes = [in_process(again, folder, moment), in_process(again, folder)]
            if codes[0] != CODES[moment[3]] or codes[1] != 0:
                found.append((name, "unclear", f"exit codes {codes}, not {[CODES[moment[3]], 0]}"))
            elif outcome(out) != expected:
                different = [i for i, (a, b) in enumerate(zip(outcome(out), expected, strict=True)) if a != b]
                parts = [("weights", "before", "after", "history")[i] for i in different]
                found.append((name, "silent", f"other {', '.join(parts)} than of a run that nobody stopped"))
            else:
                written = (out / "model.safetensors").stat().st_mtime_ns
                code = in_process(again, folder)
                same = code == 0 and (out / "model.safetensors").stat().st_mtime_ns == written
                found.append(
                    (name, "clear" if same else "silent", f"third start: exit code {code}, same file: {same}")
                )
            say(found[-1])
            shutil.rmtree(out, ignore_errors=True)
    return found


# ---- Damage ----


def spoil(file: Path, how: str) -> None:
    content = file.read_bytes()
    file.unlink()
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "changed":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def damage(folder: Path, quick: bool) -> list[tuple[str, str, str]]:
    found = []
    line = f"adapt adapt.yaml {STEPS} --output_dir"
    assert in_process(f"{line} whole-damage", folder) == 0
    expected = outcome(folder / "whole-damage")
    assert in_process(f"{line} stopped", folder, (STOP, 5, "before", signal.SIGKILL)) == -9
    last = max((folder / "stopped").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    tries = [
        (f"{last.name}/{file.name}", how) for file in sorted(last.iterdir()) for how in ("removed", "cut", "changed")
    ]
    tries += [(name, how) for name in ("settings.json", "before.json") for how in ("removed", "cut", "changed")]
    tries += [("all checkpoints", "cut")]
    for name, how in tries[:: 19 if quick else 1]:
        out = folder / "damaged"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder / "stopped", out)
        files = out.glob("checkpoint-*/optimizer.pt") if name == "all checkpoints" else [out / name]
        for file in files:
            spoil(file, how)
        ended, said, told = run(f"{line} damaged", folder)
        title = f"{name} {how}"
        named = Path(name).parent.name or name
        if ended == 0 and outcome(out)[0] == expected[0]:
            tells = named in told or Path(name).parent == Path(".")  # what is beside is read again or measured again
            found.append((title, "clear" if tells else "silent", told.strip()[-200:] or "the same weights"))
        elif ended == 0:
            found.append((title, "silent", "other weights"))
        else:
            lines = [row for row in told.splitlines() if row.startswith("sensia")]
            good = len(lines) == 1 and re.search(f"{re.escape(named)}|checkpoint|settings", lines[0])
            found.append((title, "clear" if ended and good else "unclear", " / ".join(lines)[:300] or told[-200:]))
        say(found[-1])
    return found


# ---- All of it ----


def say(row):
    if row[1] != "clear" or VERBOSE:
        print(f"{row[1]:8s} {row[0]}\n         {row[2]}", flush=True)


VERBOSE = False


def try_all(quick=True, only="", parts=("kills", "damage", "inputs")) -> dict[str, list[tuple[str, str, str]]]:
    """Tries everything, or a sample; the verdicts by part."""
    from tests.fault_inputs import build_runs, build_world, faults

    results = {}
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        folder = Path(place)
        build_world(folder)
        chosen = [fault for fault in faults() if re.search(only, fault.command)]
        if quick:
            chosen = chosen[::9]
        if "inputs" in parts:
            ended, _, told = run("adapt adapt.yaml --output_dir finished", folder)
            assert ended == 0, told
            build_runs(folder)
            results["inputs"] = inputs(folder, chosen)
        if "kills" in parts:
            sample = [MOMENTS[n] for n in SAMPLE], ["words"]
            results["kills"] = kills(folder, *sample) if quick else kills(folder, MOMENTS)
        if "damage" in parts:
            results["damage"] = damage(folder, quick)
    return results


def main() -> int:
    global VERBOSE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--quick", action="store_true", help="a sample")
    form.add_argument("--full", action="store_true", help="everything")
    parser.add_argument("--only", default="", help="inputs whose command matches this expression")
    parser.add_argument("--parts", nargs="+", default=["kills", "damage", "inputs"])
    parser.add_argument("--verbose", action="store_true", help="show the clear ones too")
    parser.add_argument("--json", help="file for all verdicts")
    arguments = parser.parse_args()
    VERBOSE, started = arguments.verbose, time.monotonic()
    multiprocessing.set_forkserver_preload(["sensia_trainer.training.checkpointing", "sensia_trainer.trainer"])
    results = try_all(arguments.quick, arguments.only, arguments.parts)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1))
    for part, rows in [*results.items(), ("all", sum(results.values(), []))]:
        counts = Counter(verdict for _, verdict, _ in rows)
        print(f"{part:8s} tried {len(rows)}, " + ", ".join(f"{k} {counts[k]}" for k in ("clear", "silent", "unclear")))
    print(f"{time.monotonic() - started:.0f} s")
    return int(counts["silent"] > 0 or counts["unclear"] >= 0.02 * max(1, counts.total()))


if __name__ == "__main__":
    sys.exit(main())
