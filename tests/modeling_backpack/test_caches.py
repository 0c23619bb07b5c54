"""No kind of cache lets a word see what comes after it, and keys before the first word have no senses."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

from tests.modeling_backpack.tiny import BACKBONES, VOCAB_SIZE, random_ids, tiny_backpack


PREFIX = 3
CACHES = {
    "none": lambda model: None,
    "dynamic": lambda model: DynamicCache(),
    "of the configuration": lambda model: DynamicCache(config=model.config),
    "static": lambda model: StaticCache(config=model.config, max_cache_len=20),
    "prefix": lambda model: with_prefix(model, DynamicCache()),
    "prefix of the configuration": lambda model: with_prefix(model, DynamicCache(config=model.config)),
    "static prefix": lambda model: with_prefix(model, StaticCache(config=model.config, max_cache_len=20)),
    "earlier words": lambda model: model(random_ids(2, PREFIX, seed=5), use_cache=True).past_key_values,
}
TOLERANCE = dict(rtol=0, atol=1e-5)


def prefix_states():
    return torch.randn(2, PREFIX, 32, generator=torch.Generator().manual_seed(3))


def with_prefix(model, cache):
    """A cache that holds keys and values of the backbone only, as prefix tuning makes it."""
    model.backpack.backbone(inputs_embeds=prefix_states(), past_key_values=cache, use_cache=True)
    return cache


def masks(kind, length):
    """An attention mask over `PREFIX` keys before the text, if there are any, and the text padded on the left."""
    padding = torch.ones(2, 8, dtype=torch.long)
    padding[1, :2] = 0
    return {} if kind is None else {"attention_mask": torch.nn.functional.pad(padding, (length - 8, 0), value=1)}


def words(padding):
    return masks(padding, 8).get("attention_mask", torch.ones(2, 8)).bool()


@torch.no_grad()
@pytest.mark.parametrize("padding", [None, "left"])
@pytest.mark.parametrize("steps", [(8,), (5, 3), (1,) * 8])
@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_no_word_sees_a_later_one(backbone, kind, steps, padding):
    model, input_ids = tiny_backpack(backbone), random_ids(2, 8)

    def logits(input_ids):
        cache, outputs, start = CACHES[kind](model), [], 0
        past = 0 if cache is None else int(cache.get_seq_length())
        mask = masks(padding, past + 8).get("attention_mask")
        for step in steps if kind != "none" else (8,):
            seen = None if mask is None else mask[:, : past + start + step]
            ids = input_ids[:, start : start + step]
            outputs.append(model(ids, seen, past_key_values=cache, use_cache=cache is not None).logits)
            start += step
        return torch.cat(outputs, dim=1)

    before = logits(input_ids)
    for position in (2, 5, 7):
        changed = input_ids.clone()
        changed[:, position] = (changed[:, position] + 1) % VOCAB_SIZE
        after = logits(changed)
        earlier = words(padding)[:, :position]  # what stands at padding means nothing
        assert torch.equal(after[:, :position][earlier], before[:, :position][earlier]), position
        assert (after[:, position:] - before[:, position:]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("padding", [None, "left"])
@pytest.mark.parametrize("kind", ["prefix", "prefix of the configuration", "static prefix"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_prefix_has_no_senses(backbone, kind, padding):
    """The backbone attends to the prefix; senses are weighed over the words alone."""
    model, input_ids = tiny_backpack(backbone), random_ids(2, 8)
    inputs = masks(padding, PREFIX + 8)
    embeddings = torch.cat([prefix_states(), model.get_input_embeddings()(input_ids)], dim=1)
    if inputs:
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    states = model.backpack.backbone(inputs_embeds=embeddings, **inputs).last_hidden_state[:, PREFIX:]
    mask = torch.ones(8, 8, dtype=torch.bool).tril()[None, None]
    if inputs:
        mask = mask & inputs["attention_mask"][:, None, None, PREFIX:].bool()
    mixture, _ = model.backpack.sense_weight_net(states, model.get_senses(input_ids), lambda num_keys: mask)
    kept = words(padding)

    for steps in ((8,), (5, 1, 2)):
        cache, start = CACHES[kind](model), 0
        for step in steps:
            stop = start + step
            seen = {name: value[:, : PREFIX + stop] for name, value in inputs.items() if name == "attention_mask"}
            outputs = model(
                input_ids[:, start:stop], past_key_values=cache, use_cache=True, output_sense_weights=True, **seen
            )
            rows = kept[:, start:stop]
            torch.testing.assert_close(outputs.mixture[rows], mixture[:, start:stop][rows], **TOLERANCE)
            weights = outputs.sense_weights.transpose(1, 2)[rows]
            assert torch.count_nonzero(weights[..., stop:]) == 0
            start = stop
