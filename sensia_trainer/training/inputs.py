"""What a trainer on parallel sentences reads: its bitext tokenized, and the collator of its batches."""

import numpy as np
import pyarrow.compute as pc
from datasets import concatenate_datasets
from transformers.utils import logging

from ..bitext.columns import column, sides
from ..bitext.tokens import tokenize_bitext, tokenize_texts
from ..languages import other_language
from ..schedule import PHASES
from .batches import SIDES, PairCollator, Texts
from .sampling import rows_per_epoch


logger = logging.get_logger(__name__)

RATIOS = {"source": "replay_ratio", "target": "monolingual_ratio"}
NO_LIMIT = 2**31 - 1  # tokens of a sentence, for models of any number of positions


def training_inputs(dataset, texts, tokenizer, args, *, positions, share_rows):
    """
    Args:
        dataset (`datasets.Dataset` or `dict` of them, *optional*): Bitext with a column `translation`; several by
            the name of their pair of languages (`en-id`).
        texts (`dict[str, datasets.Dataset]`): Text beside the pairs with a column `text`, by side.
        tokenizer: The model's.
        args ([`SensiaConfig`]): `target_language` is set where it is not and can be told.
        positions (`int`, *optional*): Positions of the model, where it has a limit.
        share_rows (`bool`): See [`batches.pack`].

    Returns:
        The tokenized bitext, or `None`, and the [`batches.PairCollator`]. Of several, one after the other, with a
        column `pair`, the number of the pair of languages.

    Raises:
        `ValueError`: for a bitext without pairs or one of the languages, or of less than one batch, and for text
            beside the pairs that would not be learned from.
    """
    collator = PairCollator(
        end_token_id=tokenizer.eos_token_id if args.predict_end else None,
        lm_sides=SIDES if args.source_lm_weight > 0 else ("target",),
        share_rows=share_rows,
    )
    if dataset is None:
        return None, collator
    if args.predict_end and tokenizer.eos_token_id is None:
        logger.warning(
            "The tokenizer has no end-of-text token, so that `predict_end` does nothing: what the model writes will "
            "not end. Give the tokenizer one (`eos_token`), or set `predict_end` to false."
        )
    if not share_rows and args.train_sampling_strategy == "random":
        logger.warning(
            "Sentences have rows of their own with this backbone, and `train_sampling_strategy` is 'random': each is "
            "padded to the longest of its batch. 'group_by_length' computes a fraction of that."
        )
    if not isinstance(dataset, dict):
        args.target_language = args.target_language or other_language(
            sides(dataset) if len(dataset) else [], args.source_language, "the bitext"
        )
    # One position is the end token's, which is predicted.
    limits = [args.max_length, None if positions is None else positions - int(args.predict_end)]
    limit = min((limit for limit in limits if limit is not None), default=NO_LIMIT)
    with args.main_process_first(desc="tokenizing the bitext"):
        if isinstance(dataset, dict):
            tokenized = _tokenize_several(dataset, tokenizer, limit, args)
        else:
            languages = args.source_language, args.target_language
            tokenized = tokenize_bitext(dataset, tokenizer, *languages, max_length=limit)
            check_a_batch(len(tokenized), args)
        pairs = 1 + pc.max(tokenized.data["row"]).as_py()
        check_sides(texts, args)
        for side in filter(texts.__contains__, SIDES):
            pieces = tokenize_texts(texts[side], tokenizer, limit).shuffle(seed=args.seed)
            collator.texts[side] = Texts(pieces, getattr(args, RATIOS[side]), pairs)
    of_pair = sum(pc.mean(pc.list_value_length(tokenized.data[f"{side}_ids"])).as_py() for side in SIDES)
    check_tokens(of_pair, {side: (one.per_pair, one.tokens) for side, one in collator.texts.items()})
    return tokenized, collator


def _tokenize_several(datasets, tokenizer, limit, args):
    """The pairs of all languages behind each other; `row` counts on from one pair of languages to the next."""
    parts, before = [], 0
    for number, (name, dataset) in enumerate(datasets.items()):
        part = tokenize_bitext(dataset, tokenizer, *name.split("-"), max_length=limit)
        check_a_batch_of_each({name: part}, args)
        rows = column(part, "row").to_numpy() + before
        part = part.remove_columns("row").add_column("row", rows).add_column("pair", np.full(len(part), number))
        parts.append(part)
        before += len(dataset)
    if args.batch_languages == "mixed":
        check_a_batch(sum(rows_per_epoch(list(map(len, parts)), args.language_temperature)), args)
    return concatenate_datasets(parts)


