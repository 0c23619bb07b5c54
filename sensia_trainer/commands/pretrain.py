"""
Pretrain an English Backpack from scratch.

    sensia pretrain pretrain_micro
    sensia pretrain pretrain_small --output_dir outputs/small --num_processes 8 --config_file one_node_ddp

Every field can be overridden on the command line; arguments of `accelerate launch` pass through to it. A run that was
interrupted goes on from its last checkpoint.
"""

import math
from dataclasses import dataclass
from functools import partial

from transformers import AutoTokenizer, TrainingArguments, set_seed

from ..hub.model_card import write_card
from ..training.memory import keep_freed_memory
from ..training.pretraining import (
    PretrainingData,
    PretrainingTrainer,
    blocks_fingerprint,
    build_model,
    collate_blocks,
    load_documents,
    pack,
    train_tokenizer,
)
from ..training.runs import run_folder, run_metrics, tokenizer_fingerprint, warn_of_one_process
from ..utils.arguments import recipe_parser
from ..utils.recipes import parse_recipe


MAX_EXPONENT = 700.0  # of a floating-point number


def describe(keep):
    """`{"licence_class": "open"}` as a card shows it."""
    return ", ".join(f"{column} {value}" for column, value in keep.items())


@dataclass
class PretrainingArguments(TrainingArguments):
    """TrainingArguments with `remove_unused_columns=False`, because the collator names the model's inputs."""

    remove_unused_columns: bool = False


def parser():
    return recipe_parser((PretrainingData, PretrainingArguments), prog="sensia pretrain", description=__doc__)


def main(argv=None):
    data, args = parse_recipe(parser(), argv)
    warn_of_one_process(args)
    with run_folder(args, data=data) as run:
        if run.finished:
            run.say_finished()
        else:
            pretrain(run, data, args)


def pretrain(run, data, args):
    """Bring the run, wherever it was left, to its end: a model folder with its card."""
    set_seed(args.seed)
    keep_freed_memory()
    with args.main_process_first(desc="reading the text"):
        documents = load_documents(data)
        if data.tokenizer:
            tokenizer = AutoTokenizer.from_pretrained(data.tokenizer)
        else:
            tokenizer = train_tokenizer(documents, data.vocab_size, data.block_size)
        blocks = pack(documents, tokenizer, data.block_size)
    run.settle(lambda: {"text": blocks_fingerprint(blocks), "tokenizer": tokenizer_fingerprint(tokenizer)})
    split = blocks.train_test_split(test_size=data.held_out_blocks, seed=args.seed)

    model = build_model(data, tokenizer)
    trainer = PretrainingTrainer(
        model,
        args,
        data_collator=partial(collate_blocks, senses=data.senses),
        train_dataset=split["train"],
        eval_dataset=split["test"],
        processing_class=tokenizer,
    )

    def metrics(loss):
        """What `metrics.json` holds; in the end, and in the rehearsal of the card before the first step."""
        return run_metrics(
            args,
            kind="pretraining",
            model=model,
            languages={"source": data.language},
            data={
                "sources": data.dataset or data.text_files,
                "licence": data.licence,
                **({"rows_kept": describe(data.tsv_keep)} if data.tsv_keep else {}),
                "documents": len(documents),
                "tokens": len(split["train"]) * data.block_size,
                "block_size": data.block_size,
                "held_out_blocks": data.held_out_blocks,
            },
            after={"perplexity": math.exp(loss) if loss < MAX_EXPONENT else None, "cross_entropy": loss},
            state=trainer.state,
        )

    run.rehearse(model, metrics(math.log(len(tokenizer))), write_card)
    trainer.train(resume_from_checkpoint=run.interrupted)
    loss = trainer.evaluate()["eval_loss"]
    if not math.isfinite(loss):
        raise ValueError(
            f"The cross-entropy on held-out text is {loss}; the model is not saved. Lower `learning_rate`."
        )
    model.config.use_cache = True
    trainer.save_model()
    if trainer.is_world_process_zero():
        run.finish(metrics(loss), write_card)
        print(f"perplexity on held-out text: {math.exp(loss):.2f}\nmodel folder: {args.output_dir}")
