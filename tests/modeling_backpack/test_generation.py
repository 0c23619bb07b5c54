"""Cached generation: the same tokens and logits as recomputing every position, on every kind of backbone and cache."""

import copy

import pytest
import torch
from transformers import CompileConfig, DynamicCache, LlamaConfig, MistralConfig, StaticCache, pipeline

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from tests.modeling_backpack.tiny import BACKBONES, ROTARY, SIZES, random_ids, spread, tiny_backpack


NEVER = -1  # an end-of-text id that no token has: every text runs to its full length
TOLERANCE = dict(rtol=0, atol=1e-5)


@pytest.fixture(scope="module", params=BACKBONES)
def model(request):
    """Weights of unit-scale logits, so that an absolute tolerance means something."""
    return tiny_backpack(request.param)


@pytest.fixture(scope="module")
def prompts():
    """Three prompts of 3, 8 and 5 tokens, left-padded with 0."""
    input_ids, attention_mask = torch.zeros(3, 8, dtype=torch.long), torch.zeros(3, 8, dtype=torch.long)
    for row, length in enumerate((3, 8, 5)):
        input_ids[row, 8 - length :] = random_ids(length, seed=row)
        attention_mask[row, 8 - length :] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


@torch.no_grad()
def greedy(model, prompt, steps):
    """Tokens and logits of one unpadded prompt, every position recomputed for every token."""
    logits = []
    for _ in range(steps):
        logits.append(model(prompt[None], use_cache=False).logits[0, -1])
        prompt = torch.cat([prompt, logits[-1].argmax()[None]])
    return prompt[-steps:], torch.stack(logits)


def assert_like_uncached(model, prompts, outputs, steps=6):
    for row in range(len(prompts["input_ids"])):
        prompt = prompts["input_ids"][row][prompts["attention_mask"][row].bool()]
        tokens, logits = greedy(model, prompt, steps)
        torch.testing.assert_close(torch.stack([step[row] for step in outputs.logits]), logits, **TOLERANCE)
        assert torch.equal(outputs.sequences[row, -steps:], tokens)


@pytest.mark.parametrize("cache", [None, "static"])
def test_greedy_with_left_padding(model, prompts, cache):
    outputs = model.generate(
        **prompts,
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=NEVER,
        cache_implementation=cache,
        disable_compile=True,
        return_dict_in_generate=True,
        output_logits=True,
    )
    assert_like_uncached(model, prompts, outputs)
    layers = outputs.past_key_values.layers
    assert len(layers) == model.config.num_hidden_layers + 1
    assert layers[-1].keys.shape[:2] == (3, 4) and layers[-1].keys.shape[-1] == 32 // 4
    assert layers[-1].values.shape[-1] == 32


def test_sampling_and_beams_do_not_depend_on_the_cache(model, prompts):
    for settings in (
        {"do_sample": True},
        {"num_beams": 3},
        {"num_beams": 4, "do_sample": True, "num_return_sequences": 2},
    ):
        results = []
        for use_cache in (True, False):
            torch.manual_seed(0)
            results.append(
                model.generate(**prompts, max_new_tokens=6, eos_token_id=NEVER, use_cache=use_cache, **settings)
            )
        assert torch.equal(*results)


def test_continued_cache(model):
    """A cache filled by the forward, in two parts, goes on in `generate` and in the forward."""
    input_ids = random_ids(2, 9)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        whole = model(input_ids).logits
        parts = [
            model(input_ids[:, start:end], past_key_values=cache, use_cache=True).logits
            for start, end in ((0, 4), (4, 5), (5, 9))
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **TOLERANCE)
    cache.crop(-1)
    assert cache.get_seq_length(model.config.num_hidden_layers) == 8
    settings = dict(max_new_tokens=5, do_sample=False, eos_token_id=NEVER)
    assert torch.equal(
        model.generate(input_ids, past_key_values=cache, **settings), model.generate(input_ids, **settings)
    )


def test_returned_cache_goes_on(model, prompts):
    """What `generate` returned, left padding included, is where another `generate` starts."""
    settings = dict(do_sample=False, eos_token_id=NEVER)
    first = model.generate(**prompts, max_new_tokens=3, return_dict_in_generate=True, **settings)
    mask = torch.nn.functional.pad(prompts["attention_mask"], (0, 3), value=1)
    second = model.generate(
        first.sequences, attention_mask=mask, past_key_values=first.past_key_values, max_new_tokens=3, **settings
    )
    assert torch.equal(second, model.generate(**prompts, max_new_tokens=6, **settings))


@pytest.mark.parametrize("make", [DynamicCache, lambda config: StaticCache(config=config, max_cache_len=30)])
def test_prefix_cache(model, make):
    """One prefix, computed once, with several continuations."""
    prefix, cache = random_ids(1, 6), make(config=model.config)
    with torch.no_grad():
        model(prefix, past_key_values=cache)
    settings = dict(max_new_tokens=5, do_sample=False, eos_token_id=NEVER)
    for seed in (1, 2):
        prompt = torch.cat([prefix, random_ids(1, 3, seed=seed)], dim=1)
        new = model.generate(prompt, past_key_values=copy.deepcopy(cache), **settings)
        assert torch.equal(new, model.generate(prompt, **settings))


