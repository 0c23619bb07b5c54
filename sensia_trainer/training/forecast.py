"""What a recipe of `sensia adapt` will take, read off the model's configuration and some pairs before anything is
loaded. The arithmetic is in `estimate.py`."""

from math import ceil, floor

import numpy as np
import torch
from transformers import AutoConfig

from modeling_backpack import BackpackConfig

from ..bitext.counting import count_pairs, some_pairs
from ..bitext.pairs import names_languages, parse_sources
from ..bitext.several import language_pairs
from ..bitext.sources import names_in
from ..config import METHODS_WITHOUT_SENSES
from ..languages import other_language
from ..utils.models import load_tokenizer
from ..utils.recipes import find_model
from ..vocabulary.extension import words_added
from .adaptation import base_model, some_texts
from .batches import SIDES, longest_lengths
from .estimate import (
    GPUS,
    SHARE_OF_CPU,
    SHARE_OF_GPU,
    Trained,
    blocks_batch,
    fewest_processes,
    induction_head_products,
    is_chunked,
    low_rank_updates,
    matrix_product_rate,
    pairs_at_once,
    parameters,
    sizes_of,
    step_batch,
    trained_parameters,
    training_memory,
    training_operations,
)
from .inputs import NO_LIMIT, RATIOS, check_tokens
from .sampling import rows_per_epoch
from .settings import INDUCED_BLOCKS, INDUCED_LENGTH, InductionConfig


SEEN_PAIRS = 1000  # whose tokens are counted
GIGA = 2**30


def forecast(data, words, parts, args, rate: float | None = None) -> str:
    """
    Steps, tokens, operations, memory and hours of an adaptation, here and on common GPUs, as printed.

    Args:
        data ([`AdaptationData`]), words ([`VocabularySettings`]), parts ([`TrainedParts`]): The recipe,
        args ([`SensiaConfig`]): and its numbers.
        rate (`float`, *optional*): Operations a second of matrix products here; measured by default, for a second.
    """
    bitexts, place = _bitexts(data, args), base_model(data)
    counts = {languages: [_taken(one, languages) for one in sources] for languages, sources in bitexts.items()}
    pairs = None
    if not any(None in numbers for numbers in counts.values()):
        pairs = sum(_trained_on(counts, data))
    config = _with_senses(AutoConfig.from_pretrained(find_model(place)), data)
    sizes = sizes_of(config)
    sizes = sizes._replace(vocabulary=sizes.vocabulary + words.vocabulary_size)
    tokenizer = load_tokenizer(data.tokenizer or place)
    tokens = some_lengths(bitexts, tokenizer, args.max_length)
    lengths = tuple(tokens.mean(axis=1))
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or NO_LIMIT
    texts = _texts(data, args, next(iter(bitexts)), tokenizer, positions)
    check_tokens(sum(lengths), texts)
    texts = list(texts.values())
    batch_size = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    if args.max_steps > 0:
        steps = args.max_steps
    elif pairs is None:
        raise ValueError("`max_steps` is not set, and how many pairs a data set of the Hub has is not known; set it.")
    else:
        steps = _steps(_epoch(counts, data, args, batch_size), args)

    trained = _trained(parts, bool(words.vocabulary_size or words_added(place)), sizes)
    step = step_batch(lengths, batch_size, sizes.vocabulary, args, texts)
    operations = steps * training_operations(sizes, step, chunked=is_chunked(args), trained=trained)
    longest = longest_lengths(*tokens, args.train_sampling_strategy)
    computed = step_batch(longest, pairs_at_once(args), sizes.vocabulary, args, texts)
    memory = training_memory(sizes, computed, half=args.bf16 or args.fp16, trained=trained)

    rate = rate or matrix_product_rate(dtype=torch.bfloat16 if args.bf16 else None)
    hours = operations / (SHARE_OF_CPU * rate) / 3600
    where = "here" if args.device.type == "cpu" else "processor"
    chosen = (
        data.bitext_keep
        or data.bitext_cap
        or any(one.keep or one.cap or one.max_pairs for sources in bitexts.values() for one in sources)
    )
    learning = trained_parameters(sizes, trained)
    learn = f"; {learning / 1e6:,.3g} M parameters are trained" if learning < parameters(sizes) else ""
    given = "unknown until they are fetched" if pairs is None else f"{pairs:,}" + (" at most" if chosen else "")
    share = batch_size * sum(number * n for number, n in texts) / step.tokens
    beside = f", {share:.0%} of them of text beside the pairs" if texts else ""
    passes = "" if not pairs else f", {steps * batch_size / pairs:.2g} passes"
    lines = [
        f"model       {place}: {parameters(sizes) / 1e6:,.3g} M parameters, {sizes.layers} layers of width "
        f"{sizes.hidden}" + (f", {sizes.senses} senses" if sizes.senses else "") + learn,
        f"pairs       {given}; {lengths[0]:.0f} + {lengths[1]:.0f} tokens each",
        f"training    {steps:,} steps of {batch_size:,} pairs{passes}; {steps * step.tokens / 1e6:,.3g} M tokens"
        f"{beside}",
        f"operations  {operations:.2g}, {operations / steps:.2g} a step",
        f"memory      {memory.total / GIGA:.3g} GB a process: {memory.states / GIGA:.3g} of weights, gradients and "
        f"optimizer, {memory.activations / GIGA:.3g} of a step, beside half a GB of libraries",
        f"{where:<12}{_duration(hours)} at {SHARE_OF_CPU:.0%} of {rate / 1e9:,.0f} billion operations a second "
        f"({torch.get_num_threads()} threads)",
    ]
    if data.induce_steps and data.method not in METHODS_WITHOUT_SENSES:
        lines.append(_induction(config, data.induce_steps, rate))
    for name, (speed, room) in GPUS.items():
        found = fewest_processes(sizes, computed, room, trained=trained)
        if found is None:
            lines.append(f"{name:<12}too small, even 64 of them")
            continue
        processes, part = found
        gpu_hours = operations / (SHARE_OF_GPU * speed) / 3600
        sharded = f" on {processes} (FSDP)" if processes > 1 else ""
        lines.append(
            f"{name:<12}{_duration(gpu_hours / processes)}{sharded}, {part.total / GIGA:.3g} of {room / 1e9:.0f} GB"
        )
    lines.append(f"GPUs are taken to reach {SHARE_OF_GPU:.0%} of their data sheets, which small models do not.")
    return "\n".join(lines)


