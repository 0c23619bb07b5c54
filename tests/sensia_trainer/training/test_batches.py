"""Batches: that flat rows are the padded ones to the bit, where sentences are, what a selection keeps, their order."""

import random

import pytest
import torch
from datasets import Dataset
from transformers import OPTConfig, XGLMConfig

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from sensia_trainer.training.batches import (
    LengthGroupedSampler,
    PairCollator,
    Texts,
    best_fit,
    keeps_texts_apart,
    longest_lengths,
    pack,
    select,
    select_labelled,
    select_pairs,
)
from tests.modeling_backpack.tiny import BACKBONES, SIZES, random_ids, spread
from tests.reference import batches as reference
from tests.tiny import tiny_trainer


SHAPES = ("input_ids", "position_ids", "shift_labels", "sentences")


def random_rows(number, seed=0, longest=9):
    draw = random.Random(seed)

    def side():
        return [draw.randint(1, 99) for _ in range(draw.randint(1, longest))]

    def cut():
        return draw.random() < 0.3

    rows = [{"source_ids": side(), "target_ids": side(), "row": 100 + i} for i in range(number)]
    return [row | {"source_truncated": cut(), "target_truncated": cut()} for row in rows]


@pytest.mark.parametrize("share_rows", [True, False])
@pytest.mark.parametrize("end", [None, 7])
@pytest.mark.parametrize("lm_sides", [("target",), ("source",), ("source", "target")])
def test_flat_rows_are_those_of_the_padded_path(share_rows, end, lm_sides):
    rows = random_rows(23)
    sides = reference.padded_sides(rows, pad=0, end=end)
    collate = PairCollator(end_token_id=end, lm_sides=lm_sides, share_rows=share_rows)
    batch = collate(rows)

    def check(batch, expected):
        for name in SHAPES:
            assert torch.equal(batch[name], expected[name]), name
        last = [int((batch["sentences"] == s).flatten().nonzero().max()) for s in range(len(batch["lengths"]))]
        assert batch["last"].tolist() == last
        assert batch["lengths"].tolist() == [int((batch["sentences"] == s).sum()) for s in range(len(last))]

    check(batch, reference.packed(reference.join(sides, lm_sides=lm_sides), share_rows))
    counts = [
        (reference.join(sides, (side,), lm_sides)["labels"][:, 1:] != -100).sum() for side in ("source", "target")
    ]
    assert batch["num_labels"].tolist() == counts
    assert batch["rows"].tolist() == [row["row"] for row in rows]
    # The side that has labels alone, and the pairs in parts.
    check(
        select_labelled(batch, share_rows),
        reference.packed(reference.join(sides, lm_sides, lm_sides), share_rows),
    )
    for start, part in zip(range(0, 23, 5), select_pairs(batch, 5, share_rows), strict=True):
        of_part = reference.padded_sides(rows[start : start + 5], pad=0, end=end)
        check(part, reference.packed(reference.join(of_part, lm_sides=lm_sides), share_rows))


def test_literal():
    rows = [
        {"source_ids": [11, 12], "target_ids": [21, 22, 23], "source_truncated": False, "target_truncated": False},
        {"source_ids": [31], "target_ids": [41, 42, 43], "source_truncated": False, "target_truncated": True},
    ]
    batch = PairCollator(end_token_id=9)([row | {"row": i} for i, row in enumerate(rows)])
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[21, 22, 23], [41, 42, 43], [11, 12, 31]],
        "position_ids": [[0, 1, 2], [0, 1, 2], [0, 1, 0]],
        # What ends a sentence is predicted, unless it was cut; what begins it is not.
        "shift_labels": [[22, 23, 9], [42, 43, -100], [-100, -100, -100]],
        "sentences": [[2, 2, 2], [3, 3, 3], [0, 0, 1]],
        "lengths": [2, 1, 3, 3],
        "last": [7, 8, 2, 5],
        "sides": [0, 0, 1, 1],
        "rows": [0, 1],
        "keys": [[hash((11, 12)), hash((21, 22, 23))], [hash((31,)), hash((41, 42, 43))]],
        "num_labels": [0, 5],
    }
    part = select(batch, torch.tensor([3, 1]))
    assert part["input_ids"].tolist() == [[41, 42, 43], [31, 0, 0]]
    assert part["sentences"].tolist() == [[0, 0, 0], [1, -1, -1]]
    assert part["sides"].tolist() == [1, 0]


