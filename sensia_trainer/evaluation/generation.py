"""Text that the model writes: continuations of short prompts (Appendix F), and whether they read like the language."""

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm
from transformers import GenerationConfig, set_seed

from ..analysis.words import segment_words
from ..bitext.langid import identified, identified_code
from ..languages import language
from .batching import evaluating, max_positions, right_pad, start_token


SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95, "max_new_tokens": 40}
GREEDY = {"do_sample": False, "max_new_tokens": 40}
# Words, or characters where there are no spaces, that a prompt takes from a real sentence.
PROMPT_WORDS, PROMPT_CHARACTERS = 4, 8


def prompts_for(code: str) -> list[str]:
    """The shipped prompts of a language (et, id, sw, tr, zh, en), translations of each other in the same order.

    Empty for any other language.
    """
    prompts = json.loads((Path(__file__).parent / "data" / "prompts.json").read_text(encoding="utf-8"))["prompts"]
    return prompts.get(language(code).code, [])


def cut_prompts(sentences, code: str) -> list[tuple[str, str]]:
    """The beginning of each sentence and what really follows; sentences that have no more words are left out."""
    cut = []
    for sentence in sentences:
        words = segment_words(sentence)
        count = PROMPT_WORDS if language(code).has_spaces else PROMPT_CHARACTERS
        if len(words) > count:
            end = words[count - 1].end
            cut.append((sentence[:end], sentence[end:]))
    return cut


@contextmanager
def bare_generation(model):
    """`model.generation_config` without settings: `generate` fills from it what it is not given, a penalty of
    repetition among it."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def complete(model, tokenizer, prompts, *, seed=0, batch_size=32, progress=False, **settings) -> list[str]:
    """One continuation for each prompt, in their order, prompts of similar length in a batch.

    Args:
        seed (`int`): Of sampling; a sampled continuation depends on the batch it is in, a greedy one does not.
        settings: Fields of `GenerationConfig`, none of which is taken from the model's own; `max_new_tokens` is
            lowered where the model's positions end.

    Raises:
        `ValueError`: If a prompt has no token, or fills all positions of the model.
    """
    end = tokenizer.eos_token_id
    defaults = {"eos_token_id": end, "pad_token_id": 0 if end is None else end}
    start, positions = start_token(tokenizer, "own"), max_positions(model)
    device = model.get_input_embeddings().weight.device
    encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    encoded = [ids if start is None else [start, *ids] for ids in encoded]
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not ids:
            raise ValueError(f"The prompt {prompt!r} has no tokens.")
        if positions is not None and len(ids) >= positions:
            raise ValueError(f"The prompt {prompt!r} fills all {positions} positions of the model.")
    order = sorted(range(len(prompts)), key=lambda i: (len(encoded[i]), i))
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    texts = [""] * len(prompts)
    set_seed(seed)
    with evaluating(model), bare_generation(model):
        for batch in tqdm(batches, desc="generating", disable=not progress):
            ids, mask = (part.flip(1) for part in right_pad([encoded[i][::-1] for i in batch], device))
            config = GenerationConfig(**defaults | settings)
            if positions is not None:  # a continuation ends where the model's positions do
                config.max_new_tokens = min(config.max_new_tokens, positions - ids.shape[1])
            output = model.generate(ids, attention_mask=mask, generation_config=config)
            for i, row in zip(batch, output[:, ids.shape[1] :], strict=True):
                texts[i] = tokenizer.decode(row, skip_special_tokens=True)
    return texts


def generate_examples(model, tokenizer, prompts, *, seed=0, **sampling) -> dict:
    """A sampled and a greedy continuation of each prompt. Prompts run one by one, each from the same seed, so that a
    prompt's continuation does not depend on the others.

    Args:
        sampling: Overrides of `SAMPLING`, fields of `GenerationConfig`.

    Returns:
        `{"sampling": {..., "seed"}, "examples": [{"prompt", "continuation", "greedy"}, ...]}`.
    """
    settings = SAMPLING | sampling
    examples = []
    for prompt in prompts:
        (sampled,) = complete(model, tokenizer, [prompt], seed=seed, **settings)
        (greedy,) = complete(model, tokenizer, [prompt], **GREEDY | {"max_new_tokens": settings["max_new_tokens"]})
        examples.append({"prompt": prompt, "continuation": sampled, "greedy": greedy})
    return {"sampling": settings | {"seed": seed}, "examples": examples}


def repetition(text: str, n=4) -> float | None:
    """Share of the n-grams of words that occurred before in the text (seq-rep-n of Welleck et al., 2020); None where
    it has no n words. Words and signs as `segment_words` parts them, ignoring case."""
    words = [word.text.casefold() for word in segment_words(text)]
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def fluency(model, tokenizer, sentences, code: str, *, seed=0, batch_size=32, progress=False) -> tuple[dict, dict]:
    """Whether continuations read like the language: how often they repeat themselves, and are identified as it.

    The prompts are the first words of real sentences, whose own continuations, cut to the same number of words, show
    what the measures give for text that people wrote.

    Args:
        sentences: Of the language, some 200.
        code: Of the language.

    Returns:
        For `greedy`, `sampled` and `human`: `repetition` (mean of [`repetition`]), `in_language` (of those
        with a word, the share that py3langid takes for the language and not for another of those that [`identified`]
        asks it about; None where it cannot tell), `empty` (share without a word) and `words` (mean
        number: what ends at once cannot repeat itself); `prompts`, how many; and what was written.
    """
    cut = cut_prompts(sentences, code)
    if not cut:
        raise ValueError(f"None of the {len(sentences)} sentences is long enough to be a prompt and go on.")
    prompts = [prompt for prompt, _ in cut]
    run = {"seed": seed, "batch_size": batch_size, "progress": progress}
    texts = {"greedy": complete(model, tokenizer, prompts, **run, **GREEDY)}
    texts["sampled"] = complete(model, tokenizer, prompts, **run, **SAMPLING)
    lengths = [len(segment_words(text)) for text in texts["greedy"]]
    texts["human"] = []
    for length, (_, rest) in zip(lengths, cut, strict=True):
        words = segment_words(rest)[: max(length, 1)]
        texts["human"].append(rest[: words[-1].end])
    found, iso = {"prompts": len(prompts)}, identified_code(code)
    for name, written in texts.items():
        rates = [rate for rate in map(repetition, written) if rate is not None]
        said = [text for text in written if any(map(str.isalpha, text))]
        languages = identified(said, code) if said else None
        found[name] = {
            "repetition": float(np.mean(rates)) if rates else None,
            "in_language": None if languages is None else languages.count(iso) / len(said),
            "empty": 1 - len(said) / len(written),
            "words": float(np.mean([len(segment_words(text)) for text in written])),
        }
    return found, {name: texts[name] for name in ("greedy", "sampled")}
