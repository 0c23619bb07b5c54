"""The same work by what people would use instead: TRL, sentence-transformers and lm-evaluation-harness.

Language modelling: TRL's SFTTrainer, packed, against `PretrainingTrainer`: the same dense GPT-2 on the same blocks.
Contrastive learning: the two ranking losses of sentence-transformers against `DenseTrainer`: the same dense GPT-2, the
same pairs in one batch, one direction, temperature 0.05. Every way runs in a process of its own, for its memory, and
the ways take turns, so that whatever else the machine does meets all of them. The losses of the first steps stand
beside the speed: equal work gives equal losses (the library divides a block's loss by all of its labels, we by those
that are predicted: of blocks of 256, 255 in the place of 256). Multiple choice is `benchmark.py evaluate`'s.

They are the extra `benchmark`. Times are processor seconds; those of the clock stand beside them in the JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, TrainerCallback, set_seed

from examples.benchmarks import evaluate
from examples.benchmarks.process import process_memory
from sensia_trainer.bitext import load_bitext
from sensia_trainer.utils.memory import keep_freed_memory


# way: what the table calls it, its part, pairs of a batch and pairs computed at a time (0: all at once).
WAYS = {
    "pretraining": ("PretrainingTrainer", "language model", 0, 0),
    "sft": ("TRL's SFTTrainer, packed", "language model", 0, 0),
    "dense-64": ("DenseTrainer", "contrastive", 64, 0),
    "ranking-64": ("MultipleNegativesRankingLoss", "contrastive", 64, 0),
    "dense-1024": ("DenseTrainer", "contrastive", 1024, 0),
    "ranking-1024": ("MultipleNegativesRankingLoss", "contrastive", 1024, 0),
    "dense-1024-chunks": ("DenseTrainer, 64 at a time", "contrastive", 1024, 64),
    "cached-1024": ("CachedMultipleNegativesRankingLoss, 64 at a time", "contrastive", 1024, 64),
}
# Which way is compared with which: ours and the peer's.
COMPARED = (
    ("pretraining", "sft"),
    ("dense-64", "ranking-64"),
    ("dense-1024", "ranking-1024"),
    ("dense-1024-chunks", "cached-1024"),
)
TEMPERATURE = 0.05
MAX_LENGTH = 64  # tokens of a sentence
LEARNING_RATE = 1e-4


def add_arguments(parser):
    parser.add_argument("--data", default=os.path.expandvars("${SENSIA_DATA}"), help="folder with eval/ and train/")
    parser.add_argument("--tokenizer", default="model_cards/gpt2-micro-en", help="tokenizer folder or id")
    parser.add_argument("--repeats", type=int, default=2, help="processes of each way; the fastest counts")
    parser.add_argument("--steps", type=int, default=6, help="steps measured in each, after one that is not")
    parser.add_argument("--large_steps", type=int, default=2, help="likewise, of batches of 1,024 pairs")
    parser.add_argument("--blocks", type=int, default=16, help="blocks of a step of language modelling")
    parser.add_argument("--block_size", type=int, default=256)
    parser.add_argument("--items", type=int, default=100, help="items of each task of multiple choice")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help="measure one way only, in this process")


def dense_model(tokenizer, hidden_size, layers):
    """A fresh GPT-2, the same for each way, without dropout."""
    set_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=256,
        n_embd=hidden_size,
        n_layer=layers,
        n_head=hidden_size // 64,
        activation_function="gelu_pytorch_tanh",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    )
    return GPT2LMHeadModel(config)


def read_pairs(args, number):
    pairs = load_bitext(str(Path(args.data) / "train" / "en-id.tsv.gz"), "en", "id", split="train")
    return pairs.shuffle(seed=0)[:number]["translation"]


def steps_of(args):
    """Steps of this way, with the one that warms up."""
    return 1 + (args.large_steps if WAYS[args.way][2] > 64 else args.steps)


def settings(folder, args, batch_size):
    """What every trainer is told alike."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch_size,
        "max_steps": steps_of(args),
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "logging_steps": 1,
        "logging_first_step": True,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
    }


