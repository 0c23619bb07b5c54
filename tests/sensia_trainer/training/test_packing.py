"""Sentences packed in rows: where they are, that nothing overlaps, and that no loss or gradient notices."""

import random

import pytest
import torch
from datasets import Dataset
from transformers import OPTConfig, XGLMConfig

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from sensia_trainer.bitext.tokens import tokenize_bitext
from sensia_trainer.trainer import join_sides
from sensia_trainer.training.packing import best_fit, keeps_texts_apart, pack
from tests.modeling_backpack.tiny import BACKBONES, SIZES, random_ids, spread
from tests.tiny import tiny_tokenizer, tiny_trainer


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


def test_an_empty_text_has_a_cell_of_its_own():
    ids = torch.arange(1, 37).view(4, 9)
    mask = (torch.arange(9)[None] < torch.tensor([9, 5, 4, 0])[:, None]).long()
    packed = pack({"input_ids": ids, "attention_mask": mask, "labels": torch.full_like(ids, -100)})
    assert packed["sentences"].flatten()[packed["last"]].tolist() == [0, 1, 2, -1]


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
    mask = (torch.arange(9)[None] < torch.tensor(lengths)[:, None]).long()
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.full_like(ids, -100)}
    packed = pack(batch, share_rows=keeps_texts_apart(model.backpack.backbone.config))
    assert (len(packed["input_ids"]) < 4) == (backbone in BACKBONES)
    with torch.no_grad():
        inputs = {name: packed[name] for name in ("input_ids", "position_ids")}
        states = model(**inputs, use_cache=False, skip_logits=True).last_hidden_state.flatten(0, 1)[packed["last"]]
        for state, row, length in zip(states, ids, lengths, strict=True):
            alone = model(row[None, :length], use_cache=False, skip_logits=True).last_hidden_state[0, -1]
            torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-4)


def test_flash_attention_gets_a_row_a_sentence(tmp_path):
    trainer = tiny_trainer(tmp_path)
    batch = join_sides(trainer.data_collator([trainer.train_dataset[i] for i in range(10)]))
    assert len(trainer.pack(batch)["input_ids"]) < 20
    trainer.backpack.backbone.config._attn_implementation = "flash_attention_2"  # which may be set for it alone
    assert len(trainer.pack(batch)["input_ids"]) == 20


def test_empty_sentences_are_refused():
    pairs = Dataset.from_dict({"translation": [{"en": "sun", "id": "matahari"}, {"en": "moon", "id": ""}]})
    with pytest.raises(ValueError, match="pair 1 .*'id'"):
        tokenize_bitext(pairs, tiny_tokenizer(), "en", "id", max_length=9)
