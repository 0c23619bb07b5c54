"""What evaluation adds to training; and multiple choice against lm-evaluation-harness, for `benchmark.py peers`.

Both scorers get the same model and items, score every choice with and without its context, in float32 and with equal
batch sizes, in turns; the largest difference between their log-likelihoods is reported beside the speed, so that a
fast wrong answer would show. Times are processor seconds, so that other work on the machine stays out of them as far
as possible.
"""

import os
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, set_seed

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from sensia_trainer.bitext import load_bitext
from sensia_trainer.bitext.flores import load_flores
from sensia_trainer.config import SensiaConfig
from sensia_trainer.evaluation.harness import harness_likelihoods
from sensia_trainer.evaluation.likelihood import choice_likelihoods
from sensia_trainer.evaluation.tasks import load_task, make_items
from sensia_trainer.trainer import SensiaTrainer
from sensia_trainer.utils.recipes import RECIPES


# task: name in the table, recipe of the harness and the template that asks the same.
TASKS = {
    "copa": ("COPA", "copa_en", "harness"),
    "xstorycloze": ("XStoryCloze", "xstorycloze_id", "harness"),
    "belebele": ("Belebele", "belebele_plain_en", "plain"),
}

TURNS = 3  # of both scorers, one after the other; the fastest counts


def add_arguments(parser):
    parser.add_argument("--data", default=os.path.expandvars("${SENSIA_DATA}"), help="folder with eval/ and train/")
    parser.add_argument("--tokenizer", default="model_cards/gpt2-micro-en", help="tokenizer folder or id")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of a training step, which is GPT-2 small's")
    parser.add_argument("--steps", type=int, default=2, help="training steps measured, after one that is not")
    parser.add_argument("--flores_pairs", type=int, default=32, help="pairs evaluated with that model")
    parser.add_argument("--threads", type=int, default=1)


def run(args) -> dict:
    """What part of training goes into evaluation."""
    torch.set_num_threads(args.threads)
    set_seed(0)
    return {"training": evaluation_share(args, AutoTokenizer.from_pretrained(args.tokenizer))}


def measure_tasks(args, batch_size=16, hidden_size=256, num_layers=6) -> dict:
    """Both scorers on every task, with a random GPT-2."""
    torch.set_num_threads(args.threads)
    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=hidden_size, n_layer=num_layers, n_head=hidden_size // 64)
    model = GPT2LMHeadModel(config).eval()
    tasks = {task: measure(args, model, tokenizer, task, batch_size) for task in tqdm(TASKS, desc="tasks")}
    names = ("items", "seconds", "harness_seconds")
    tasks["all"] = {name: sum(task[name] for task in tasks.values()) for name in names}
    tasks["all"]["largest_difference"] = max(tasks[task]["largest_difference"] for task in TASKS)
    for task in tasks.values():
        task["ratio"] = task["harness_seconds"] / task["seconds"]
    model = {"hidden_size": hidden_size, "layers": num_layers, "parameters": model.num_parameters()}
    return {"model": model | {"vocabulary": len(tokenizer)}, "batch_size": batch_size, "tasks": tasks}


def measure(args, model, tokenizer, task, batch_size) -> dict:
    """Processor seconds of both scorers on one task, and how far their log-likelihoods (nats) are apart at most."""
    _, recipe, template = TASKS[task]
    data = load_task(task, "en", "test", data_dir=Path(args.data) / "eval", max_items=args.items)
    items = make_items(data, template)
    choice_likelihoods(model, tokenizer, items[:2])  # warm-up
    rows = batch_size * len(items[0].continuations)  # the harness counts choices, not items
    seconds, harness_seconds = [], []
    for _ in range(TURNS):
        start = time.process_time()
        ours = choice_likelihoods(model, tokenizer, items, batch_size=batch_size)
        seconds.append(time.process_time() - start)
        theirs = harness_likelihoods(model, tokenizer, data, RECIPES / "lm_eval" / f"{recipe}.yaml", batch_size=rows)
        harness_seconds.append(theirs["cpu_seconds"])
    return {
        "items": len(items),
        "seconds": min(seconds),
        "harness_seconds": min(harness_seconds),
        "largest_difference": float(np.abs(ours.conditional - theirs["conditional"]).max()),
    }


