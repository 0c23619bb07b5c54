"""What `sensia adapt --estimate` prints."""

import pytest
from transformers import AutoConfig, GPT2Config

from modeling_backpack import BackpackConfig
from sensia_trainer.commands import adapt
from sensia_trainer.config import SensiaConfig
from sensia_trainer.training.estimate import (
    Batch,
    Trained,
    average_batch,
    low_rank_updates,
    parameters,
    sizes_of,
    trained_parameters,
    training_operations,
)
from sensia_trainer.training.forecast import forecast
from sensia_trainer.training.settings import AdaptationData, TrainedParts
from sensia_trainer.utils.models import load_tokenizer
from sensia_trainer.utils.recipes import find_model
from sensia_trainer.vocabulary.settings import VocabularySettings
from tests.tiny import tiny_tokenizer


@pytest.fixture
def bitext(tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text("en\tid\n" + "the old cat\tkucing tua itu\n" * 290)  # of which 200 are held out
    return str(file)


def settings(folder, **fields):
    return SensiaConfig(output_dir=str(folder), use_cpu=True, target_language="id", **fields)


def test_the_numbers_are_those_of_the_formulas(tmp_path, bitext):
    data = AdaptationData(model="backpack-micro-en", bitext=bitext)
    args = settings(tmp_path, max_steps=100, per_device_train_batch_size=30)
    text = forecast(data, VocabularySettings(vocabulary_size=500), TrainedParts(), args, rate=1e10)
    tokenizer = load_tokenizer("backpack-micro-en")
    lengths = [len(tokenizer(text)["input_ids"]) for text in ("the old cat", "kucing tua itu")]
    sizes = sizes_of(AutoConfig.from_pretrained(find_model("backpack-micro-en")))
    sizes = sizes._replace(vocabulary=sizes.vocabulary + 500)
    operations = 100 * training_operations(sizes, average_batch(30, *lengths, sizes.vocabulary))
    assert f"90; {lengths[0]} + {lengths[1]} tokens each" in text
    assert "100 steps of 30 pairs, 33 passes" in text
    assert f"{operations:.2g}, {operations / 100:.2g} a step" in text
    assert f"{operations / 0.7e10 / 60:.3g} minutes at 70% of 10 billion" in text
    assert all(f"\n{name} " in text for name in ("T4", "A100", "H100")) and "induction" not in text


def test_a_source_gives_no_more_pairs_than_it_says(tmp_path, bitext):
    data = AdaptationData(model="backpack-micro-en", bitext={"path": bitext, "max_pairs": 240})
    args = settings(tmp_path, max_steps=-1, num_train_epochs=3, per_device_train_batch_size=10)
    text = forecast(data, VocabularySettings(), TrainedParts(), args, rate=1e10)
    assert "40 at most;" in text and "12 steps of 10 pairs, 3 passes" in text


def test_text_beside_the_pairs_is_counted(tmp_path, bitext):
    replayed = tmp_path / "english.txt"
    replayed.write_text("the old cat and the old dog\n" * 50 + "the cat " * 100, encoding="utf-8")
    data = AdaptationData(model="backpack-micro-en", bitext=bitext, replay_source=str(replayed))
    fields = {"max_steps": 100, "per_device_train_batch_size": 30, "max_length": 16, "source_lm_weight": 1.0}
    text = forecast(data, VocabularySettings(), TrainedParts(), settings(tmp_path, **fields), rate=1e10)
    tokenizer = load_tokenizer("backpack-micro-en")
    pair = [len(tokenizer(text)["input_ids"]) for text in ("the old cat", "kucing tua itu")]
    texts = [len(tokenizer(text)["input_ids"]) for text in replayed.read_text().splitlines()]
    beside = 0.25, sum(texts) / sum(-(-n // 16) for n in texts)
    sizes = sizes_of(AutoConfig.from_pretrained(find_model("backpack-micro-en")))
    batch = average_batch(30, *pair, sizes.vocabulary, both_sides=True, texts=[beside])
    share = 0.25 * beside[1] / (0.25 * beside[1] + sum(pair))
    assert f"{100 * batch.tokens / 1e6:.3g} M tokens, {share:.0%} of them of text beside the pairs\n" in text
    assert f"{100 * training_operations(sizes, batch):.2g}, " in text
    replayed.write_text("the cat " * 1000, encoding="utf-8")
    args = settings(tmp_path, **fields | {"max_length": None})
    with pytest.raises(ValueError, match="starve the pairs. Lower `replay_ratio` to 0.0"):
        forecast(data, VocabularySettings(), TrainedParts(), args, rate=1e10)


def test_an_induction_has_a_line_of_its_own(tmp_path, bitext):
    tokenizer = tiny_tokenizer()
    for part in (GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=len(tokenizer)), tokenizer):
        part.save_pretrained(tmp_path / "dense")
    data = AdaptationData(model=str(tmp_path / "dense"), bitext=bitext, induce_steps=1500)
    text = forecast(data, VocabularySettings(), TrainedParts(), settings(tmp_path, max_steps=5), rate=1e10)
    # A batch of 8 blocks of 256 tokens; a block of the backbone forward alone.
    dense = AutoConfig.from_pretrained(tmp_path / "dense")
    sizes = sizes_of(BackpackConfig(backbone_config=dense, sense_intermediate_scale=1))
    batch = Batch(2048, 8 * 256 * 257 / 2, min(10 * 2048**0.6, len(tokenizer)), 8 * 255)
    learns = Trained(backbone=False, words=False)
    operations = 1500 * training_operations(sizes, batch, trained=learns, head_products=3)
    duration = f"{operations / 0.7e10 / 60:.3g} minutes"
    assert (
        f"induction   1,500 steps before the training; 3.07 M tokens, {operations:.2g} operations, {duration}" in text
    )
    dense = {"dense_model": str(tmp_path / "dense"), "method": "fine-tuning"}  # which needs no senses
    fine = AdaptationData(bitext=bitext, induce_steps=1500, **dense)
    args = settings(tmp_path, max_steps=5)
    assert "\ninduction" not in forecast(fine, VocabularySettings(), TrainedParts(), args, rate=1e10)


def test_epochs_are_counted_in_pairs(tmp_path, bitext):
    data = AdaptationData(model="backpack-micro-en", bitext=bitext, max_pairs=60)
    args = settings(tmp_path, max_steps=-1, num_train_epochs=2, per_device_train_batch_size=20)
    assert "6 steps of 20 pairs, 2 passes" in forecast(data, VocabularySettings(), TrainedParts(), args, rate=1e10)


@pytest.mark.parametrize(
    ("pairs", "fields", "steps"),
    [(1000, {}, 27), (1000, {"dataloader_drop_last": False}, 30), (1000, {"gradient_accumulation_steps": 4}, 9)]
    + [(420, {"gradient_accumulation_steps": 4}, 3), (1000, {"eval_bitext": True}, 45)],
)
def test_epochs_are_those_of_the_library_without_the_held_out_pairs(tmp_path, bitext, pairs, fields, steps):
    """3 epochs of batches of 64: 9 of 600 pairs, 10 with one that is not full, 15 of 1,000."""
    held_out = {"eval_bitext": bitext} if fields.get("eval_bitext") else {"held_out_pairs": 400}
    (tmp_path / "more.tsv").write_text("en\tid\n" + "the old cat\tkucing tua itu\n" * pairs)
    data = AdaptationData(model="backpack-micro-en", bitext=str(tmp_path / "more.tsv"), **held_out)
    numbers = {"max_steps": -1, "num_train_epochs": 3, "per_device_train_batch_size": 64} | fields
    numbers.pop("eval_bitext", None)
    text = forecast(data, VocabularySettings(), TrainedParts(), settings(tmp_path, **numbers), rate=1e10)
    assert f" {steps} steps of " in text


def test_an_epoch_of_several_languages_ends_with_the_first_that_is_through(tmp_path, bitext):
    more = tmp_path / "more.tsv"
    more.write_text("en\tsw\n" + "the old cat\tpaka mzee\n" * 210)
    data = AdaptationData(model="backpack-micro-en", bitext={"id": bitext, "sw": str(more)}, max_pairs=60)
    numbers = dict(max_steps=-1, num_train_epochs=2, per_device_train_batch_size=20, language_temperature=1e9)
    args = SensiaConfig(output_dir=str(tmp_path), use_cpu=True, **numbers)
    assert " 2 steps of 20 pairs" in forecast(
        data, VocabularySettings(), TrainedParts(), args, rate=1e10
    )  # of 10 + 10


def test_pairs_of_several_languages_are_counted_together(tmp_path, bitext):
    more = tmp_path / "more.tsv"
    more.write_text("en\tsw\n" + "the old cat\tpaka mzee\n" * 240)
    data = AdaptationData(model="backpack-micro-en", bitext={"id": bitext, "sw": str(more)}, max_pairs=60)
    args = SensiaConfig(output_dir=str(tmp_path), use_cpu=True, max_steps=10, per_device_train_batch_size=20)
    assert "pairs       100" in forecast(data, VocabularySettings(), TrainedParts(), args, rate=1e10)  # 60 and 40


def test_the_command_trains_nothing(tmp_path, bitext, capsys, monkeypatch):
    monkeypatch.setattr("sensia_trainer.training.forecast.matrix_product_rate", lambda dtype: 1e10)
    folder = tmp_path / "run"
    options = ["--model", "backpack-micro-en", "--bitext", bitext, "--use_cpu", "--output_dir", str(folder)]
    adapt.main([*options, "--estimate", "--max_steps", "5"])
    assert "5 steps" in capsys.readouterr().out
    assert not folder.exists()


def test_what_is_frozen_has_neither_gradients_nor_moments(tmp_path, bitext):
    data, args = AdaptationData(model="backpack-micro-en", bitext=bitext), settings(tmp_path, max_steps=100)
    sizes = sizes_of(AutoConfig.from_pretrained(find_model("backpack-micro-en")))
    for parts, new_words, trained in (
        (TrainedParts(train="senses"), 0, Trained(backbone=False, words=False)),
        (TrainedParts(train="senses"), 500, Trained(backbone=False)),
        (
            TrainedParts(train="lora", lora_r=4),
            0,
            Trained(backbone=False, words=False, updates=low_rank_updates(sizes, 4)),
        ),
    ):
        text = forecast(data, VocabularySettings(vocabulary_size=new_words), parts, args, rate=1e10)
        grown = sizes._replace(vocabulary=sizes.vocabulary + new_words)
        learning = trained_parameters(grown, trained)
        states = 16 * learning + 4 * (parameters(grown) + trained.updates - learning)
        assert f"; {learning / 1e6:,.3g} M parameters are trained\n" in text
        assert f"{states / 2**30:.3g} of weights, gradients and optimizer" in text
