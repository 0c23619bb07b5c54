"""From token ids to batches: the order in which pairs are read, and their sentences packed in flat rows.

A batch of B pairs holds 2B sentences, sources first (0 to B - 1) and then their translations (B to 2B - 1), and behind
them what text is trained on beside the pairs. A part of it (some pairs, one side) is a selection of its sentences
([`select`]).
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Sampler


SIDES = ("source", "target")
# Backbones (`model_type`) that tell packed texts apart by their positions, each shown by a test. Others, OPT and
# Falcon among them, do not, and say nothing.
KEEP_TEXTS_APART = ("gpt2", "gpt_neox", "llama", "qwen3")

# More make lengths within a batch more alike, and the order less random.
BATCHES_PER_GROUP = 50


class LengthGroupedSampler(Sampler[int]):
    """Rows in batches of similar length, so that little is padded; batches in random order.

    Rows are shuffled, sorted by length within groups of `batches_per_group` batches, cut into batches, and the batches
    are shuffled. The order depends on `seed` and on the epoch alone, not on the state of the random numbers: every
    process derives the same one, and a resumed run the same again.

    Args:
        lengths (`Sequence[int]`): Length of each row.
        batch_size (`int`): Rows that are processed together, over all processes.
        seed (`int`, *optional*, defaults to 0): Seed.
        batches_per_group (`int`, *optional*, defaults to `BATCHES_PER_GROUP`): Batches among which rows are sorted.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, *, seed: int = 0, batches_per_group: int = BATCHES_PER_GROUP
    ):
        self.lengths = torch.as_tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.batches_per_group = batches_per_group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Epoch whose order the next iteration gives; called by the data loader."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        shuffled = torch.randperm(len(self), generator=generator)
        batches, rest = alike_in_length(shuffled, self.lengths, self.batch_size, self.batches_per_group)
        batches = batches[torch.randperm(len(batches), generator=generator)]
        return iter(torch.cat([batches.flatten(), rest]).tolist())


def alike_in_length(rows: Tensor, lengths: Tensor, batch_size: int, batches_per_group: int) -> tuple[Tensor, Tensor]:
    """Batches of rows of similar length, `(n, batch_size)`, and the rows that do not fill another: rows are sorted by
    length within groups of `batches_per_group` batches."""
    whole, rest = rows.split([len(rows) - len(rows) % batch_size, len(rows) % batch_size])
    groups = whole.split(batch_size * batches_per_group)
    return torch.cat([group[lengths[group].argsort(stable=True)] for group in groups]).reshape(-1, batch_size), rest