def evaluation_share(args, tokenizer) -> dict:
    """What part of training goes into evaluations on FLORES-200 dev at the paper's settings (Appendix C), from the
    processor seconds of one pair in training and of one pair in evaluation, with a Backpack on GPT-2 small."""
    bitext = load_bitext(str(Path(args.data) / "train" / "en-id.tsv.gz"), "en", "id", split="train")
    dev = load_flores(Path(args.data) / "eval" / "flores200", "dev", ["en", "id"], purpose="selection")
    held_out = [{"en": source, "id": target} for source, target in zip(dev["en"], dev["id"], strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        settings = SensiaConfig(
            output_dir=folder,
            per_device_train_batch_size=args.pairs,
            train_sampling_strategy="random",  # batches of every length, as over a whole training
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
        )
        trainer = SensiaTrainer(
            BackpackForCausalLM(BackpackConfig()),
            settings,
            train_dataset=Dataset.from_dict({"translation": bitext.shuffle(seed=0)[:1000]["translation"]}),
            eval_dataset=Dataset.from_dict({"translation": held_out[: args.flores_pairs]}),
            processing_class=tokenizer,
        )
        warm_up, *batches = [dict(batch) for batch in islice(trainer.get_train_dataloader(), args.steps + 1)]
        trainer.current_gradient_accumulation_steps = 1
        trainer.state.max_steps, trainer.state.global_step = 100, 20  # where all three losses count
        optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=5e-5, fused=True)

        def step(batch):
            trainer.compute_loss(trainer.model.train(), batch).backward()
            optimizer.step()
            optimizer.zero_grad()

        step(warm_up)
        start = time.process_time()
        for batch in tqdm(batches, desc="training steps"):
            step(batch)
        training = (time.process_time() - start) / (len(batches) * args.pairs)
        start = time.process_time()
        trainer.evaluate()
        evaluation = (time.process_time() - start) / args.flores_pairs
    batch_size = SensiaConfig.per_device_train_batch_size  # the paper's
    once, between = len(held_out) * evaluation, settings.eval_steps * batch_size * training
    return {
        "parameters": trainer.model.num_parameters(),
        "seconds_per_pair_in_training": training,
        "seconds_per_pair_in_evaluation": evaluation,
        "eval_steps": settings.eval_steps,
        "batch_size": batch_size,
        "dev_pairs": len(held_out),
        "share": once / (once + between),
    }


def tables(result) -> str:
    """The measurements as Markdown."""
    training = result["training"]
    return (
        f"With a Backpack of {training['parameters'] / 1e6:.0f} M parameters a pair of FLORES-200 dev takes "
        f"{training['seconds_per_pair_in_evaluation']:.2f} s in evaluation, a pair of bitext of any length "
        f"{training['seconds_per_pair_in_training']:.2f} s in training. At the paper's settings, "
        f"{training['dev_pairs']} pairs every {training['eval_steps']:,} steps of {training['batch_size']} pairs, "
        f"evaluation takes {training['share']:.2%} of the time."
    )


def task_table(result) -> str:
    """What [`measure_tasks`] returns, as Markdown."""
    lines = [
        "| items | this scorer, items/s | lm-evaluation-harness, items/s | ratio | largest difference, nats |",
        "|---|---|---|---|---|",
    ]
    for name, task in result["tasks"].items():
        title = TASKS[name][0] if name in TASKS else "together"
        rates = task["items"] / task["seconds"], task["items"] / task["harness_seconds"]
        lines.append(
            f"| {title}, {task['items']} | {rates[0]:.1f} | {rates[1]:.1f} | {task['ratio']:.2f} "
            f"| {task['largest_difference']:.0e} |"
        )
    size = result["model"]["parameters"] / 1e6
    return "\n".join(lines) + f"\n\nPer processor second, with a random GPT-2 of {size:.1f} M parameters."
