"""
Give a pretrained language model senses, beginning with the predictions it makes: a gated sense path beside its state.

    sensia induce MODEL --text_files english.txt --output_dir outputs/induced
    sensia induce induce_smollm2

Every field can be overridden on the command line; arguments of `accelerate launch` pass through to it. A run that was
interrupted goes on from its last checkpoint. `sensia adapt --model outputs/induced` adapts it then.
"""

from pathlib import Path

from ..training.best_model import check_measured
from ..training.settings import INDUCED_BLOCKS, INDUCED_LENGTH, INDUCED_RATE, InductionConfig, InductionData
from ..utils.arguments import recipe_parser
from ..utils.recipes import RECIPES, parse_recipe


def parser():
    return recipe_parser((InductionData, InductionConfig), prog="sensia induce", description=__doc__)


def main(argv=None):
    data, args = parse_recipe(parser(), with_model_first(list(argv or [])))

    from ..training.pushing import push_again
    from ..training.runs import run_folder, warn_of_one_process

    warn_of_one_process(args)
    with run_folder(args, data=data) as run:
        if run.finished:
            run.say_finished()
            push_again(args)
        else:
            induce(run, data, args)


def with_model_first(argv: list[str]) -> list[str]:
    """`MODEL --field value` as `--model MODEL --field value`; the first argument may be a recipe instead."""
    if not argv or argv[0].startswith("-") or argv[0].endswith(".yaml") or (RECIPES / f"{argv[0]}.yaml").is_file():
        return argv
    return ["--model", *argv]


def induced(folder, model, sentences, args, *, steps, tokenizer=None, licence=None, **config_kwargs):
    """
    The folder of `model` with senses that some sentences gave it, made the first time it is asked for.

    Args:
        folder (`Path`): Where it is, or is made.
        model (`str`): Language model without senses, Hub id or folder.
        sentences (`Iterable[str]`): Text of the language it knows.
        args ([`SensiaConfig`]): Of the adaptation that follows: its device, precision, seed and languages.
        steps (`int`): Steps of [`INDUCED_BLOCKS`] blocks of [`INDUCED_LENGTH`] tokens, or of the model's positions
            where they are fewer, at [`INDUCED_RATE`].
        tokenizer (`str`, *optional*): That of the model by default.
        licence (`str`, *optional*): Of the text.
        config_kwargs: Fields of `BackpackConfig`.
    """
    from ..training.runs import on_first_process, run_folder, weights_fingerprint
    from ..training.text import TooLittleText
    from ..utils.files import fingerprint, read_json, write_json, write_text
    from ..utils.models import load_config, load_model

    positions = getattr(load_config(model).get_text_config(), "max_position_embeddings", None)
    text, facts = (folder.with_name(f"{folder.name}{suffix}") for suffix in (".txt", ".json"))

    def prepare():
        content = "\n".join(sentences) + "\n"
        weights = weights_fingerprint(load_model(model))
        made_of = {"model": Path(model).resolve().name, "text": fingerprint(content), "number of steps": steps}
        made_of["weights"] = weights  # models of many owners, and checkpoints of many runs, have one name
        if not facts.is_file():
            write_text(text, content)
            write_json(facts, made_of)
        found = read_json(facts)
        compared = made_of if "weights" not in found else made_of | {"model": found["model"]}  # wherever it lies now
        if changed := [name for name, value in compared.items() if found.get(name, value) != value]:
            raise ValueError(
                f"{str(folder)!r} has, or was getting, senses from another {' and '.join(changed)} than this run "
                f"({found['model']}, {found['number of steps']} steps): name another `output_dir`, or "
                f"remove {folder}* to begin anew."
            )

    class InducedText(InductionData):
        NAMED = ()  # all that it names was compared just now, wherever it lies

    on_first_process(prepare)
    data = InducedText(
        model=str(model),
        tokenizer=tokenizer,
        text_files=[str(text)],
        language=args.source_language,
        licence=licence,
        block_size=min(INDUCED_LENGTH, positions or INDUCED_LENGTH),
        held_out_blocks=8,
        backpack_config=config_kwargs,
    )
    shared = ("use_cpu", "seed", "bf16", "fp16", "disable_tqdm", "save_total_limit")
    settings = InductionConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=INDUCED_BLOCKS,
        learning_rate=INDUCED_RATE,
        save_steps=100,
        logging_steps=20,
        report_to="none",  # a tracker takes one run a process, and that is the adaptation's
        **{name: getattr(args, name) for name in shared},
    )
    with run_folder(settings, data=data) as run:
        if not run.finished:
            try:
                induce(run, data, settings)
            except TooLittleText as error:
                raise ValueError(
                    f"`induce_steps` is {steps}, but the source sides of `bitext` do not fill {data.held_out_blocks} "
                    f"blocks of {data.block_size} tokens to measure on and one to train on. Give more pairs, or "
                    f"induce with more text (`sensia induce {model} --text_files ...`) and adapt what that gives."
                ) from error
    on_first_process(lambda: None)  # which saves it after the others are through
    return str(folder)