def longest_lengths(source, target, sampling: str) -> tuple[float, float]:
    """
    Mean tokens of either side in the longest batch, the one that takes the most memory.

    Args:
        source (sequence of `int`, shape `(n,)`), target (the same): Tokens of the sides of each pair.
        sampling (`str`): `train_sampling_strategy`. With `"group_by_length"` the longest batch of a group has its
            longest pairs, one of `BATCHES_PER_GROUP`; other batches are all alike.
    """
    pairs = np.stack([source, target])
    if sampling == "group_by_length":
        number = max(1, pairs.shape[1] // BATCHES_PER_GROUP)
        pairs = pairs[:, pairs.sum(axis=0).argsort()[-number:]]
    return tuple(pairs.mean(axis=1).tolist())


class Texts(NamedTuple):
    """
    Text of one side that is trained on beside the pairs, some with every pair. Each pass over the bitext goes on where
    the one before ended, and behind the last text with the first: which texts a pair brings is a function of the pair
    and of the epoch alone.

    Args:
        dataset (`datasets.Dataset`): [`~bitext.tokens.tokenize_texts`]'s, in random order.
        per_pair (`float`): Texts for each pair, on average.
        pairs (`int`): Pairs of the bitext.
    """

    dataset: Any
    per_pair: float
    pairs: int

    @property
    def tokens(self) -> float:
        """Mean tokens of a text."""
        return pc.mean(pc.list_value_length(self.dataset.data["ids"])).as_py()

    def beside(self, rows: list[int], epoch: int) -> dict[str, list]:
        """`ids` and `ended` of the texts that go with these pairs."""
        places = [epoch * self.pairs + row for row in rows]
        numbers = [n for at in places for n in range(int(at * self.per_pair), int((at + 1) * self.per_pair))]
        return self.dataset[[number % len(self.dataset) for number in numbers]]


@dataclass
class PairCollator:
    """
    Rows of [`~bitext.tokens.tokenize_bitext`] as one batch of flat rows, see [`pack`].

    Args:
        end_token_id (`int`, *optional*): Label after the last token of a sentence that was not cut. It is predicted
            but never read: the last token the model sees stays the sentence's own, whose state is the context vector.
        lm_sides (`tuple[str, ...]`): Sides whose tokens are labels of the language-model loss.
        share_rows (`bool`): Whether a row may hold several sentences, see [`keeps_texts_apart`].
        texts (`dict[str, Texts]`): Text beside the pairs, by side; numbered behind the pairs' sentences.
        epoch (`int`): Passes over the bitext before this one, which `texts` depend on.

    Returns:
        What [`pack`] returns, and `sides` `(N,)` (0: source, 1: target), `rows` `(B,)`, the pairs' numbers in the
        training set, `keys` `(B, 2)`, by which sentences of a side are told apart, and `num_labels` `(2,)`, the labels
        of each side. Where the rows tell their pair of languages (`pair`), also `pairs` `(N,)`, the number of each
        sentence's; -1 for text beside the pairs.
    """

    end_token_id: int | None = None
    lm_sides: tuple[str, ...] = ("target",)
    share_rows: bool = True
    texts: dict[str, Texts] = field(default_factory=dict)
    epoch: int = 0

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        numbers = [row["row"] for row in rows]
        parts = [(s, [row[f"{s}_ids"] for row in rows], [not row[f"{s}_truncated"] for row in rows]) for s in SIDES]
        for side, texts in self.texts.items():
            beside = texts.beside(numbers, self.epoch)
            parts.append((side, beside["ids"], beside["ended"]))
        end = -100 if self.end_token_id is None else self.end_token_id
        sentences, labels, sides, counts = [], [], [], [0, 0]
        for side, part, ended in parts:
            sentences += part
            sides += [SIDES.index(side)] * len(part)
            if side in self.lm_sides:
                # A sentence does not end where it was cut.
                ends = [end if whole else -100 for whole in ended]
                labels += [[*ids[1:], last] for ids, last in zip(part, ends, strict=True)]
                counts[SIDES.index(side)] += sum(map(len, part)) - ends.count(-100)
            else:
                labels += [[-100] * len(ids) for ids in part]
        languages = {}
        if "pair" in rows[0]:
            beside = [-1] * (len(sentences) - 2 * len(rows))
            languages["pairs"] = torch.tensor([row["pair"] for row in rows] * 2 + beside)
        tokens, labels = (torch.tensor(list(chain.from_iterable(lists))) for lists in (sentences, labels))
        return pack(tokens, labels, list(map(len, sentences)), self.share_rows) | {
            "sides": torch.tensor(sides),
            "rows": torch.tensor(numbers),
            "keys": torch.tensor([[hash(tuple(row[f"{side}_ids"])) for side in SIDES] for row in rows]),
            "num_labels": torch.tensor(counts),
            **languages,
        }


def keeps_texts_apart(config) -> bool:
    """Whether texts may share a row for a backbone with this configuration. With flash attention they may not: it
    knows packed texts in a single row only."""
    return config.model_type in KEEP_TEXTS_APART and config._attn_implementation in ("sdpa", "eager")


def best_fit(lengths: list[int], width: int) -> list[tuple[int, int]]:
    """Row and offset of each text in as few rows of `width` tokens as are easily found: the longest text first, each
    in the row where the least room is left (best-fit decreasing)."""
    places, free, rows = [(0, 0)] * len(lengths), [], 0
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        at = bisect_left(free, (lengths[text], -1))
        if at < len(free):
            room, row = free.pop(at)
        else:
            room, row, rows = width, rows, rows + 1
        places[text] = row, width - room
        insort(free, (room - lengths[text], row))
    return places


def pack(tokens: Tensor, labels: Tensor, lengths: list[int], share_rows: bool = True) -> dict[str, Tensor]:
    """
    Sentences in rows. Positions start again with each sentence, by which a model that [`keeps_texts_apart`] knows,
    without `attention_mask` and cache, that it does not see the ones before.

    Args:
        tokens (`torch.LongTensor` of shape `(sum of lengths,)`): The sentences, one after the other.
        labels (`torch.LongTensor` of shape `(sum of lengths,)`): What each token is to predict; -100: nothing.
        lengths (`list[int]`): Tokens of each of the N sentences, one at least.
        share_rows (`bool`): Whether a row may hold several sentences; if not, each has a row of its own.

    Returns:
        `input_ids`, `position_ids`, `shift_labels` and `sentences` (0 to N - 1, the number of the sentence; -1 for
        padding), each `(R, W)` with W the length of the longest sentence; `lengths` `(N,)`, and `last` `(N,)`, where
        in the flattened rows the last token of each sentence is.
    """
    width = max(lengths)
    places = best_fit(lengths, width) if share_rows else [(row, 0) for row in range(len(lengths))]
    cells = (1 + max(row for row, _ in places)) * width
    starts = torch.tensor([row * width + offset for row, offset in places], device=tokens.device)
    counts = torch.tensor(lengths, device=tokens.device)
    numbers = torch.arange(len(lengths), device=tokens.device).repeat_interleave(counts, output_size=len(tokens))
    positions = torch.arange(len(tokens), device=tokens.device) - (counts.cumsum(0) - counts)[numbers]
    where = starts[numbers] + positions

    def place(values, fill):
        return values.new_full((cells,), fill).index_put_((where,), values).view(-1, width)

    return {
        "input_ids": place(tokens, 0),
        "position_ids": place(positions, 0),
        "shift_labels": place(labels, -100),
        "sentences": place(numbers, -1),
        "lengths": counts,
        "last": starts + counts - 1,
    }


def select(batch: dict[str, Tensor], sentences: Tensor, share_rows: bool = True) -> dict[str, Tensor]:
    """The part of a batch that holds these sentences (their numbers, `(M,)`), in rows of its own; `rows`, `keys`
    and `num_labels` are left to the batch."""
    counts = batch["lengths"][sentences]
    lengths = counts.tolist()
    total = sum(lengths)
    numbers = torch.arange(len(lengths), device=counts.device).repeat_interleave(counts, output_size=total)
    ends = counts.cumsum(0)
    cells = batch["last"][sentences][numbers] - (ends[numbers] - 1 - torch.arange(total, device=counts.device))
    tokens, labels = (batch[name].flatten()[cells] for name in ("input_ids", "shift_labels"))
    kept = {name: batch[name][sentences] for name in ("sides", "pairs") if name in batch}
    return pack(tokens, labels, lengths, share_rows) | kept


def select_labelled(batch: dict[str, Tensor], share_rows: bool = True) -> dict[str, Tensor]:
    """The sentences of the sides that have labels, for a step of language modelling alone; all where none has any."""
    labelled = (batch["num_labels"] > 0)[batch["sides"]]
    return batch if labelled.all() or not labelled.any() else select(batch, labelled.nonzero().flatten(), share_rows)


def select_pairs(batch: dict[str, Tensor], pairs: int, share_rows: bool = True) -> list[dict[str, Tensor]]:
    """A batch in parts of `pairs` pairs each, sources first as in the whole, and of the texts beside them as many."""
    number, parts = len(batch["rows"]), []
    texts = len(batch["lengths"]) - 2 * number
    for start in range(0, number, pairs):
        stop = min(start + pairs, number)
        sources = torch.arange(start, stop)
        beside = torch.arange(texts * start // number, texts * stop // number)
        sentences = torch.cat([sources, sources + number, beside + 2 * number]).to(batch["rows"].device)
        parts.append(select(batch, sentences, share_rows) | {"rows": batch["rows"][start:stop]})
    return parts