def test_prefix_cache_of_beams(model):
    prefix, cache = random_ids(1, 6), DynamicCache(config=model.config)
    with torch.no_grad():
        model(prefix, past_key_values=cache)
    cache.batch_repeat_interleave(3)
    prompt = torch.cat([prefix, random_ids(1, 3, seed=1)], dim=1)
    settings = dict(num_beams=3, max_new_tokens=5, do_sample=False, eos_token_id=NEVER)
    assert torch.equal(model.generate(prompt, past_key_values=cache, **settings), model.generate(prompt, **settings))


def test_beams_and_chunked_prefill_with_a_static_cache(model, prompts):
    static = dict(cache_implementation="static", disable_compile=True)
    for settings in ({"num_beams": 3}, {"prefill_chunk_size": 3}):
        settings |= dict(max_new_tokens=5, do_sample=False, eos_token_id=NEVER)
        plain = settings | {"prefill_chunk_size": None, "use_cache": False}
        assert torch.equal(model.generate(**prompts, **static, **settings), model.generate(**prompts, **plain))


def test_outputs_of_every_step():
    model, input_ids = tiny_backpack(attn_implementation="eager"), random_ids(2, 5)
    wanted = dict.fromkeys(("output_scores", "output_attentions", "output_hidden_states"), True)
    for beams in (1, 2):
        outputs = model.generate(
            input_ids,
            num_beams=beams,
            max_new_tokens=4,
            do_sample=False,
            eos_token_id=NEVER,
            return_dict_in_generate=True,
            **wanted,
        )
        assert len(outputs.scores) == len(outputs.attentions) == len(outputs.hidden_states) == 4
        for step in range(1, 4):
            assert [w.shape for w in outputs.attentions[step]] == [(2 * beams, 4, 1, 5 + step)] * 3
            assert [h.shape for h in outputs.hidden_states[step]] == [(2 * beams, 1, 32)] * 4


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_compiled_generation(backbone):
    """A static cache and a forward compiled as one graph: every step, for every new text."""
    model = tiny_backpack(backbone)
    torch.compiler.reset()
    compilation = CompileConfig(fullgraph=True, backend="eager", mode=None)
    compilation._compile_all_devices = True  # the library compiles on accelerators only, unless told
    settings = dict(max_new_tokens=5, do_sample=False, eos_token_id=NEVER)
    for seed in (0, 1):
        input_ids = random_ids(2, 5, seed=seed)
        compiled = model.generate(input_ids, cache_implementation="static", compile_config=compilation, **settings)
        assert hasattr(model, "_compiled_call")
        assert torch.equal(compiled, model.generate(input_ids, **settings))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_compiled_forward_with_a_static_cache(backbone, backend):
    """The recipe of the library's documentation: prefill and steps alike."""
    model, input_ids = tiny_backpack(backbone), random_ids(2, 5)
    settings = dict(max_new_tokens=5, do_sample=False, eos_token_id=NEVER)
    plain = model.generate(input_ids, **settings)
    torch.compiler.reset()
    model.generation_config.cache_implementation = "static"
    model.forward = torch.compile(model.forward, fullgraph=True, backend=backend)
    assert torch.equal(model.generate(input_ids, **settings), plain)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_continuations_of_one_prefix_in_one_row(model, dtype):
    """A mask `(B, 1, T, S)` of one's own, boolean or added to scores, holds for the senses too."""
    prefix, continuations = random_ids(3), random_ids(3, seed=1)
    allowed = torch.ones(6, 6, dtype=torch.bool).tril()
    allowed[3:, 3:] = torch.eye(3, dtype=torch.bool)
    mask = allowed if dtype == torch.bool else (~allowed).float() * torch.finfo(torch.float32).min
    row, positions = torch.cat([prefix, continuations])[None], torch.tensor([[0, 1, 2, 3, 3, 3]])
    with torch.no_grad():
        logits = model(row, attention_mask=mask[None, None], position_ids=positions).logits[0, 3:]
        texts = torch.stack([torch.cat([prefix, token[None]]) for token in continuations])
        torch.testing.assert_close(logits, model(texts).logits[:, -1], **TOLERANCE)


def test_continuous_batching_is_refused():
    with pytest.raises(ValueError, match="Continuous batching .* `generate` with a padded batch"):
        tiny_backpack().generate_batch([[1, 2, 3]])