def check_sides(sides, args):
    """
    Args:
        sides: Those that there is text of beside the pairs, `"source"` and `"target"`.
        args ([`SensiaConfig`]): What it is to be learned by.

    Raises:
        `ValueError`: for text that would not be learned from, or would starve the pairs.
    """
    if set(sides) - set(SIDES):
        raise ValueError(f"`texts` has {sorted(sides)}, but its keys are {sorted(SIDES)}.")
    if "source" in sides and args.source_lm_weight == 0:
        raise ValueError(
            "Text of the source language is given (`replay_source`), but `source_lm_weight` is 0, so that nothing "
            "would be learned from it; set it, to 1 for the weight of the target's."
        )
    schedule = args.schedule
    if sides and not any(weights[2] for weights in (getattr(schedule, f"{phase}_weights") for phase in PHASES)):
        raise ValueError(
            "Text beside the pairs is given (`replay_source`, `monolingual_target`), but the language-model loss has "
            "no weight (`w_lm`), so that nothing would be learned from it; set it, or leave the text out."
        )
    if len(sides) == 2 and args.replay_ratio + args.monolingual_ratio > 1:
        raise ValueError(
            f"`replay_ratio` is {args.replay_ratio} and `monolingual_ratio` {args.monolingual_ratio}: together they "
            "are more texts than pairs, which would starve the pairs; lower them to 1 together."
        )
    if sides and args.dataloader_persistent_workers:
        raise ValueError(
            "`dataloader_persistent_workers` is true, but workers that outlive an epoch would take the same text in "
            "the next; set it to false."
        )


def check_tokens(of_pair, texts):
    """
    Args:
        of_pair (`float`): Mean tokens of both sides of a pair.
        texts (`dict[str, tuple[float, float]]`): Text beside the pairs, by side: texts for each pair, and mean tokens
            of one.

    Raises:
        `ValueError`: for text that would starve the pairs.
    """
    of_text = sum(number * tokens for number, tokens in texts.values())
    if of_text > of_pair:
        share = 0.95 * of_pair / of_text  # less than needed, as it is rounded
        lower = " and ".join(f"`{RATIOS[side]}` to {number * share:.2g}" for side, (number, _) in texts.items())
        raise ValueError(
            f"Beside each pair of {of_pair:,.0f} tokens there would be {of_text:,.0f} tokens of text, which would "
            f"starve the pairs. Lower {lower}, or cut the texts shorter (`max_length`, or a sentence a line)."
        )


def check_source(args, model):
    """
    Raises:
        `ValueError`: for a weight of the source language of which nothing is learned, since nothing is trained.
    """
    if args.source_lm_weight == 0:
        return
    weight = f"`source_lm_weight` is {args.source_lm_weight:g}"
    frozen = f"{weight}, but the vocabulary of the model is frozen (embeddings and head)"
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{frozen}, and all the rest of it: let some of it be trained (`train`), or set it to 0.")
    words = (model.get_input_embeddings(), model.get_output_embeddings())
    if not any(part.weight.requires_grad for part in words if part is not None):
        logger.warning(
            f"{frozen}: its words stay as they are, and what else is trained (`train`) is held to the source language."
        )


def check_a_batch_of_each(datasets, args):
    """
    Raises:
        `ValueError`: for one of several bitexts, `{languages: pairs}`, that would be met again within a batch.
    """
    batch = args.train_batch_size * args.world_size
    for name, pairs in datasets.items():
        if len(pairs) < batch:
            raise ValueError(
                f"The bitext of {name} has {len(pairs)} pairs, less than one batch of {batch} "
                "(`per_device_train_batch_size` on all processes), so that it would be met again within the batch. "
                f"Lower `per_device_train_batch_size`, add pairs of {name}, or leave it out."
            )


def check_a_batch(pairs, args):
    """`ValueError` for so few pairs that there is no batch, or that one is left with a pair alone, which has no
    negative."""
    if args.dataloader_drop_last and pairs < args.train_batch_size * args.world_size:
        raise ValueError(
            f"The bitext has {pairs} pairs, less than one batch: `per_device_train_batch_size` is "
            f"{args.per_device_train_batch_size} on {args.world_size} processes, and `dataloader_drop_last` leaves "
            "out what does not fill a batch. Lower `per_device_train_batch_size`, or add pairs."
        )
    aligns = args.w_sense != 0 or args.w_context != 0
    if aligns and not args.dataloader_drop_last and args.world_size == 1 and pairs % args.train_batch_size == 1:
        raise ValueError(
            f"Of {pairs} pairs in batches of {args.train_batch_size}, the last batch has one alone, which has no "
            "negative. Set `dataloader_drop_last` to true, or choose another `per_device_train_batch_size`."
        )