def test_each_text_goes_where_the_least_room_is_left():
    # 5 | 4 | 3 2 | 2: the first 2 fits beside the 3 and leaves nothing; for the second there is no room.
    assert best_fit([2, 5, 3, 2, 4], 5) == [(2, 3), (0, 0), (2, 0), (3, 0), (1, 0)]


def test_a_batch_without_labels_is_left_as_it_is():
    row = {"source_ids": [11], "target_ids": [21], "source_truncated": False, "target_truncated": True, "row": 0}
    batch = PairCollator(end_token_id=9)([row, row])
    assert batch["num_labels"].tolist() == [0, 0] and select_labelled(batch) is batch


def test_texts_never_overlap():
    draw = random.Random(0)
    lengths = [draw.randint(1, 9) for _ in range(200)]
    taken = set()
    for length, (row, offset) in zip(lengths, best_fit(lengths, 9), strict=True):
        cells = {(row, offset + step) for step in range(length)}
        assert offset + length <= 9 and not cells & taken
        taken |= cells
    rows = 1 + max(row for row, _ in taken)
    assert 9 * rows < 1.05 * sum(lengths)


@pytest.mark.parametrize("fields", [{"sense_pooling": "magnitude"}, {"sense_pooling": "contextual"}, {"w_sense": 0}])
def test_neither_losses_nor_gradients_notice_shared_rows(tmp_path, fields):
    trainer = tiny_trainer(tmp_path, dropout=0.0, **fields)
    trainer.current_gradient_accumulation_steps, trainer.state.max_steps, trainer.state.global_step = 1, 12, 2
    model = trainer.model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))

    def gradients(share_rows):
        trainer.data_collator.share_rows, trainer._sums = share_rows, {}
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(10)])
        assert (len(batch["input_ids"]) == 20) != share_rows
        model.zero_grad()
        loss = trainer.compute_loss(model, batch)
        loss.backward()
        return loss, dict(trainer._sums), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    torch.testing.assert_close(gradients(True), gradients(False), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backbone", [*BACKBONES, "opt", "xglm"])
def test_no_backbone_lets_sentences_see_each_other(backbone):
    """The state at each last token, packed as the trainer packs, against the sentence alone."""
    others = {
        "opt": lambda: OPTConfig(**SIZES, hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2,
                                 num_attention_heads=4, max_position_embeddings=40),
        "xglm": lambda: XGLMConfig(**SIZES, d_model=32, ffn_dim=64, num_layers=2, attention_heads=4,
                                   max_position_embeddings=40),
    }  # fmt: skip
    config = BackpackConfig(backbone_config=(BACKBONES | others)[backbone](), num_senses=4)
    model = spread(BackpackForCausalLM(config)).eval()
    ids, lengths = random_ids(4, 9), [9, 5, 4, 1]
    tokens = torch.cat([row[:length] for row, length in zip(ids, lengths, strict=True)])
    share_rows = keeps_texts_apart(model.backpack.backbone.config)
    packed = pack(tokens, torch.full_like(tokens, -100), lengths, share_rows)
    assert (len(packed["input_ids"]) < 4) == (backbone in BACKBONES)
    with torch.no_grad():
        inputs = {name: packed[name] for name in ("input_ids", "position_ids")}
        states = model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)[packed["last"]]
        for state, row, length in zip(states, ids, lengths, strict=True):
            alone = model(row[None, :length], use_cache=False).last_hidden_state[0, -1]
            torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-4)


def test_flash_attention_gets_a_row_a_sentence(tmp_path):
    trainer = tiny_trainer(tmp_path)
    assert trainer.data_collator.share_rows
    trainer.backpack.backbone.config._attn_implementation = "flash_attention_2"  # which may be set for it alone
    assert not trainer.may_share_rows(trainer.model)


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


