"""Generation examples (Appendix F): seeded continuations of short prompts, with the settings that made them."""

import json
from pathlib import Path

import torch
from transformers import GenerationConfig, set_seed

from ..languages import language
from .batching import evaluating, max_positions, start_token


SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "max_new_tokens": 40}


def prompts_for(code: str) -> list[str]:
    """The shipped prompts of a language (et, id, sw, tr, zh, en), translations of each other in the same order.

    Empty for any other language.
    """
    prompts = json.loads((Path(__file__).parent / "data" / "prompts.json").read_text(encoding="utf-8"))["prompts"]
    return prompts.get(language(code).code, [])


def generate_examples(model, tokenizer, prompts, *, seed=0, **sampling) -> dict:
    """One continuation per prompt. Prompts run one by one, each from the same seed, so that a prompt's continuation
    does not depend on the others.

    Args:
        sampling: Overrides of `SAMPLING`, fields of `GenerationConfig`.

    Returns:
        `{"sampling": {..., "seed"}, "examples": [{"prompt", "continuation"}, ...]}`.
    """
    settings = SAMPLING | sampling
    end = tokenizer.eos_token_id
    defaults = {"eos_token_id": end, "pad_token_id": 0 if end is None else end}
    config = GenerationConfig(**defaults | settings)
    start, device = start_token(tokenizer, "own"), model.get_input_embeddings().weight.device
    positions = max_positions(model)
    examples = []
    with evaluating(model):
        for prompt in prompts:
            set_seed(seed)
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([ids if start is None else [start, *ids]], device=device)
            if positions is not None:  # a continuation ends where the model's positions do
                config.max_new_tokens = min(settings["max_new_tokens"], positions - ids.shape[1])
            if config.max_new_tokens < 1:
                raise ValueError(f"The prompt {prompt!r} fills all {positions} positions of the model.")
            output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
            continuation = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
            examples.append({"prompt": prompt, "continuation": continuation})
    return {"sampling": settings | {"seed": seed}, "examples": examples}
