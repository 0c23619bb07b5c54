import pytest

from sensia_trainer.evaluation.generation import (
    GREEDY,
    SAMPLING,
    complete,
    cut_prompts,
    fluency,
    generate_examples,
    prompts_for,
    repetition,
)


def test_a_continuation_depends_on_its_prompt_and_the_seed_only(tiny_gpt2, tokenizer):
    prompts = ["The cat", "Kucing", "We will"]
    result = generate_examples(tiny_gpt2, tokenizer, prompts, seed=1, max_new_tokens=8)
    alone = generate_examples(tiny_gpt2, tokenizer, prompts[1:2], seed=1, max_new_tokens=8)
    assert alone["examples"] == result["examples"][1:2]
    assert [example["prompt"] for example in result["examples"]] == prompts
    assert result["sampling"] == SAMPLING | {"max_new_tokens": 8, "seed": 1}
    other = generate_examples(tiny_gpt2, tokenizer, prompts, seed=2, max_new_tokens=8)
    assert other["examples"] != result["examples"]


def test_continuations_end_with_the_positions(tiny_gpt2, tokenizer):
    # One position more would be an index error in the model.
    result = generate_examples(tiny_gpt2, tokenizer, ["The cat"], max_new_tokens=500, eos_token_id=None)
    assert result["examples"][0]["continuation"]
    with pytest.raises(ValueError, match="fills all 64 positions"):
        generate_examples(tiny_gpt2, tokenizer, ["The cat " * 40])


def test_prompts_of_every_language_correspond():
    assert {len(prompts_for(code)) for code in ("et", "ind_Latn", "sw", "tr", "zh", "en")} == {3}
    assert prompts_for("fi") == []


def test_repetition_of_known_texts():
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)  # abcd bcda cdab dabc abcd
    assert repetition("Opened the door and. opened the door and.") == pytest.approx(1 - 5 / 7)
    assert repetition("all words are new") == 0 and repetition("too short") is None


def test_prompts_are_cut_from_sentences():
    assert cut_prompts(["One two three four five.", "Too short"], "en") == [("One two three four", " five.")]
    assert cut_prompts(["今天的天气非常好，我们出去"], "zh") == [("今天的天气非常好", "，我们出去")]


def test_batches_write_what_single_prompts_do(tiny_model, tokenizer):
    prompts = ["The cat", "Kucing tidur di atas", "We will meet again", "A"]
    model = tiny_model()
    together = complete(model, tokenizer, prompts, batch_size=3, **GREEDY)
    assert together == [complete(model, tokenizer, [prompt], **GREEDY)[0] for prompt in prompts]


def test_settings_of_the_model_take_no_part(tiny_model, tokenizer):
    model, prompts = tiny_model(), ["The cat", "Kucing"]
    expected = generate_examples(model, tokenizer, prompts, max_new_tokens=12)
    model.generation_config.repetition_penalty = 3.0
    model.generation_config.no_repeat_ngram_size = 1
    model.generation_config.top_k = 1
    own = model.generation_config
    assert generate_examples(model, tokenizer, prompts, max_new_tokens=12) == expected
    assert model.generation_config is own


def test_fluency_stands_beside_that_of_people(tiny_model, tokenizer):
    pytest.importorskip("py3langid")
    sentences = [
        "Kucing itu tidur di atas kursi dan tidak mau bangun.",
        "Sungai itu mengalir ke laut yang biru dan luas.",
    ]
    found, written = fluency(tiny_model(), tokenizer, sentences, "ind_Latn")
    assert found["prompts"] == 2 and len(written["greedy"]) == len(written["sampled"]) == 2
    assert found["human"].pop("words") > 0
    assert found["human"] == {"repetition": 0.0, "in_language": 1.0, "empty": 0.0}
    for name in ("greedy", "sampled"):
        assert 0 <= found[name]["in_language"] <= 1 and 0 <= found[name]["empty"] <= 1
    with pytest.raises(ValueError, match="None of the 1 sentences"):
        fluency(tiny_model(), tokenizer, ["Kucing"], "id")


def test_what_has_no_letters_is_in_no_language(tiny_model, tokenizer, monkeypatch):
    pytest.importorskip("py3langid")
    texts = ["...", "2020 ?", "The cat slept on the old chair and did not want to wake up."]
    monkeypatch.setattr("sensia_trainer.evaluation.generation.complete", lambda *_, **__: texts)
    found, _ = fluency(tiny_model(), tokenizer, ["Kucing itu tidur di atas kursi dan tidak mau bangun."] * 3, "id")
    assert found["greedy"]["in_language"] == 0 and found["greedy"]["empty"] == pytest.approx(2 / 3)
    found, _ = fluency(tiny_model(), tokenizer, ["The cat slept on the old chair and did not wake up."] * 3, "en")
    assert found["greedy"]["in_language"] == 1
    texts[:] = ["...", "?", "1"]
    found, _ = fluency(tiny_model(), tokenizer, ["The cat slept on the old chair and did not wake up."] * 3, "en")
    assert found["greedy"]["in_language"] is None


def test_norwegian_is_known_by_the_name_that_the_identifier_gives_it(tiny_model, tokenizer):
    pytest.importorskip("py3langid")
    sentences = ["Jeg vet ikke hva som skjedde med huset i går kveld.", "Barna leker ute i snøen hele dagen."]
    found, _ = fluency(tiny_model(), tokenizer, sentences, "nob_Latn")
    assert found["human"]["in_language"] == 1.0
