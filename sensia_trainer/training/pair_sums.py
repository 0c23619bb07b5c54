"""Loss terms of each pair of languages, summed between two lines of the log."""

import torch

from ..representations import in_float64


class PairSums:
    """
    Sums and counts of loss terms by pair of languages.

    Args:
        number (`int`): Pairs of languages; with none, nothing is kept.
    """

    def __init__(self, number: int):
        self.number = number
        self.sums: dict[str, torch.Tensor] = {}  # (number, 2): sums of a term, and what they are divided by
        self.pending: list[tuple[str, torch.Tensor]] = []

    def add(self, name: str, pairs: torch.Tensor, values: torch.Tensor, counts=1) -> None:
        """Note the values `(n,)` of a term of these pairs of languages `(n,)`, until [`keep`] or [`drop`]."""
        columns = in_float64(torch.stack([values.float(), torch.ones_like(values).float() * counts], dim=1))
        sums = columns.new_zeros(self.number, 2).index_add_(0, pairs.to(columns.device), columns)
        self.pending.append((name, sums))

    def keep(self) -> None:
        """Count what was noted of a step."""
        for name, sums in self.pending:
            self.sums[name] = self.sums[name].to(sums) + sums if name in self.sums else sums
        self.pending = []

    def drop(self) -> None:
        """Forget what was noted of a step that is left out."""
        self.pending = []

    def means(self, names: list[str], accelerator) -> dict[str, float]:
        """Means by term and name of the pair over all processes, `{"loss_lm_en-id": …}`; of pairs that were met."""
        found = {}
        for term in sorted(self.sums):
            sums = self.sums[term].float().to(accelerator.device)
            totals = accelerator.gather(sums[None]).cpu().double().sum(0)
            for name, (total, count) in zip(names, totals.tolist(), strict=True):
                if count:
                    found[f"{term}_{name}"] = total / count
        return found

    def state(self) -> dict:
        """What has been counted, as JSON holds it; empty without pairs."""
        return {"pair_sums": {name: sums.tolist() for name, sums in self.sums.items()}} if self.number else {}

    def restore(self, state: dict) -> None:
        """The inverse of [`state`]."""
        self.sums = {
            name: torch.tensor(sums, dtype=torch.float64) for name, sums in state.get("pair_sums", {}).items()
        }