def induce(run, data, args):
    """Bring the run, wherever it was left, to its end: a model folder with its card."""
    import shutil
    from functools import partial

    from transformers import set_seed

    from ..evaluation.dynamics import induction_dynamics
    from ..evaluation.verdict import induction_verdict
    from ..hub.folders import finish_folder
    from ..hub.licences import licence_of_model
    from ..induction import SHOWN_AMONG, InductionTrainer, part_for_gate, sense_words, with_senses
    from ..training.adaptation import last_evaluation
    from ..training.runs import run_metrics, tokenizer_fingerprint, weights_fingerprint
    from ..training.sharding import check_loading
    from ..training.text import TEXT_FOLDER, check_batches, check_block_size, frequent_tokens, text_blocks
    from ..utils.models import load_tokenizer
    from ..vocabulary.extension import keep_report

    set_seed(args.seed)
    check_loading()
    model, base_licence = with_senses(data.model, **data.backpack_config), licence_of_model(data.model)
    check_block_size(model.config, data.block_size)
    blocks, tokenizer, facts = text_blocks(
        data,
        run.path,
        tokenizer=load_tokenizer(data.tokenizer or data.model, model),
        makes=args.process_index == 0 or args.save_on_each_node and args.local_process_index == 0,
    )
    run.settle(
        lambda: {
            "text": facts["fingerprint"],
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "model": weights_fingerprint(model),
        }
    )
    frequent = frequent_tokens(blocks, SHOWN_AMONG).to(args.device)
    split = blocks.train_test_split(test_size=data.held_out_blocks, seed=args.seed)
    # What a gate is opened beside, the language model, changes where parts of it are trained.
    opens = args.open_gate and not args.base_parts_trained
    trained_on, for_gate = part_for_gate(split["train"]) if opens else (split["train"], None)
    check_batches({"train": trained_on}, args)
    trainer = InductionTrainer(
        model, args, train_dataset=trained_on, eval_dataset=split["test"], processing_class=tokenizer
    )

    def metrics(before, after, spoken=None):
        """What `metrics.json` holds; in the end, and in the rehearsal of the card before the first step."""
        return run_metrics(
            args,
            kind="induction",
            model=model,
            base_model=data.model,
            base_licence=base_licence,
            languages={"source": data.language},
            data={
                "sources": data.dataset or data.text_files,
                "licence": data.licence,
                "documents": facts["documents"],
                **{kind.replace("_", " "): count for kind, count in facts["problems"].items()},
                "tokens": len(trained_on) * data.block_size,
                "block_size": data.block_size,
                "held_out_blocks": data.held_out_blocks,
                **({"gate_blocks": len(for_gate)} if for_gate else {}),
                "fingerprint": facts["fingerprint"],
            },
            before={name.removeprefix("before_"): value for name, value in before.items()},
            after={name.removeprefix("eval_"): value for name, value in after.items()},
            sense_words=spoken,
            state=trainer.state,
        )

    before = run.once("before", lambda: trainer.evaluate(metric_key_prefix="before"))
    check_measured(args, before, "before_")
    trainer.remember_base(before, "before_")
    spoken = sense_words(trainer.whole_model(), tokenizer, frequent)
    run.rehearse(model, metrics(before, before, spoken), partial(finish_folder, to_publish=args.push_to_hub))
    trainer.card_metrics = lambda: metrics(before, last_evaluation(trainer.state.log_history) or before)
    trainer.train(resume_from_checkpoint=run.interrupted)
    left = {}  # what the model is at the gate that training left, which opening it costs or gains
    if opens:
        measured = trainer.evaluate(metric_key_prefix="trained")
        left = {name: measured[name] for name in ("trained_gate", "trained_perplexity", "trained_contribution")}
        trainer.open_gate(for_gate)
    after = trainer.evaluate() | left
    trainer.save_model(_internal_call=True)
    spoken = sense_words(trainer.whole_model(), tokenizer, frequent)
    if trainer.is_world_process_zero():
        induction_dynamics(trainer.state.log_history, f"{args.output_dir}/training_dynamics")
        keep_report(data.model, args.output_dir)
        run.finish(metrics(before, after, spoken), finish_folder)
        shutil.rmtree(run.path / TEXT_FOLDER, ignore_errors=True)
        after = {name.removeprefix("eval_"): value for name, value in after.items()}
        print(*induction_verdict(after), sep="\n")
        print(run.where())
    if args.push_to_hub:
        trainer.push_to_hub()
