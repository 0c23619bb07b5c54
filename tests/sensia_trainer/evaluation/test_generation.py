import pytest

from sensia_trainer.evaluation.generation import SAMPLING, generate_examples, prompts_for


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
