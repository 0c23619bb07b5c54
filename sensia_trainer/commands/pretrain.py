"""
Pretrain an English Backpack from scratch.

    sensia pretrain pretrain_micro
    sensia pretrain pretrain_small --output_dir outputs/small --num_processes 8 --config_file one_node_ddp

Every field can be overridden on the command line; arguments of `accelerate launch` pass through to it. A run that was
interrupted goes on from its last checkpoint.
"""

from ..training.settings import PretrainingArguments, PretrainingData
from ..utils.arguments import recipe_parser
from ..utils.recipes import parse_recipe


MAX_EXPONENT = 700.0  # of a floating-point number


def parser():
    return recipe_parser((PretrainingData, PretrainingArguments), prog="sensia pretrain", description=__doc__)


def main(argv=None):
    data, args = parse_recipe(parser(), argv)

    from ..training.pushing import push_again
    from ..training.runs import run_folder, warn_of_one_process

    warn_of_one_process(args)
    with run_folder(args, data=data) as run:
        if run.finished:
            run.say_finished()
            push_again(args)
        else:
            pretrain(run, data, args)


def pretrain(run, data, args):
    """Bring the run, wherever it was left, to its end: a model folder with its card."""
    import math
    import shutil
    from functools import partial

    import torch
    from transformers import set_seed

    from ..evaluation.verdict import pretraining_verdict
    from ..hub.folders import finish_folder
    from ..hub.licences import licence_of_model
    from ..training.adaptation import last_evaluation
    from ..training.pretraining import PretrainingTrainer, build_model, collate_blocks
    from ..training.runs import run_metrics, tokenizer_fingerprint, weights_fingerprint
    from ..training.sharding import check_loading
    from ..training.text import TEXT_FOLDER, check_batches, check_block_size, text_blocks
    from ..utils.models import load_config, load_tokenizer
    from ..vocabulary.extension import keep_report

    set_seed(args.seed)
    name = data.tokenizer or data.model
    if data.model:
        check_loading()
        check_block_size(load_config(data.model), data.block_size)
    given = load_tokenizer(name) if name else None
    if not data.model:  # before the text is read, which may take hours
        with torch.device("meta"):
            build_model(data, given)
    blocks, tokenizer, facts = text_blocks(
        data,
        run.path,
        tokenizer=given,
        vocab_size=data.vocab_size,
        makes=args.process_index == 0 or args.save_on_each_node and args.local_process_index == 0,
    )
    model = build_model(data, tokenizer)
    base_licence = licence_of_model(data.model) if data.model else None
    run.settle(
        lambda: (
            {"text": facts["fingerprint"], "tokenizer": tokenizer_fingerprint(tokenizer)}
            | ({"model": weights_fingerprint(model)} if data.model else {})
        )
    )
    split = blocks.train_test_split(test_size=data.held_out_blocks, seed=args.seed)
    check_batches(split, args)
    trainer = PretrainingTrainer(
        model,
        args,
        data_collator=partial(collate_blocks, senses=hasattr(model, "backpack")),
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
            base_licence=base_licence,
            data={
                "sources": data.dataset or data.text_files,
                "licence": data.licence,
                **({"rows_kept": describe(data.tsv_keep)} if data.tsv_keep else {}),
                "documents": facts["documents"],
                **{kind.replace("_", " "): count for kind, count in facts["problems"].items()},
                "tokens": len(split["train"]) * data.block_size,
                "block_size": data.block_size,
                "held_out_blocks": data.held_out_blocks,
                "fingerprint": facts["fingerprint"],
                **({"continued from": data.model} if data.model else {}),
            },
            after={"perplexity": math.exp(loss) if loss < MAX_EXPONENT else None, "cross_entropy": loss},
            state=trainer.state,
        )

    start = math.log(len(tokenizer))
    run.rehearse(model, metrics(start), partial(finish_folder, to_publish=args.push_to_hub))
    trainer.card_metrics = lambda: metrics(last_evaluation(trainer.state.log_history).get("eval_loss", start))
    trainer.train(resume_from_checkpoint=run.interrupted)
    loss = trainer.evaluate()["eval_loss"]
    if not math.isfinite(loss):
        raise ValueError(
            f"The cross-entropy on held-out text is {loss}; the model is not saved. Lower `learning_rate`."
        )
    model.config.use_cache = True
    trainer.save_model(_internal_call=True)
    if trainer.is_world_process_zero():
        if data.model:
            keep_report(data.model, args.output_dir)
        run.finish(metrics(loss), finish_folder)
        shutil.rmtree(run.path / TEXT_FOLDER, ignore_errors=True)
    if args.push_to_hub:
        trainer.push_to_hub()
    if trainer.is_world_process_zero():
        print(*pretraining_verdict(loss, len(tokenizer)), run.where(), sep="\n")


def describe(keep):
    """`{"licence_class": "open"}` as a card shows it."""
    return ", ".join(f"{column} {value}" for column, value in keep.items())
