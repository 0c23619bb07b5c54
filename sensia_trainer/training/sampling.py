"""The order in which training rows are read: batches of similar length, a function of seed and epoch alone."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class LengthGroupedSampler(Sampler[int]):
    """Rows in batches of similar length, so that little is padded; batches in random order.

    Rows are shuffled, sorted by length within groups of `batches_per_group` batches, cut into batches, and the batches
    are shuffled. The order depends on `seed` and on the epoch alone, not on the state of the random numbers: every
    process derives the same one, and a resumed run the same again.

    Args:
        lengths (`Sequence[int]`): Length of each row.
        batch_size (`int`): Rows that are processed together, over all processes.
        seed (`int`, *optional*, defaults to 0): Seed.
        batches_per_group (`int`, *optional*, defaults to 50): More make lengths within a batch more alike, and the
            order less random.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, *, seed: int = 0, batches_per_group: int = 50):
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
        whole, rest = shuffled.split([len(self) - len(self) % self.batch_size, len(self) % self.batch_size])
        groups = whole.split(self.batch_size * self.batches_per_group)
        ordered = torch.cat([group[self.lengths[group].argsort(stable=True)] for group in groups])
        batches = ordered.reshape(-1, self.batch_size)
        batches = batches[torch.randperm(len(batches), generator=generator)]
        return iter(torch.cat([batches.flatten(), rest]).tolist())
