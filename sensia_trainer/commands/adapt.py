"""
Adapt an English Backpack to another language on parallel sentences.

    sensia adapt quickstart
    sensia adapt quickstart --target_language tr --output_dir outputs/tr
    sensia adapt --model MODEL --induce_steps 500 --bitext pairs.tsv --max_steps 2400 --output_dir outputs/my-model
    sensia adapt adapt_paper --num_processes 8 --config_file one_node_ddp --per_device_train_batch_size 8
    sensia adapt quickstart --estimate

Without a recipe it is the recommended one, `adapt`, which sets some defaults below, the paper's, otherwise, and
`reference` is the published code. Every field can be overridden, arguments of `accelerate launch` pass through, and
the same command goes on with an interrupted run from its last checkpoint. More: docs/hyperparameters.md.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from ..config import METHODS_WITHOUT_SENSES, PRESETS, SensiaConfig
from ..training.settings import AdaptationData, TrainedParts
from ..utils.arguments import recipe_parser
from ..utils.errors import UsageError
from ..utils.recipes import expand_variables, parse_recipe
from ..vocabulary.settings import VocabularySettings


# What runs may be told to, and the packages of which one is needed.
TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
TRACKERS |= {"mlflow": ("mlflow",)}


def parser():
    return recipe_parser(
        (AdaptationData, VocabularySettings, TrainedParts, SensiaConfig), prog="sensia adapt", description=__doc__
    )


def main(argv):
    data, words, parts, args = parse_recipe(parser(), argv, presets=PRESETS, default="adapt")

    from ..training.pushing import push_again
    from ..training.runs import run_folder, warn_of_one_process

    warn_of_one_process(args)
    check_together(data, words, parts, args)
    if data.estimate:
        return estimate(data, words, parts, args)
    with run_folder(args, data=data, vocabulary=words, parts=parts) as run:
        if run.finished:
            run.say_finished()
            push_again(args)
        else:
            adapt(run, data, words, parts, args)


def check_together(data, words, parts, args):
    """What does not go together, or is not installed, before anything is read: an induction or the learning of words
    may take hours."""
    from ..bitext.pairs import names_languages
    from ..training.adaptation import base_model
    from ..training.inputs import check_sides
    from ..vocabulary.translation import read_dictionary

    sides = {"source": data.replay_source, "target": data.monolingual_target}
    check_sides([side for side, given in sides.items() if given], args)
    base_model(data)
    if words.vocabulary_dictionary:
        read_dictionary(expand_variables(words.vocabulary_dictionary))
    if words.vocabulary_languages and not names_languages(data.bitext):
        raise UsageError(
            "`vocabulary_languages` chooses among several languages, but `bitext` is of one pair, whose target gets "
            "the words: leave it out."
        )
    if parts.train == "lora" and find_spec("peft") is None:
        raise UsageError("`train` is 'lora', for which peft is not installed: `pip install peft`.")
    for tracker in args.report_to:
        if tracker in TRACKERS and not any(find_spec(package) for package in TRACKERS[tracker]):
            raise UsageError(
                f"`report_to` names {tracker!r}, which is not installed: `pip install {TRACKERS[tracker][0]}`."
            )


def estimate(data, words, parts, args):
    """Print what the recipe would take; several processes are those of one machine, and the first one speaks."""
    from ..training.forecast import forecast

    if args.process_index == 0:
        print(forecast(data, words, parts, args))


def adapt(run, data, words, parts, args):
    """Bring the run, wherever it was left, to its end: a model folder with its card. What it takes to import comes
    late, so that `--help` comes fast."""
    from dataclasses import asdict
    from functools import partial

    from transformers import set_seed

    from ..baselines import DenseTrainer
    from ..bitext.pairs import held_out_name
    from ..bitext.several import facts_of_all, languages_of, sentences_of
    from ..hub.folders import finish_folder
    from ..hub.licences import licence_of_model
    from ..trainer import SensiaTrainer
    from ..training.adaptation import (
        base_model,
        check_control,
        induction_of,
        last_evaluation,
        load_bitext,
        load_texts,
        read_control,
        source_fluency,
        texts_fingerprint,
    )
    from ..training.best_model import check_measured
    from ..training.by_pair import by_pair, closing_table, closing_words, draw_dynamics, mean_of_pairs, names_of
    from ..training.inputs import check_a_batch, check_a_batch_of_each
    from ..training.parts import choose_parts, merge_updates
    from ..training.runs import run_metrics, tokenizer_fingerprint, weights_fingerprint
    from ..utils.models import load_model, load_tokenizer
    from ..vocabulary.extension import keep_report, with_earlier_words, with_votes, words_added
    from ..vocabulary.section import vocabulary_figure
    from ..vocabulary.tokenizer import continuable_state
    from ..vocabulary.translation import read_dictionary
    from .induce import induced

    base, control = base_model(data), read_control(data.control)
    base_licence = licence_of_model(base)
    has_senses = data.method not in METHODS_WITHOUT_SENSES
    set_seed(args.seed)
    with args.main_process_first(desc="reading the bitext"):
        train, held_out, facts = load_bitext(data, args)
        # Before senses are induced, which may take hours.
        if isinstance(train, dict):
            check_a_batch_of_each(train, args)
        else:
            check_a_batch(len(train), args)
        facts_of, facts = (facts, facts_of_all(facts)) if isinstance(train, dict) else ({}, facts)
        texts, beside = load_texts(data, args, held_out)
    check_control(data.control, facts)
    if facts_of and words.vocabulary_dictionary:
        raise ValueError(
            "`vocabulary_dictionary` is of one pair of languages, but `bitext` names several; leave it out, or give "
            "the words before (`sensia vocabulary`), a language at a time."
        )
    begun = base
    if words.vocabulary_size:
        continuable_state(load_tokenizer(data.tokenizer or base))
        if words.vocabulary_dictionary:  # before hours of inducing
            read_dictionary(expand_variables(words.vocabulary_dictionary))
    if data.induce_steps and has_senses:
        sentences = sentences_of(train, args.source_language)
        folder, steps = run.path / "induced", data.induce_steps
        taken = {"steps": steps, "tokenizer": data.tokenizer, "licence": data.licence}
        begun = induced(folder, base, sentences, args, **taken, sense_intermediate_scale=1)
    model = load_model(begun)
    if args.bf16 and args.device.type == "cpu":
        model.set_attn_implementation("eager")  # the CPU's fused kernel takes three times as long in bfloat16
    tokenizer = load_tokenizer(data.tokenizer or begun, model)
    run.settle(
        lambda: {
            "training pairs": facts["fingerprint"],
            "held-out pairs": facts["held_out_fingerprint"],
            "base model": weights_fingerprint(model),
            "tokenizer": tokenizer_fingerprint(tokenizer),
            **({"pairs of languages": ", ".join(train)} if facts_of else {}),
            **{f"text of the {side}": texts_fingerprint(part) for side, part in texts.items()},
        }
    )
    vocabulary, new, given = None, words_added(base), {}
    if words.vocabulary_size:
        given = run.once("given", lambda: source_fluency(model, tokenizer, held_out, args))
        tokenizer, vocabulary = new_words(run, words, args, model, tokenizer, train)
        vocabulary = with_earlier_words(vocabulary, base)
        first = vocabulary["first_token"]
        new = range(new.start if new else first, first + vocabulary["new_tokens"])
    set_seed(args.seed)  # the first updates are the same whether senses were induced in this process or before
    choose_parts(model, parts, new)
    trainer = (SensiaTrainer if has_senses else DenseTrainer)(
        model,
        args,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
        texts=texts,
    )
    facts |= beside
    for name, fact in beside.items():
        kinds = ("in other languages", "in evaluation sets", "in held-out pairs")
        left_out = {kind: fact[kind] for kind in kinds if fact.get(kind)}
        if left_out:
            print(
                f"{name}: left out are " + ", ".join(f"{number:,} texts {kind}" for kind, number in left_out.items())
            )
    facts["truncated pairs"] = trainer.truncated_pairs
    if trainer.truncated_pairs:
        print(
            f"{trainer.truncated_pairs} of {facts['pairs']} pairs were cut at `max_length` or at the model's positions"
        )

    def metrics(before, after, trained=None):
        """What `metrics.json` holds; in the end (of the whole model), and in the rehearsal of the card before the
        first step."""
        before, after = ({key.split("_", 1)[1]: value for key, value in part.items()} for part in (before, after))
        after |= {name: value for name, value in before.items() if "random_" in name}
        shown, names = {}, trainer.pairs
        if given_senses := induction_of(begun):
            shown["induced"] = given_senses
        if names:
            before, after = by_pair(before, names), by_pair(after, names)
            shown["by_pair"] = {n: {"before": before[n], "after": after[n], "data": facts_of[n]} for n in names}
            before, after = mean_of_pairs(before), mean_of_pairs(after)
        if vocabulary:
            shown["vocabulary"] = with_votes(vocabulary, trained, tokenizer, "after") if trained else vocabulary
        return run_metrics(
            args,
            kind="adaptation" if has_senses else "baseline",
            model=trainer.accelerator.unwrap_model(trainer.model),
            base_model=base,
            base_licence=base_licence,
            languages=languages_of(names, args.source_language) if names else args.languages,
            data=facts,
            method={"method": data.method} | (asdict(parts) if parts.train != "all" else {}),
            before=before,
            after=after,
            control=control,
            evaluation=held_out_name(data),
            state=trainer.state,
            **shown,
        )

    before = run.once(
        "before", lambda: trainer.evaluate(metric_key_prefix="before") | trainer.random_weights_recall("before")
    )
    check_measured(args, before, "before_")
    before |= given
    run.rehearse(
        trainer.model, metrics(before, before, trainer.model), partial(finish_folder, to_publish=args.push_to_hub)
    )
    trainer.card_metrics = lambda: metrics(before, last_evaluation(trainer.state.log_history) or before)
    trainer.train(resume_from_checkpoint=run.interrupted)
    merge_updates(trainer.accelerator.unwrap_model(trainer.model))
    logged = len(trainer.state.log_history)
    after = trainer.evaluate()
    if args.load_best_model_at_end and (best := trainer.state.best_global_step):
        # Its evaluation stands at its own step already; the drift is that of its senses.
        drifts = trainer.phase_callback.drifts() if has_senses else {}
        trainer.state.log_history[logged:] = [{"step": best} | drifts]
    trainer.save_model(_internal_call=True)
    trained = trainer.whole_model()  # of which all processes have a part

    if trainer.is_world_process_zero():
        measured = metrics(before, after, trained)
        draw_dynamics(measured, f"{args.output_dir}/training_dynamics")
        if vocabulary:
            vocabulary_figure(vocabulary, f"{args.output_dir}/vocabulary", languages=names_of(measured["languages"]))
        else:
            keep_report(base, args.output_dir)
        run.finish(measured, finish_folder)
    if args.push_to_hub:
        trainer.push_to_hub(commit_message=f"{data.method} of {base}")
    if trainer.is_world_process_zero():
        print(closing_table(measured), *closing_words(measured), sep="\n")
        print(run.where())


def new_words(run, words, args, model, tokenizer, pairs):
    """
    Give `model` new words, before it has taken a step: learned once, by the first process, and kept in the run's
    folder; runs with one `vocabulary_cache` that would learn the same share them. Of several languages, one after the
    other gets its share of the words.

    Returns:
        The continued tokenizer and what is known of it (`dict`): a report, or one of each language under
        `languages`.
    """
    from ..training.runs import on_first_process, tokenizer_fingerprint
    from ..utils.files import fingerprint
    from ..utils.models import rows_needed
    from ..vocabulary.extension import (
        apply_extension,
        learn_extension,
        learned_before,
        load_extension,
        save_extension,
        with_votes,
    )
    from ..vocabulary.several import plan
    from ..vocabulary.transfer import check_model

    def extended(name, tokenizer, pairs, settings):
        folder = run.path / name

        def learn():
            check_model(model, rows_needed(tokenizer))

            def made():
                return learn_extension(tokenizer, pairs, **settings, progress=not args.disable_tqdm)

            if words.vocabulary_cache:
                dictionary = settings["dictionary"]
                read = [tokenizer_fingerprint(tokenizer), run.settings["contents"]["training pairs"]]
                read += [dictionary and hashlib.sha256(Path(dictionary).read_bytes()).hexdigest()]
                key = fingerprint([read, settings | {"dictionary": None}])[:16]
                extension = learned_before(Path(expand_variables(words.vocabulary_cache)) / key, made)
            else:
                extension = made()
            save_extension(extension, folder)
            return {"new_tokens": extension.report["new_tokens"]}

        run.once(f"{name}-learned", lambda: on_first_process(learn))
        extension = load_extension(folder)
        apply_extension(model, extension)
        return extension.tokenizer, with_votes(extension.report, model, extension.tokenizer, "before")

    if not isinstance(pairs, dict):
        settings = words.arguments((args.source_language, args.target_language), args.seed)
        return extended("vocabulary", tokenizer, pairs, settings)
    reports, left = {}, words.vocabulary_size
    shares = plan(pairs, args.source_language, words.vocabulary_languages)
    for number, (code, share) in enumerate(shares.items()):
        settings = words.arguments((share.source, code), args.seed)
        settings |= {"size": left // (len(shares) - number), "protected": share.protected}
        tokenizer, reports[code] = extended(f"vocabulary-{code}", tokenizer, share.pairs, settings)
        left -= reports[code]["new_tokens"]
    first, *_ = reports.values()
    known = {"first_token": first["first_token"], "new_tokens": sum(one["new_tokens"] for one in reports.values())}
    return tokenizer, known | {"languages": reports}
