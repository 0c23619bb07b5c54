"""
Speed and memory, measured side by side in one run: ratios, not promises.

    python examples/benchmark.py model      forward, backward and generation against the published way
    python examples/benchmark.py adapt      training steps against the published way
    python examples/benchmark.py evaluate   multiple choice against lm-evaluation-harness
    python examples/benchmark.py bitext     stages of the bitext pipeline

Run from the repository, on a machine that does nothing else; each writes JSON to examples/results/.
"""

import argparse
import importlib
import json
import os
import platform
from datetime import date
from pathlib import Path

import torch

from sensia_trainer.runs import write_json


BENCHMARKS = ("model", "adapt", "evaluate", "bitext")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name in BENCHMARKS:
        module = importlib.import_module(f"benchmarks.{name}")
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        command.add_argument("--output", default=f"examples/results/benchmark_{name}.json", help="JSON written")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args()
    machine = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "torch": torch.__version__,
    }
    result = {"benchmark": args.benchmark, "date": date.today().isoformat(), "machine": machine, **args.run(args)}
    write_json(Path(args.output), result)
    print(json.dumps(result, indent=2))
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
