import copy
import json
import logging

import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from sensia_trainer.utils.models import rows_needed
from sensia_trainer.vocabulary.extension import (
    _other_script,
    extend_vocabulary,
    learn_extension,
    learned_before,
    load_extension,
    save_extension,
    sense_votes,
)
from tests.sensia_trainer.vocabulary.conftest import TRANSLATIONS
from tests.tiny import tiny_model


@pytest.fixture
def model(byte_level):
    torch.manual_seed(0)
    # Padded: more rows than tokens.
    backbone = GPT2Config(vocab_size=len(byte_level) + 5, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    return BackpackForCausalLM(BackpackConfig(backbone_config=backbone, num_senses=4)).eval()


@pytest.fixture
def pairs(bitext):
    return Dataset.from_dict({"translation": [{"en": s, "id": t} for s, t in zip(*bitext, strict=True)]})


@pytest.fixture
def warned():
    """Warnings that were logged."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("sensia_trainer")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def test_new_words_start_from_their_translations(model, byte_level, pairs):
    old = model.get_input_embeddings().weight.clone()
    tokenizer, report = extend_vocabulary(model, byte_level, pairs, 20, target_language="id")
    assert json.loads(json.dumps(report)) == report
    assert report["first_token"] == len(byte_level)
    assert model.config.vocab_size == len(tokenizer) == len(byte_level) + 20

    row = model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("Ġberjalan")]
    nearest = torch.cosine_similarity(old[: len(byte_level)], row[None]).argmax()
    assert byte_level.convert_ids_to_tokens([nearest.item()]) == ["walks"]
    assert report["translations"]["translated_words"] >= 0.8
    assert report["translations"]["held_out_nats"] < report["translations"]["held_out_nats_unigram"]
    shown = {word["word"]: word["translations"] for word in report["words"]}
    assert shown["berjalan"][0][0] == "walks"
    assert len(shown.keys() & TRANSLATIONS.values()) > 5
    assert report["target_bytes_per_token"]["after"] > report["target_bytes_per_token"]["before"]


def test_the_same_pairs_give_the_same_rows(byte_level, pairs, model):
    again = BackpackForCausalLM(model.config).eval()
    again.load_state_dict(model.state_dict())
    for one in (model, again):
        extend_vocabulary(one, byte_level, pairs, 20, target_language="id")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_few_pairs_are_warned_of(model, byte_level, bitext, warned):
    rows = [{"en": source, "ru": target} for source, target in zip(*bitext, strict=True)]
    pairs = Dataset.from_dict({"translation": rows})
    _, report = extend_vocabulary(model, byte_level, pairs, 5000, target_language="ru")
    few, script, fewer = "The bitext has 300 pairs", "are of the script of Russian (Cyrl)", "Of 5000 new words"
    for text in (few, script, fewer):
        assert sum(text in warning for warning in report["warnings"]) == 1
        assert any(text in message for message in warned)


def test_a_dictionary_tells_what_the_bitext_does_not(model, byte_level, pairs, tmp_path):
    (tmp_path / "words.tsv").write_text("small\tkecil\nmoon\tbulan\n", encoding="utf-8")
    dictionary = str(tmp_path / "words.tsv")
    _, report = extend_vocabulary(model, byte_level, pairs, 20, target_language="id", dictionary=dictionary)
    assert report["translations"]["dictionary_entries"] == 1
    (tmp_path / "more.tsv").write_text("small\tkecil\nlittle\tkecil\nhouse\trumah\n", encoding="utf-8")
    report = learn_extension(byte_level, pairs, 60, target_language="id", dictionary=str(tmp_path / "more.tsv")).report
    assert report["translations"]["dictionary_entries"] == 3  # in however many spellings


def test_text_that_is_kept_as_well_is_not_told_as_the_source(byte_level, pairs):
    plain = learn_extension(byte_level, pairs, 20, target_language="id").report
    kept = learn_extension(byte_level, pairs, 20, target_language="id", protected=["qqq www zzz"] * 900).report
    assert kept["source_bytes_per_token"]["before"] == plain["source_bytes_per_token"]["before"]
    assert kept["source"] == "en"


def test_a_special_token_without_a_row_is_none_that_texts_need(byte_level, pairs):
    tokenizer = copy.deepcopy(byte_level)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    torch.manual_seed(0)
    backbone = GPT2Config(vocab_size=len(byte_level), n_embd=16, n_layer=1, n_head=2, n_positions=64)
    model = BackpackForCausalLM(BackpackConfig(backbone_config=backbone, num_senses=4)).eval()
    assert rows_needed(tokenizer) == len(byte_level) == len(tokenizer) - 1
    words, report = extend_vocabulary(model, tokenizer, pairs, 20, target_language="id")
    assert report["first_token"] == len(tokenizer) and model.config.vocab_size == len(words)
    assert model(torch.tensor([words("rumah berjalan")["input_ids"]])).logits.isfinite().all()
    plain = extend_vocabulary(_with_rows(model, len(byte_level)), byte_level, pairs, 20, target_language="id")[1]
    assert [word["word"] for word in plain["words"]] == [word["word"] for word in report["words"]]


def _with_rows(model, number):
    model = copy.deepcopy(model)
    model.resize_token_embeddings(number)
    return model


@pytest.mark.parametrize("code", ["cu_Cyrs", "de_Latf", "syc_Syre", "qaa_Qaaa"])
def test_a_script_that_unicode_has_no_letters_of_is_no_error(code):
    assert not _other_script([{"cu_Cyrs": "слово", "syc_Syre": "ܐܒܓ"}.get(code, "word")], code)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "nearest"}, "`method` must be one of"),
        ({"dictionary": "words.tsv"}, "has no word of the new vocabulary"),
        ({"dictionary": "none.tsv"}, "is not a file"),
        ({"size": 0}, "`size` must be at least 1"),
    ],
)
def test_an_error_leaves_the_model_as_it_was(model, byte_level, pairs, tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.tsv").write_text("sun\tmatahari\n", encoding="utf-8")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        extend_vocabulary(model, byte_level, pairs, **{"size": 20, "target_language": "id"} | settings)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("method", ["parts", "mean"])
def test_other_starts_need_no_translations(model, byte_level, pairs, method):
    _, report = extend_vocabulary(model, byte_level, pairs, 20, target_language="id", method=method)
    assert "translations" not in report
    assert "translations" not in report["words"][0]


def test_senses_vote_without_dropout(byte_level):
    noisy = tiny_model(byte_level, dropout=0.5).train()
    assert sense_votes(noisy, byte_level, [70, 80]) == sense_votes(noisy, byte_level, [70, 80])
    assert noisy.training


def test_senses_vote_for_words(model, byte_level):
    votes = sense_votes(model, byte_level, [70, 80], number=3)
    plain = []
    for token in (70, 80):
        scores, words = (part[0] for part in model.nearest_words(model.get_senses(torch.tensor([token])), top_k=3))
        count = {}
        for sense in range(4):
            for score, word in zip(scores[sense].tolist(), words[sense].tolist(), strict=True):
                number, best = count.get(word, (0, score))
                count[word] = number + 1, max(best, score)
        order = sorted(count, key=lambda word: count[word], reverse=True)[:3]
        plain.append([byte_level.decode([word]).strip() for word in order])
    assert votes == plain


@pytest.mark.parametrize("method", ["translation", "mean"])
def test_what_is_kept_is_what_was_learned(byte_level, pairs, tmp_path, method):
    learned = learn_extension(byte_level, pairs, 20, target_language="id", method=method)
    for _ in range(2):
        save_extension(learned, tmp_path / "vocabulary")
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary"]
    kept = load_extension(tmp_path / "vocabulary")
    assert kept.report == learned.report
    assert kept.tokenizer.backend_tokenizer.to_str() == learned.tokenizer.backend_tokenizer.to_str()
    assert (kept.mixture is None) == (method == "mean")
    if method == "translation":
        assert (kept.mixture != learned.mixture).nnz == 0
    with pytest.raises(ValueError, match="holds no new vocabulary"):
        load_extension(tmp_path)


def test_an_interrupted_writing_leaves_nothing(byte_level, pairs, tmp_path, monkeypatch):
    learned = learn_extension(byte_level, pairs, 20, target_language="id")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("sensia_trainer.vocabulary.extension.write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        save_extension(learned, tmp_path / "vocabulary")
    assert list(tmp_path.iterdir()) == []


def test_what_was_learned_before_is_not_learned_again(byte_level, pairs, tmp_path):
    calls = []

    def learn():
        calls.append(1)
        return learn_extension(byte_level, pairs, 20, target_language="id")

    first, second = (learned_before(tmp_path / "cache" / "key", learn) for _ in range(2))
    assert len(calls) == 1 and first.report == second.report
    assert (first.mixture != second.mixture).nnz == 0


def test_words_that_are_left_out_start_from_their_parts(byte_level, pairs):
    learned = learn_extension(byte_level, pairs, 20, target_language="id")
    parts = learn_extension(byte_level, pairs, 20, target_language="id", method="parts")
    some = learn_extension(byte_level, pairs, 20, target_language="id", leave_out=0.5)
    same = [abs(some.mixture[[n]] - learned.mixture[[n]]).sum() < 1e-6 for n in range(20)]
    of_parts = [abs(some.mixture[[n]] - parts.mixture[[n]]).sum() < 1e-6 for n in range(20)]
    assert all(kept or cut for kept, cut in zip(same, of_parts, strict=True)) and 0 < sum(same) < 20
    assert some.report["translations"]["left_out_words"] == 20 - sum(same)