@pytest.mark.parametrize("sampling", ["group_by_length", "random"])
def test_the_longest_batch(sampling):
    numbers = random.Random(0)
    source, target = ([numbers.randint(1, 30) for _ in range(800)] for _ in range(2))
    found = longest_lengths(source, target, sampling)
    if sampling == "random":
        assert found == pytest.approx((sum(source) / 800, sum(target) / 800))
        return
    # Fifty batches of 16; which of the pairs of one length are in the longest is left to chance.
    lengths = [sum(pair) for pair in zip(source, target)]
    order = list(LengthGroupedSampler(lengths, 16))
    totals = [sum(lengths[row] for row in order[first : first + 16]) for first in range(0, 800, 16)]
    assert max(totals) == pytest.approx(16 * sum(found))


def test_lengths_are_alike_within_batches_and_batches_are_shuffled():
    batches = LENGTHS[torch.tensor(order()[:1000])].reshape(-1, 8)
    padding = 1 - batches.sum() / (8 * batches.amax(1)).sum()
    random_batches = LENGTHS[:1000].reshape(-1, 8)
    random_padding = 1 - random_batches.sum() / (8 * random_batches.amax(1)).sum()
    assert padding < 0.08 < 0.3 < random_padding
    means = batches.float().mean(1)
    assert abs(torch.corrcoef(torch.stack([means[1:], means[:-1]]))[0, 1]) < 0.3
    assert set(order()[:8]) != set(order(epoch=1)[:8])


# ---- Text beside the pairs ----


def texts(number, per_pair, pairs, longest=9):
    draw = random.Random(1)
    ids = [[1000 + i] * draw.randint(1, longest) for i in range(number)]
    return Texts(Dataset.from_dict({"ids": ids, "ended": [i % 2 == 0 for i in range(number)]}), per_pair, pairs)


def test_every_epoch_takes_the_next_texts():
    beside = texts(7, per_pair=0.5, pairs=8)
    taken = [[ids[0] - 1000 for row in range(8) for ids in beside.beside([row], epoch)["ids"]] for epoch in range(3)]
    assert taken == [[0, 1, 2, 3], [4, 5, 6, 0], [1, 2, 3, 4]]
    # Whatever rows come together, and in whatever order.
    assert [ids[0] - 1000 for ids in beside.beside([7, 0, 1], 1)["ids"]] == [0, 4]
    assert beside.beside([0], 0) == {"ids": [], "ended": []}


def test_less_than_a_text_an_epoch_is_a_text_after_some_epochs():
    beside = texts(7, per_pair=0.25, pairs=3)
    taken = [[ids[0] - 1000 for ids in beside.beside([0, 1, 2], epoch)["ids"]] for epoch in range(8)]
    assert taken == [[], [0], [1], [2], [], [3], [4], [5]]


def test_texts_stand_behind_the_pairs_and_are_labelled():
    rows = [row | {"row": i} for i, row in enumerate(random_rows(6))]
    beside = {"source": texts(5, 0.5, 6), "target": texts(9, 1.0, 6)}
    collate = PairCollator(end_token_id=7, lm_sides=("source", "target"), texts=beside)
    batch, without = collate(rows), PairCollator(end_token_id=7, lm_sides=("source", "target"))(rows)
    assert batch["sides"].tolist() == [0] * 6 + [1] * 6 + [0] * 3 + [1] * 6

    def read(batch, number):
        cells = batch["sentences"] == number
        return batch["input_ids"][cells].tolist(), batch["shift_labels"][cells].tolist()

    assert [read(batch, number) for number in range(12)] == [read(without, number) for number in range(12)]
    for number, source in enumerate([("source", 0), ("source", 1), ("source", 2), *[("target", i) for i in range(6)]]):
        piece = beside[source[0]].dataset[source[1]]
        assert read(batch, 12 + number) == (piece["ids"], [*piece["ids"][1:], 7 if piece["ended"] else -100])
    added = batch["num_labels"] - without["num_labels"]
    for side, count in enumerate(added.tolist()):
        ids = [read(batch, n)[1] for n in range(12, 21) if batch["sides"][n] == side]
        assert count == sum(label != -100 for labels in ids for label in labels)
    # Parts of two pairs have the same share of the texts each.
    parts = select_pairs(batch, 2)
    assert sum(len(part["lengths"]) for part in parts) == 21
    kept = sorted(token for part in parts for token in part["input_ids"][part["sentences"] >= 0].tolist())
    assert kept == sorted(batch["input_ids"][batch["sentences"] >= 0].tolist())
