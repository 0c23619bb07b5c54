"""
Adapt an English Backpack to another language on parallel sentences.

    sensia adapt quickstart
    sensia adapt quickstart --target_language tr --output_dir outputs/tr
    sensia adapt adapt_paper --num_processes 8 --config_file one_node_ddp

Every field of the recipe can be overridden on the command line; arguments of `accelerate launch` pass through to it. A
run that was interrupted goes on from its last checkpoint when the same command is given again.
"""

from ..config import METHODS, METHODS_WITHOUT_SENSES, SensiaConfig
from ..training.adaptation import AdaptationData
from ..training.lora import LoraSettings
from ..utils.arguments import recipe_parser
from ..utils.recipes import parse_recipe


def parser():
    return recipe_parser((AdaptationData, LoraSettings, SensiaConfig), prog="sensia adapt", description=__doc__)


def main(argv):
    adapt(*parse_recipe(parser(), argv, presets={"method": METHODS}))


def adapt(data, lora, args):
    """Train, measure before and after, and leave a model folder with its card. What it takes to import comes late, so
    that `--help` comes fast."""
    from dataclasses import asdict

    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    import modeling_backpack  # noqa: F401 (registers the model with the Auto classes)

    from ..baselines import DenseTrainer
    from ..evaluation.dynamics import training_dynamics
    from ..hub.model_card import write_card
    from ..languages import language
    from ..trainer import SensiaTrainer
    from ..training.adaptation import base_model, evaluations, held_out_name, load_pairs, read_control, summary
    from ..training.lora import add_lora, merge_lora
    from ..training.memory import keep_freed_memory
    from ..training.runs import keep_once, prepare_output_dir, write_run

    base, has_senses = base_model(data), data.method not in METHODS_WITHOUT_SENSES
    set_seed(args.seed)
    keep_freed_memory()
    with args.main_process_first(desc="reading the bitext"):
        train, held_out, facts = load_pairs(data, args)
    checkpoint = prepare_output_dir(args, data=data, lora=lora)

    trainer = (SensiaTrainer if has_senses else DenseTrainer)(
        add_lora(AutoModelForCausalLM.from_pretrained(base, dtype="float32"), lora),
        args,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    facts["truncated pairs"] = trainer.truncated_pairs
    if trainer.truncated_pairs:
        print(f"{trainer.truncated_pairs} of {len(train)} pairs were cut at `max_length` or at the model's positions")
    before = keep_once(
        args,
        "before",
        lambda: trainer.evaluate(metric_key_prefix="before") | trainer.random_weights_recall("before"),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.model = merge_lora(trainer.model)
    after = trainer.evaluate()
    trainer.save_model()

    if trainer.is_world_process_zero():
        before, after = ({k.split("_", 1)[1]: v for k, v in metrics.items()} for metrics in (before, after))
        after |= {name: value for name, value in before.items() if name.startswith("random_")}
        history = evaluations(trainer.state.log_history)
        starts = [round(boundary * trainer.state.max_steps) for boundary in args.schedule.boundaries]
        training_dynamics(
            [{"step": 0} | before, *history],
            f"{args.output_dir}/training_dynamics",
            phase_starts=starts,
            languages=[language(code).name for code in (args.source_language, args.target_language)],
        )
        write_run(
            args,
            kind="adaptation" if has_senses else "baseline",
            model=trainer.accelerator.unwrap_model(trainer.model),
            base_model=base,
            languages={"source": args.source_language, "target": args.target_language},
            data=facts,
            method={"method": data.method} | (asdict(lora) if lora.use_peft else {}),
            before=before,
            after=after,
            control=read_control(data.control),
            evaluation=held_out_name(data),
            state=trainer.state,
        )
        write_card(args.output_dir)
    if args.push_to_hub:
        trainer.push_to_hub(commit_message=f"{data.method} of {base}")
    if trainer.is_world_process_zero():
        print(summary(before, after, args.source_language, args.target_language))
        print(f"model folder: {args.output_dir}")
