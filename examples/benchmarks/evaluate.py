"""Multiple-choice scoring against lm-evaluation-harness: items per second, same model, same items, same run.

Both score every choice with and without its context, in float32 and with equal batch sizes; the largest difference
between their log-likelihoods is reported beside the speed, so that a fast wrong answer would show.
"""

import random
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, set_seed

from sensia_trainer.evaluation.harness import harness_likelihoods
from sensia_trainer.evaluation.likelihood import choice_likelihoods
from sensia_trainer.evaluation.tasks import TaskData, make_items


RECIPES = Path(__file__).parents[1] / "recipes" / "lm_eval"
WORDS = "the a of to and in river house people water year time small old said went made before after children".split()
# task: recipe, template, words of the context, words of a choice, choices; lengths are those of the real sets.
SHAPES = {
    "xcopa": ("copa_en", "harness", 6, 6, 2),
    "xstorycloze": ("xstorycloze_id", "harness", 36, 8, 2),
    "belebele": ("belebele_plain_en", "plain", 90, 6, 4),
}


def add_arguments(parser):
    parser.add_argument("--tokenizer", default="model_cards/backpack-micro-en", help="tokenizer folder or id")
    parser.add_argument("--items", type=int, default=40, help="items of each task")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--hidden_size", type=int, default=256, help="of the random GPT-2 that both score with")
    parser.add_argument("--num_layers", type=int, default=6)


def text(rng, words):
    return " ".join(rng.choices(WORDS, k=words + rng.randint(-words // 3, words // 3))) + "."


def rows(task, count, rng):
    _, _, context, answer, choices = SHAPES[task]
    for i in range(count):
        row = {"id": str(i), "choices": [text(rng, answer) for _ in range(choices)], "label": rng.randrange(choices)}
        if task == "xcopa":
            yield row | {"premise": text(rng, context), "question": rng.choice(["cause", "effect"])}
        elif task == "xstorycloze":
            yield row | {"sentences": [text(rng, context // 4) for _ in range(4)]}
        else:
            yield row | {"passage": text(rng, context), "question": text(rng, 8)}


def run(args) -> dict:
    """Measures every task; returns speeds, their ratios and the largest difference of log-likelihoods in nats."""
    set_seed(0)
    rng = random.Random(0)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=args.hidden_size, n_layer=args.num_layers, n_head=args.hidden_size // 64
    )
    model = GPT2LMHeadModel(config).eval()
    result = {"model": config.to_diff_dict(), "threads": torch.get_num_threads(), "batch_size": args.batch_size}
    result["tasks"] = {}
    for task, (recipe, template, *_) in SHAPES.items():
        data = TaskData(task, "en", "test", list(rows(task, args.items, rng)), "generated", "0")
        items = make_items(data, template)
        choice_likelihoods(model, tokenizer, items[:2])  # warm-up
        start, cpu_start = time.perf_counter(), time.process_time()
        ours = choice_likelihoods(model, tokenizer, items, batch_size=args.batch_size)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        theirs = harness_likelihoods(
            model,
            tokenizer,
            data,
            RECIPES / f"{recipe}.yaml",
            batch_size=args.batch_size * len(items[0].continuations),
        )
        result["tasks"][task] = {
            "items": args.items,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "harness_seconds": theirs["seconds"],
            "harness_cpu_seconds": theirs["cpu_seconds"],
            "largest_difference": float(np.abs(ours.conditional - theirs["conditional"]).max()),
        }
    result["tasks"]["all"] = _total(result["tasks"])
    result["tasks"] = {task: _rates(measured) for task, measured in result["tasks"].items()}
    return result


def _total(tasks):
    names = next(iter(tasks.values())).keys()
    return {name: (max if "difference" in name else sum)(task[name] for task in tasks.values()) for name in names}


def _rates(measured):
    """Items per second by the wall clock and by CPU time, which other work on the machine disturbs less."""
    rates = {
        "items_per_second": measured["items"] / measured["seconds"],
        "harness_items_per_second": measured["items"] / measured["harness_seconds"],
        "ratio": measured["harness_seconds"] / measured["seconds"],
        "cpu_ratio": measured["harness_cpu_seconds"] / measured["cpu_seconds"],
    }
    return {name: round(value, 3) if "difference" not in name else value for name, value in (measured | rates).items()}