class Clock(TrainerCallback):
    """Processor and wall seconds of each step, from the end of the one before, and its loss."""

    def __init__(self):
        self.ends, self.losses = [], []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append((time.process_time(), time.perf_counter()))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def result(self, units):
        """Of steps of so many units, after the first; the median, so that one disturbed step does not count."""
        steps = [[b - a for a, b in zip(*pair)] for pair in zip(self.ends, self.ends[1:])]
        processor, wall = (statistics.median(column) for column in zip(*steps))
        return {
            "units": units,
            "processor_seconds_per_step": processor,
            "wall_seconds_per_step": wall,
            "losses": self.losses[:2],
            "peak_memory_gb": process_memory("VmHWM"),
        }


def language_model(args, folder):
    """One way of language modelling on blocks of English: tokens a step and their seconds."""
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    ids = tokenizer([pair["en"] for pair in read_pairs(args, 40_000)])["input_ids"]
    tokens = [token for sentence in ids for token in [*sentence, tokenizer.eos_token_id]]
    size, wanted = args.block_size, args.blocks * steps_of(args)
    blocks = [tokens[i * size : (i + 1) * size] for i in range(wanted)]
    rows = Dataset.from_dict({"input_ids": blocks})
    model, clock = dense_model(tokenizer, 256, 6), Clock()
    common = settings(folder, args, args.blocks)
    before = process_memory("VmRSS")
    if args.way == "pretraining":
        from sensia_trainer.training.pretraining import PretrainingTrainer, collate_blocks
        from sensia_trainer.training.settings import PretrainingArguments

        trainer = PretrainingTrainer(
            model,
            PretrainingArguments(**common),
            data_collator=lambda rows: collate_blocks(rows, senses=False),
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[clock],
        )
    else:
        from trl import SFTConfig, SFTTrainer

        packed = {"packing": True, "packing_strategy": "wrapped", "max_length": size, "gradient_checkpointing": False}
        trainer = SFTTrainer(
            model,
            SFTConfig(**common, **packed, bf16=False),
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[clock],
        )
    trainer.train()
    return clock.result(args.blocks * size) | {"memory_before_gb": before, "parameters": model.num_parameters()}


def contrastive(args, folder, pairs, chunk):
    """One way of contrastive learning: the same pairs every step, as the only batch of their epoch."""
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows, model, clock = read_pairs(args, pairs), dense_model(tokenizer, 128, 4), Clock()
    before = process_memory("VmRSS")
    if args.way.startswith("dense"):
        trainer = dense_trainer(args, folder, rows, model, tokenizer, chunk)
    else:
        trainer = ranking_trainer(args, folder, rows, model, tokenizer, chunk)
    trainer.add_callback(clock)
    trainer.train()
    return clock.result(pairs) | {"memory_before_gb": before, "parameters": model.num_parameters()}


def dense_trainer(args, folder, rows, model, tokenizer, chunk):
    from sensia_trainer.baselines import DenseTrainer
    from sensia_trainer.config import SensiaConfig

    method = {"w_sense": 0.0, "w_context": 1.0, "w_lm": 0.0, "tau_context": TEMPERATURE, "symmetric": False}
    config = SensiaConfig(
        **settings(folder, args, len(rows)),
        **method,
        contrastive_chunk_size=chunk,
        target_language="id",
        max_length=MAX_LENGTH,
        polish_freeze="none",
        predict_end=False,
    )
    dataset = Dataset.from_dict({"translation": rows})
    return DenseTrainer(model, config, train_dataset=dataset, processing_class=tokenizer)