def _taken(source, languages) -> int | None:
    """The pairs that are taken of a source at most; `None` where it must be fetched to count them."""
    number = count_pairs(source, languages)
    return number if number is None or source.max_pairs is None else min(number, source.max_pairs)


def _trained_on(counts, data) -> list[int]:
    """Pairs that are trained on at most, of each pair of languages: those that are held out are not."""
    kept_apart = 0 if data.eval_bitext or data.eval_flores else data.held_out_pairs
    left = [max(0, sum(numbers) - kept_apart) for numbers in counts.values()]
    return [min(number, data.max_pairs or number) for number in left]


def _steps(rows: int, args) -> int:
    """Steps of `num_train_epochs` passes through so many rows, as [`~transformers.Trainer`] counts them."""
    batches = rows / (args.train_batch_size * args.world_size)
    batches = floor(batches) if args.dataloader_drop_last else ceil(batches)
    return ceil(max(1, ceil(batches / args.gradient_accumulation_steps)) * args.num_train_epochs)


def _epoch(counts, data, args, batch_size) -> int:
    """Pairs of an epoch, which of several languages ends with the first that is through."""
    sizes = _trained_on(counts, data)
    if len(sizes) == 1:
        return sizes[0]
    return sum(rows_per_epoch(sizes, args.language_temperature, 1 if args.batch_languages == "mixed" else batch_size))


def _bitexts(data, args) -> dict[tuple[str, str], list]:
    """The sources of each pair of languages, by their codes."""
    if names_languages(data.bitext):
        pairs = language_pairs(data.bitext, args.source_language)
        return {pair[:2]: parse_sources(pair.entries, data.bitext_split) for pair in pairs.values()}
    first, *others = parse_sources(data.bitext, data.bitext_split)
    target = args.target_language or other_language(
        names_in(first.place, split=first.split, name=first.config_name), args.source_language, "`bitext`"
    )
    return {(args.source_language, target): [first, *others]}


def _with_senses(config, data):
    """The configuration with the senses that `induce_steps` adds."""
    if data.method in METHODS_WITHOUT_SENSES or isinstance(config, BackpackConfig) or hasattr(config, "num_senses"):
        return config
    return BackpackConfig(
        backbone_config=config,
        residual_gate=True,
        sense_intermediate_scale=1,
        tie_word_embeddings=config.tie_word_embeddings,
    )


def _induction(config, steps: int, rate: float) -> str:
    """What `induce_steps` take before the training: the sense path alone learns."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or INDUCED_LENGTH
    sizes = sizes_of(config)
    batch = blocks_batch(INDUCED_BLOCKS, min(INDUCED_LENGTH, positions), sizes.vocabulary)
    frozen = Trained(backbone=False, words=False)
    products = induction_head_products(InductionConfig.mixture_weight)
    operations = steps * training_operations(sizes, batch, trained=frozen, head_products=products)
    return (
        f"induction   {steps:,} steps before the training; {steps * batch.tokens / 1e6:,.3g} M tokens, "
        f"{operations:.2g} operations, {_duration(operations / (SHARE_OF_CPU * rate) / 3600)} here"
    )


def _trained(parts, new_words: bool, sizes) -> Trained:
    """What [`choose_parts`] will let be trained."""
    if parts.train == "all":
        return Trained()
    senses = parts.train == "senses" or parts.lora_senses == "full"
    updates = low_rank_updates(sizes, parts.lora_r, senses=not senses) if parts.train == "lora" else 0
    return Trained(backbone=False, words=new_words, senses=senses, updates=updates)


def some_lengths(bitexts, tokenizer, limit=None) -> np.ndarray:
    """Tokens of both sides, `(2, n)`, of some pairs that are there without the network; 25 where none are."""
    tokens = []
    for languages, sources in bitexts.items():
        pairs = [pair for one in sources for pair in some_pairs(one, languages, SEEN_PAIRS) if all(pair)]
        sides = [tokenizer(list(texts), verbose=False)["input_ids"] for texts in zip(*pairs)]
        tokens += zip(*[[min(len(ids), limit or len(ids)) for ids in side] for side in sides])
    return np.array(tokens or [(25, 25)]).T


def _texts(data, args, languages, tokenizer, positions) -> dict[str, tuple[float, float]]:
    """Text beside the pairs, by side: texts for each pair, and the mean tokens of some that are there without the
    network, cut as they will be; 25 where none are."""
    limit, found = min(args.max_length or positions, positions), {}
    for side, code, name in zip(SIDES, languages, ("replay_source", "monolingual_target")):
        if getattr(data, name):
            texts = some_texts(data, name, code, SEEN_PAIRS)
            lengths = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]] if texts else [25]
            found[side] = getattr(args, RATIOS[side]), sum(lengths) / sum(max(1, ceil(n / limit)) for n in lengths)
    return found


def _duration(hours: float) -> str:
    for name, size in (("hours", 1), ("minutes", 1 / 60)):
        if hours >= size:
            return f"{hours / size:,.3g} {name}"
    return "below a minute"
