"""
Speed and memory, measured side by side in one run: ratios, not promises.

    python examples/benchmark.py model      forward, backward and generation against the published way
    python examples/benchmark.py adapt      training steps against the published way
    python examples/benchmark.py evaluate   what evaluation adds to training
    python examples/benchmark.py peers      the same work by TRL, sentence-transformers and lm-evaluation-harness
    python examples/benchmark.py quality    seconds to the quality in which the published recipe ends, by both recipes
    python examples/benchmark.py bitext     stages of the bitext pipeline
    python examples/benchmark.py scale      the cost of larger models, on paper
    python examples/benchmark.py report     tables of what was measured, into docs/speed.md

Run from the repository, on a machine that does nothing else; each writes JSON to results/benchmarks/.
"""

import argparse
import importlib
import json
import os
import platform
from datetime import date
from pathlib import Path

import torch

from sensia_trainer.utils.files import write_json


BENCHMARKS = ("model", "adapt", "evaluate", "peers", "quality", "bitext", "scale")
BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name in BENCHMARKS:
        module = importlib.import_module(f"benchmarks.{name}")
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        command.add_argument("--output", default=f"results/benchmarks/benchmark_{name}.json", help="JSON written")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    command = commands.add_parser("report", help="Tables of the results, written into the site's page.")
    command.add_argument("--page", default="docs/speed.md")
    args = parser.parse_args()
    if args.benchmark == "report":
        return report(Path(args.page))
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": getattr(args, "threads", torch.get_num_threads()),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "torch": torch.__version__,
    }
    result = {"benchmark": args.benchmark, "date": date.today().isoformat(), "machine": machine, **args.run(args)}
    write_json(Path(args.output), result)
    print(json.dumps(result, indent=2))
    print(f"written to {args.output}")


def processor():
    """The name of the processor, where the system tells it."""
    names = [line.split(":")[1].strip() for line in cpu_information() if line.startswith("model name")]
    return f"{names[0]} ({platform.machine()})" if names else platform.machine()


def cpu_information():
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def report(page):
    """Put a table of each result in results/benchmarks/ between the two marks of a page."""
    sections = []
    for name in BENCHMARKS:
        module, file = importlib.import_module(f"benchmarks.{name}"), Path(f"results/benchmarks/benchmark_{name}.json")
        if not (hasattr(module, "tables") and file.is_file()):
            continue
        result = json.loads(file.read_text(encoding="utf-8"))
        machine = result["machine"]
        load = result.get("load_average", "")  # of the last minute, or of the last one, five and fifteen
        load = load and f", at a load average of {float(load[0] if isinstance(load, list) else load):.1f}"
        sections.append(
            f"### `benchmark.py {name}`\n\n{module.__doc__.splitlines()[0]} Measured on {result['date']}: "
            f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, {machine['memory_gb']} GB, "
            f"torch {machine['torch']}{load}.\n\n{module.tables(result)}"
        )
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    if not after:
        raise ValueError(f"{page} lacks the line {BEGIN!r} or, after it, {END!r}, between which tables are written.")
    page.write_text("\n\n".join([before + BEGIN, *sections, END]) + after, encoding="utf-8")
    print(f"{len(sections)} tables written to {page}")


if __name__ == "__main__":
    main()
