"""Cost at scale, on paper: GPU hours, memory and pairs a second of models of 124 M to 7 B parameters.

The numbers are those of `sensia_trainer.training.estimate`, whose count of operations is compared here with what torch
itself counts in one training step of a small model.
"""

import os
import tempfile
from types import SimpleNamespace

import torch
from torch.utils.flop_counter import FlopCounterMode

from examples.benchmarks.adapt import backbone_config, counts_of, make_trainer
from modeling_backpack import BackpackConfig
from sensia_trainer.training.estimate import (
    GPUS,
    SHARE_OF_GPU,
    Sizes,
    average_batch,
    fewest_processes,
    parameters,
    sizes_of,
    training_memory,
    training_operations,
)


# GPT-2 with senses as in the paper (an MLP of 4 d), decoders of today with those that induction gives them (of d).
MODELS = {
    "GPT-2 small": Sizes(768, 12, 768, 768, 3072, 2, 50257, 1024, True, 16, 3072, kept_inner=5),
    "GPT-2 medium": Sizes(1024, 24, 1024, 1024, 4096, 2, 50257, 1024, True, 16, 4096, kept_inner=5),
    "GPT-2 large": Sizes(1280, 36, 1280, 1280, 5120, 2, 50257, 1024, True, 16, 5120, kept_inner=5),
    "TinyLlama 1.1B": Sizes(2048, 22, 2048, 256, 5632, 3, 32000, 0, False, 16, 2048, kept_inner=4),
    "Llama 3.2 3B": Sizes(3072, 28, 3072, 1024, 8192, 3, 128256, 0, True, 16, 3072, kept_inner=4),
    "Llama 2 7B": Sizes(4096, 32, 4096, 4096, 11008, 3, 32000, 0, False, 16, 4096, kept_inner=4),
}
LENGTHS = (25, 30)  # tokens of a sentence of either side
PAIRS, STEPS = 64, 150_000  # the paper's batch, here of each process, and its steps
FSDP, TENSOR_PARALLEL = 8, 4


def add_arguments(parser):
    parser.add_argument("--bitext", default=os.path.expandvars("${SENSIA_DATA}/train/en-id.tsv.gz"))
    parser.add_argument("--target", default="id", help="target language")
    parser.add_argument("--threads", type=int, default=1)


def run(args) -> dict:
    """The table, and the check of its count."""
    torch.set_num_threads(args.threads)
    return {"check": check(args), "models": [{"model": name} | cost(sizes) for name, sizes in MODELS.items()]}


def check(args):
    """Operations of one step of a small model by torch's own count, which knows padding and the future as well, and by
    the formula."""
    small = SimpleNamespace(bitext=args.bitext, target=args.target, pairs=16, layers=2, hidden_size=128)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(small, folder, 160)
        batch = dict(next(iter(trainer.get_train_dataloader())))
    # The gradient of the head is added up in place, which torch does not count of itself.
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place_flop}) as counter:
        trainer.compute_loss(trainer.model.train(), batch).backward()
    counted, counts = counter.get_total_flops(), counts_of(batch)
    sizes = sizes_of(BackpackConfig(backbone_config=backbone_config(small)))
    cells = batch["input_ids"].numel() / counts.tokens
    formula = training_operations(sizes, counts)
    return {"counted_by_torch": counted, "formula": formula, "ratio": counted / formula, "cells_per_token": cells}


def in_place_flop(total, left, right, **_):
    """Of `total.addmm_(left, right)`, from the shapes."""
    return 2 * left[0] * left[1] * right[1]


def cost(sizes):
    """Of one model: operations of a pair, memory of a process, speed and hours."""
    batch = average_batch(PAIRS, *LENGTHS, sizes.vocabulary)
    operations = training_operations(sizes, batch) / PAIRS
    memory = {
        "one": training_memory(sizes, batch, half=True),
        "fsdp": training_memory(sizes, batch, half=True, processes=FSDP),
        "tensor_parallel": training_memory(sizes, batch, half=True, tensor_parallel=TENSOR_PARALLEL),
    }
    rows = {}
    for gpu in ("A100", "H100"):
        speed, room = GPUS[gpu]
        rate = SHARE_OF_GPU * speed / operations
        needed = fewest_processes(sizes, batch, room)
        hours = STEPS * PAIRS / rate / 3600
        rows[gpu] = {"pairs_per_second": rate, "hours": hours, "fewest": needed and needed[0]}
    return {
        "parameters": parameters(sizes),
        "operations_per_pair": operations,
        "memory_gb": {name: part.total / 2**30 for name, part in memory.items()},
        "gpus": rows,
    }


def tables(result) -> str:
    """The numbers as Markdown."""
    lines = [
        "| model | parameters with senses | TFLOP a pair | GB on one GPU | FSDP on 8 | tensor parallel on 4 "
        "| A100: pairs/s a GPU | GPU hours | H100: pairs/s a GPU | GPU hours |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["models"]:
        memory = row["memory_gb"]
        cells = [row["model"], f"{row['parameters'] / 1e6:,.0f} M", f"{row['operations_per_pair'] / 1e12:.3g}"]
        cells += [f"{memory[name]:.1f}" for name in ("one", "fsdp", "tensor_parallel")]
        for gpu in row["gpus"].values():
            cells += [f"{gpu['pairs_per_second']:,.0f}", f"{gpu['hours']:,.3g}"]
        lines.append(f"| {' | '.join(cells)} |")
    check = result["check"]
    return "\n".join(lines) + (
        f"\n\nMemory is of each GPU, with {PAIRS} pairs of {LENGTHS[0]} + {LENGTHS[1]} tokens on it, AdamW in float32 "
        f"and bfloat16 autocast, without the libraries. Hours are of the paper's {STEPS:,} steps of {PAIRS} pairs at "
        f"{SHARE_OF_GPU:.0%} of the data sheet's dense bfloat16 rate, an assumption: no GPU was at hand.\n\nIn one "
        f"training step of a small model torch counts {check['ratio']:.2f} times the operations of the formula, which "
        f"leaves out padding (here {check['cells_per_token']:.2f} cells a token), the future of each position and "
        "what rounds shapes up."
    )
