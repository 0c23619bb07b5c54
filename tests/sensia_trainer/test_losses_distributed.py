"""InfoNCE gathered over two processes is InfoNCE of the global batch on one."""

import pytest
import torch

from sensia_trainer.losses import gather_with_gradient, info_nce
from tests.distributed import run_on_processes


pytestmark = pytest.mark.distributed

PAIRS, WIDTH = 6, 5
SENTENCES = torch.tensor([[1, 1], [2, 2], [3, 3], [4, 4], [5, 1], [1, 6]])  # also across the processes
FORMS = {
    "symmetric": {},
    "one direction": {"symmetric": False},
    "weighted": {"hard_negative_weight": 1.0, "noisy_pair_exponent": 0.3},
    "with pairs that share a sentence": {"hard_negative_weight": 1.0, "sentences": SENTENCES},
}


def batch():
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(PAIRS, WIDTH, generator=generator) for _ in range(2))
    return source, target


def step(rows: slice, gather: bool):
    """Losses and the parameter gradient of a linear encoder, for each form of the loss."""
    source, target = (part[rows] for part in batch())
    results = {}
    for name, options in FORMS.items():
        encoder = torch.eye(WIDTH).add(0.1).requires_grad_()
        own = {"sentences": SENTENCES[rows]} if "sentences" in options else {}
        loss = info_nce(source @ encoder, target @ encoder, 0.07, gather=gather, **options | own)
        loss.backward()
        results[name] = {"loss": loss.detach(), "grad": encoder.grad}
    return results


def on_two_ranks():
    rank = torch.distributed.get_rank()
    results = step(slice(rank * PAIRS // 2, (rank + 1) * PAIRS // 2), gather=True)
    results["gathered"] = gather_with_gradient(torch.full((2, 3), float(rank)))
    for uneven in (gather_with_gradient, lambda rows: info_nce(rows, rows, 0.05, gather=True)):
        with pytest.raises(ValueError, match=r"\[2, 3\] rows.*dataloader_drop_last"):
            uneven(torch.ones(2 + rank, 3))
    # One pair on each process still has a negative: the other's.
    results["single"] = info_nce(torch.eye(2)[[rank]], torch.eye(2)[[rank]], 1.0, gather=True)
    return results


def test_gathered_loss_and_gradients_equal_one_process():
    expected = step(slice(None), gather=False)
    ranks = run_on_processes(on_two_ranks)
    for name, one in expected.items():
        for key in ("loss", "grad"):  # averaged over processes, as DDP does
            mean = sum(rank[name][key] for rank in ranks) / 2
            torch.testing.assert_close(mean, one[key], rtol=1e-6, atol=1e-6)
    for rank in ranks:
        assert rank["gathered"][:, 0].tolist() == [0, 0, 1, 1]
        assert rank["single"].item() == pytest.approx(0.3132617, abs=1e-6)
