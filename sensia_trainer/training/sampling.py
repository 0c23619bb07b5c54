"""Several pairs of languages in one run: how often each is met, and in which batches."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from .batches import BATCHES_PER_GROUP, alike_in_length


class LanguageSampler(Sampler[int]):
    """
    Rows of several pairs of languages, in batches of similar length; batches in random order.

    A pair of n rows has the share n^(1/T) / sum n^(1/T) of every epoch. An epoch ends with the first pair that is
    through, so that no row is met twice in it, and a smaller pair is not its own negative; the others go on in the
    next epoch where they stopped. The order depends on `seed` and on the epoch alone: every process derives the same
    one, and a resumed run the same again.

    Args:
        lengths (`Sequence[int]`): Length of each row.
        sizes (`Sequence[int]`): Rows of each pair, which follow each other in the data set.
        batch_size (`int`): Rows that are processed together, over all processes.
        temperature (`float`): T.
        mixed (`bool`): Whether a batch has rows of all pairs, or of one.
        seed (`int`, *optional*, defaults to 0): Seed.
        batches_per_group (`int`, *optional*, defaults to `BATCHES_PER_GROUP`): See [`batches.LengthGroupedSampler`].
    """

    def __init__(
        self,
        lengths: Sequence[int],
        sizes: Sequence[int],
        batch_size: int,
        *,
        temperature: float,
        mixed: bool,
        seed: int = 0,
        batches_per_group: int = BATCHES_PER_GROUP,
    ):
        self.lengths = torch.as_tensor(lengths)
        self.sizes = list(sizes)
        self.counts = rows_per_epoch(self.sizes, temperature, 1 if mixed else batch_size)
        self.batch_size = batch_size
        self.mixed = mixed
        self.seed = seed
        self.batches_per_group = batches_per_group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Epoch whose order the next iteration gives; called by the data loader."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.counts)

    def __iter__(self) -> Iterator[int]:
        parts, first = [], 0
        for number, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            through, window = divmod(self.epoch, size // count)
            order = torch.randperm(size, generator=_generator(self.seed, 1 + number, through))
            parts.append(first + order[window * count : (window + 1) * count])
            first += size
        generator = _generator(self.seed, 0, self.epoch)
        if self.mixed:
            together = torch.cat(parts)
            parts = [together[torch.randperm(len(together), generator=generator)]]
        batches, rests = zip(*(self._batches(part) for part in parts), strict=True)
        batches = torch.cat(batches)
        batches = batches[torch.randperm(len(batches), generator=generator)]
        return iter(torch.cat([batches.flatten(), *rests]).tolist())

    def _batches(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return alike_in_length(rows, self.lengths, self.batch_size, self.batches_per_group)


def shares(sizes: Sequence[int], temperature: float) -> list[float]:
    """The share of each pair in training, n^(1/T) / sum n^(1/T) (Arivazhagan et al., 2019, Section 3)."""
    largest = max(sizes)
    weights = [(size / largest) ** (1 / temperature) for size in sizes]
    return [weight / sum(weights) for weight in weights]


def rows_per_epoch(sizes: Sequence[int], temperature: float, multiple: int = 1) -> list[int]:
    """
    Rows of each pair in an epoch: in proportion to [`shares`], as many as the pair that is through first allows.

    Args:
        sizes (`Sequence[int]`): Rows of each pair.
        temperature (`float`): T.
        multiple (`int`, *optional*, defaults to 1): Counts are the nearest multiples of it, one of it at least.
    """
    wanted = shares(sizes, temperature)
    through = [size // multiple * multiple for size in sizes]
    most = min(rows / share for rows, share in zip(through, wanted, strict=True))
    counts = [int(share * most / multiple + (0.5 if multiple > 1 else 1e-6)) * multiple for share in wanted]
    return [min(max(count, multiple), rows) for count, rows in zip(counts, through, strict=True)]


def _generator(*numbers: int) -> torch.Generator:
    """Random numbers of their own for every tuple of whole numbers."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % 2**63
    return torch.Generator().manual_seed(seed)
