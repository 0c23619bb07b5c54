"""Sentences packed in rows: where they are, that nothing overlaps, and that no loss or gradient notices."""

import random

import pytest
import torch

from sensia_trainer.packing import best_fit, pack
from sensia_trainer.trainer import join_sides
from tests.tiny import tiny_trainer


def test_each_text_goes_where_the_least_room_is_left():
    # 5 | 4 | 3 2 | 2: the first 2 fits beside the 3 and leaves nothing; for the second there is no room.
    assert best_fit([2, 5, 3, 2, 4], 5) == [(2, 3), (0, 0), (2, 0), (3, 0), (1, 0)]


def test_texts_never_overlap():
    draw = random.Random(0)
    lengths = [draw.randint(0, 9) for _ in range(200)]
    taken = set()
    for length, (row, offset) in zip(lengths, best_fit(lengths, 9), strict=True):
        cells = {(row, offset + step) for step in range(length)}
        assert offset + length <= 9 and not cells & taken
        taken |= cells
    rows = 1 + max(row for row, _ in taken)
    assert 9 * rows < 1.05 * sum(lengths)


def test_literal():
    batch = {
        "input_ids": torch.tensor([[11, 12, 0, 0], [21, 22, 23, 0], [31, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]),
        "labels": torch.tensor([[-100, -100, -100, -100], [21, 22, 23, 9], [31, -100, -100, -100]]),
    }
    packed = {name: value.tolist() for name, value in pack(batch).items()}
    assert packed == {
        "input_ids": [[21, 22, 23], [11, 12, 31]],
        "position_ids": [[0, 1, 2], [0, 1, 0]],
        "shift_labels": [[22, 23, 9], [-100, -100, -100]],  # what ends a sentence is predicted, what begins it is not
        "sentences": [[1, 1, 1], [0, 0, 2]],
        "last": [4, 2, 5],
    }
    alone = {name: value.tolist() for name, value in pack(batch, share_rows=False).items()}
    assert alone == {
        "input_ids": [[11, 12, 0], [21, 22, 23], [31, 0, 0]],
        "position_ids": [[0, 1, 0], [0, 1, 2], [0, 0, 0]],
        "shift_labels": [[-100, -100, -100], [22, 23, 9], [-100, -100, -100]],
        "sentences": [[0, 0, -1], [1, 1, 1], [2, -1, -1]],
        "last": [1, 5, 6],
    }


@pytest.mark.parametrize("fields", [{"sense_pooling": "magnitude"}, {"sense_pooling": "contextual"}, {"w_sense": 0}])
def test_neither_losses_nor_gradients_notice(tmp_path, monkeypatch, fields):
    trainer = tiny_trainer(tmp_path, dropout=0.0, **fields)
    trainer.current_gradient_accumulation_steps, trainer.state.max_steps, trainer.state.global_step = 1, 12, 2
    model = trainer.model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(10)])
    assert len(pack(join_sides(batch))["input_ids"]) < 20

    def gradients():
        trainer._sums = {}
        model.zero_grad()
        loss = trainer.compute_loss(model, batch)
        loss.backward()
        return loss, dict(trainer._sums), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    packed = gradients()
    monkeypatch.setattr("sensia_trainer.trainer.pack", lambda batch, share_rows: pack(batch, share_rows=False))
    torch.testing.assert_close(packed, gradients(), rtol=1e-9, atol=1e-12)


def test_flash_attention_gets_a_row_a_sentence(tmp_path):
    trainer = tiny_trainer(tmp_path)
    batch = join_sides(trainer.data_collator([trainer.train_dataset[i] for i in range(10)]))
    assert len(trainer.pack(batch)["input_ids"]) < 20
    trainer.backpack.config._attn_implementation = "flash_attention_2"
    assert len(trainer.pack(batch)["input_ids"]) == 20