def ranking_trainer(args, folder, rows, model, tokenizer, chunk):
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, losses, models
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments

    model.save_pretrained(f"{folder}/model")
    tokenizer.save_pretrained(f"{folder}/model")
    encoder = models.Transformer(f"{folder}/model", max_seq_length=MAX_LENGTH)
    encoder = SentenceTransformer(
        modules=[encoder, models.Pooling(model.config.hidden_size, pooling_mode="lasttoken")], device="cpu"
    )
    loss = losses.MultipleNegativesRankingLoss(encoder, scale=1 / TEMPERATURE)
    if chunk:
        loss = losses.CachedMultipleNegativesRankingLoss(encoder, scale=1 / TEMPERATURE, mini_batch_size=chunk)
    columns = {"anchor": [row["en"] for row in rows], "positive": [row["id"] for row in rows]}
    return SentenceTransformerTrainer(
        encoder, Arguments(**settings(folder, args, len(rows))), train_dataset=Dataset.from_dict(columns), loss=loss
    )


def measure(args):
    """One way, in this process."""
    torch.set_num_threads(args.threads)
    # Ours as `sensia` commands do it; the peers' as the Python that runs them does.
    if args.way.startswith(("pretraining", "dense")):
        keep_freed_memory()
    _, part, pairs, chunk = WAYS[args.way]
    with tempfile.TemporaryDirectory() as folder:
        if part == "language model":
            return language_model(args, folder)
        return contrastive(args, folder, pairs, chunk)


def in_a_process(way):
    """What this script measures of one way, in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, *sys.argv, "--way", way, "--output", file.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(Path(file.name).read_text())


def run(args) -> dict:
    """Every way in turn, and ratios: ours to the peer's."""
    if args.way:
        return measure(args)
    from importlib.metadata import version

    measured = {way: [] for way in WAYS}
    for _ in tqdm(range(args.repeats), desc="turns"):
        for way in tqdm(WAYS, desc="ways", leave=False):
            measured[way].append(in_a_process(way))
    rows = {way: row(way, of_way) for way, of_way in measured.items()}
    items = evaluate.measure_tasks(args)
    return {
        "versions": {name: version(name) for name in ("trl", "sentence-transformers", "lm-eval", "transformers")},
        "load_average": Path("/proc/loadavg").read_text().split()[:3],
        "rows": rows,
        "multiple_choice": items,
        "ratios": {
            ours: compare(rows[ours], rows[peer], 1 - 1 / args.block_size if peer == "sft" else 1.0)
            for ours, peer in COMPARED
        },
    }


def row(way, repeats):
    best = min(repeats, key=lambda one: one["processor_seconds_per_step"])
    keys = ("units", "losses", "processor_seconds_per_step", "wall_seconds_per_step", "peak_memory_gb")
    own = best["peak_memory_gb"] - best["memory_before_gb"]
    rate = best["units"] / best["processor_seconds_per_step"]
    return {"name": WAYS[way][0]} | {key: best[key] for key in keys} | {"memory_gb": own, "units_per_second": rate}


def compare(ours, peer, predicted=1.0):
    """Ratios of ours to the peer's, and how far the first losses are apart; `predicted`: what the peer divides by, in
    labels that are predicted."""
    return {
        "speed": ours["units_per_second"] / peer["units_per_second"],
        "memory": ours["memory_gb"] / peer["memory_gb"],
        "difference_of_first_loss": abs(ours["losses"][0] * predicted - peer["losses"][0]),
    }


def tables(result) -> str:
    """The measurements as Markdown."""
    lines = [
        "| work | way | tokens or pairs/s | ratio | memory of training, GB | loss of the first two steps |",
        "|---|---|---:|---:|---:|---|",
    ]
    ratios = {peer: result["ratios"][ours]["speed"] for ours, peer in COMPARED}
    for ours, peer in COMPARED:
        for way in (ours, peer):
            one, (_, part, pairs, _) = result["rows"][way], WAYS[way]
            work = f"{pairs:,} pairs" if pairs else "packed blocks"
            ratio = f"{ratios[peer]:.2f}" if way == ours else "1"
            lines.append(
                f"| {part}, {work} | {one['name']} | {one['units_per_second']:,.0f} | {ratio} "
                f"| {one['memory_gb']:.2f} | {one['losses'][0]:.4f}, {one['losses'][1]:.4f} |"
            )
    return "\n".join(lines) + "\n\n" + evaluate.task_table(result["multiple_choice"])
