import torch

from sensia_trainer.training.sampling import LengthGroupedSampler


LENGTHS = torch.randint(1, 60, (1003,), generator=torch.Generator().manual_seed(0))


def order(seed=0, epoch=0, **options):
    sampler = LengthGroupedSampler(LENGTHS.tolist(), 8, seed=seed, **options)
    sampler.set_epoch(epoch)
    assert len(sampler) == 1003
    return list(sampler)


def test_every_row_once_and_the_incomplete_batch_last():
    assert sorted(order()) == list(range(1003))
    # Three random rows are left over, which `dataloader_drop_last` drops; another epoch drops others.
    assert order()[1000:] != order(epoch=1)[1000:]


def test_order_depends_on_seed_and_epoch_alone():
    first = order(seed=3, epoch=2)
    torch.manual_seed(99)
    torch.rand(5)
    assert order(seed=3, epoch=2) == first
    assert order(seed=3, epoch=1) != first
    assert order(seed=7, epoch=2) != first


def test_lengths_are_alike_within_batches_and_batches_are_shuffled():
    batches = LENGTHS[torch.tensor(order()[:1000])].reshape(-1, 8)
    padding = 1 - batches.sum() / (8 * batches.amax(1)).sum()
    random_batches = LENGTHS[:1000].reshape(-1, 8)
    random_padding = 1 - random_batches.sum() / (8 * random_batches.amax(1)).sum()
    assert padding < 0.08 < 0.3 < random_padding
    means = batches.float().mean(1)
    assert abs(torch.corrcoef(torch.stack([means[1:], means[:-1]]))[0, 1]) < 0.3
    assert set(order()[:8]) != set(order(epoch=1)[:8])