@pytest.mark.parametrize("length", [9, 30])
def test_static_cache_in_the_forward(model, length):
    input_ids = random_ids(2, 9)
    cache = StaticCache(config=model.config, max_cache_len=length)
    with torch.no_grad():
        parts = [model(part, past_key_values=cache).logits for part in input_ids.split([5, 1, 3], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(input_ids).logits, **TOLERANCE)


def test_cache_with_padding_in_the_forward(model, prompts):
    """A batch padded on the left, then one more token for every row."""
    ids, mask = prompts["input_ids"], prompts["attention_mask"]
    with torch.no_grad():
        whole = model(ids, mask).logits[:, -1]
        outputs = model(ids[:, :-1], mask[:, :-1], use_cache=True)
        last = model(ids[:, -1:], mask, past_key_values=outputs.past_key_values).logits[:, 0]
    torch.testing.assert_close(last, whole, **TOLERANCE)


def test_prompt_lookup_and_assistant(model):
    prompt = random_ids(1, 4).repeat(1, 4)
    settings = dict(max_new_tokens=10, do_sample=False, eos_token_id=NEVER)
    plain = model.generate(prompt, **settings)
    looked_up = model.generate(prompt, prompt_lookup_num_tokens=3, **settings)
    assert torch.equal(looked_up[:, : plain.shape[1]], plain)  # old releases of transformers give a token more
    torch.manual_seed(1)
    config = BackpackConfig(backbone_config=BACKBONES["gpt2"](), num_senses=2)
    assistant = spread(BackpackForCausalLM(config), seed=3).eval()
    assert torch.equal(model.generate(prompt, assistant_model=assistant, **settings), plain)
    # An assistant that always agrees: its tokens are all taken, and the caches of both go on.
    assert torch.equal(model.generate(prompt, assistant_model=tiny_copy(model), **settings), plain)


def tiny_copy(model):
    copy = BackpackForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def test_logits_to_keep(model):
    input_ids = random_ids(2, 7)
    logits = model(input_ids).logits
    torch.testing.assert_close(model(input_ids, logits_to_keep=2).logits, logits[:, -2:], **TOLERANCE)
    kept = model(input_ids, logits_to_keep=torch.tensor([0, 3])).logits
    torch.testing.assert_close(kept, logits[:, [0, 3]], **TOLERANCE)


def test_inputs_embeds(model):
    input_ids = random_ids(2, 7)
    embeddings = model.get_input_embeddings()(input_ids)
    torch.testing.assert_close(model(inputs_embeds=embeddings).logits, model(input_ids).logits, **TOLERANCE)
    settings = dict(max_new_tokens=5, do_sample=False, eos_token_id=NEVER)
    new = model.generate(inputs_embeds=embeddings, **settings)
    assert torch.equal(new[:, -5:], model.generate(input_ids, **settings)[:, -5:])


def test_logits_processors_and_several_sequences(model):
    """Expanded inputs go through the same cache."""
    settings = dict(max_new_tokens=5, num_return_sequences=3, do_sample=True, top_k=10, repetition_penalty=1.2)
    results = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        results.append(model.generate(random_ids(2, 5), use_cache=use_cache, eos_token_id=NEVER, **settings))
    assert results[0].shape == (6, 10) and torch.equal(*results)


def test_text_generation_pipeline(tokenizer, tiny_model):
    model = tiny_model()
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    texts = ["The cat sleeps", "Di mana"]
    results = generator(texts, max_new_tokens=4, do_sample=False, batch_size=2)
    for text, result in zip(texts, results):
        assert result[0]["generated_text"].startswith(text)
        alone = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=4, do_sample=False)
        assert result[0]["generated_text"] == tokenizer.decode(alone[0], skip_special_tokens=True)


def test_sliding_window_backbones():
    """The sense layer sees the whole text, whatever the window of the backbone's layers."""
    config = MistralConfig(**SIZES, **ROTARY, num_key_value_heads=2, max_position_embeddings=96, sliding_window=4)
    model = spread(BackpackForCausalLM(BackpackConfig(backbone_config=config, num_senses=4))).eval()
    prompt = random_ids(10)
    outputs = model.generate(
        prompt[None], max_new_tokens=6, eos_token_id=NEVER, return_dict_in_generate=True, output_logits=True
    )
    tokens, logits = greedy(model, prompt, 6)
    assert torch.equal(outputs.sequences[0, -6:], tokens)
    torch.testing.assert_close(torch.cat(outputs.logits), logits, **TOLERANCE)
    with pytest.raises(ValueError, match="sliding.*DynamicCache"):
        model(prompt[None], past_key_values=StaticCache(config=model.config, max_cache_len=20))
    config.sliding_window = 30  # longer than the text
    wide = spread(BackpackForCausalLM(BackpackConfig(backbone_config=config, num_senses=4))).eval()
    static = wide(prompt[None], past_key_values=StaticCache(config=wide.config, max_cache_len=20))
    torch.testing.assert_close(static.logits, wide(prompt[None]).logits, **TOLERANCE)


def test_long_contexts():
    """More positions than the published 512."""
    config = LlamaConfig(**SIZES, **ROTARY, num_key_value_heads=2, max_position_embeddings=2048)
    model = BackpackForCausalLM(BackpackConfig(backbone_config=config, num_senses=4)).eval()
    input_ids = random_ids(1, 700)
    with torch.no_grad():
        cache = model(input_ids[:, :-1], use_cache=True).past_key_values
        last = model(input_ids[:, -1:], past_key_values=cache).logits
        torch.testing.assert_close(last, model(input_ids, logits_to_keep=1).logits, **TOLERANCE)
