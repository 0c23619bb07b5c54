"""The model against the plain implementation of tests/reference, on the shapes of GPT-2 small, in one process.

Times are taken in turns and given as processor seconds, so that other work on the machine stays out of the ratios as
far as possible; run with one thread (the default) for that to be exact. Peak memory is that of a child process which
does one training step and nothing else.
"""

import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

from examples.benchmarks.process import process_memory
from modeling_backpack import BackpackConfig, BackpackForCausalLM
from sensia_trainer.losses import head_of, next_token_loss


sys.path.insert(0, str(Path(__file__).parents[2]))  # the reference is part of the tests, not of the package
from tests.reference.backpack import PublishedBackpack  # noqa: E402


NUM_SENSES = 16
LENGTHS = (32, 96, 160, 224, 288)  # where the cost of recomputation is measured; between them it is interpolated


def add_arguments(parser):
    parser.add_argument("--shapes", nargs="+", default=["8x128", "2x512"], help="batch size x length")
    parser.add_argument("--repeats", type=int, default=3, help="of each training measurement; the median counts")
    parser.add_argument("--new_tokens", type=int, default=256, help="generated after a prompt of 32 tokens")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--num_layers", type=int, default=12)
    parser.add_argument("--hidden_size", type=int, default=768)


def backbone_config(args):
    return GPT2Config(
        vocab_size=50264,
        n_positions=512,
        n_layer=args.num_layers,
        n_embd=args.hidden_size,
        n_head=args.hidden_size // 64,
        scale_attn_by_inverse_layer_idx=True,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )


def build(kind, args):
    torch.manual_seed(0)
    config = backbone_config(args)
    if kind == "plain":
        return PublishedBackpack(config, NUM_SENSES)
    if kind == "gpt2":
        return GPT2LMHeadModel(config)
    return BackpackForCausalLM(
        BackpackConfig(backbone_config=config, num_senses=NUM_SENSES, embd_pdrop=0.0, resid_pdrop=0.0)
    )


def text(shape, vocab_size=50257):
    """Token ids with the frequencies of natural language (Zipf's law), so that some repeat as words do."""
    frequencies = 1.0 / torch.arange(3, vocab_size + 3)
    generator = torch.Generator().manual_seed(0)
    return torch.multinomial(frequencies, shape[0] * shape[1], replacement=True, generator=generator).view(shape)


def as_ours(plain, args):
    """The same weights in our model, by way of a checkpoint in the published layout."""
    with tempfile.TemporaryDirectory() as folder:
        config = backbone_config(args).to_dict() | {"num_senses": NUM_SENSES}
        Path(folder, "config.json").write_text(json.dumps(config))
        # The aliases of one tensor are written as copies.
        save_file({name: tensor.clone() for name, tensor in plain.state_dict().items()}, f"{folder}/model.safetensors")
        return BackpackForCausalLM.from_pretrained(folder)


def train_step(kind, model, input_ids):
    model.zero_grad(set_to_none=True)
    if kind == "plain":
        loss = model(input_ids, labels=input_ids)
    else:
        states = model.backpack(input_ids, use_cache=False).last_hidden_state
        loss = next_token_loss(states, head_of(model), F.pad(input_ids[:, 1:], (0, 1), value=-100))
    loss.backward()
    return loss.item()


@torch.no_grad()
def forward(kind, model, input_ids):
    return model(input_ids) if kind == "plain" else model(input_ids, use_cache=False).logits


def seconds(function, *arguments):
    start, wall = time.process_time(), time.perf_counter()
    function(*arguments)
    return time.process_time() - start, time.perf_counter() - wall


def in_turns(functions, repeats, label):
    """Median processor and wall seconds of each function, taken alternately."""
    times = {name: [] for name in functions}
    for _ in tqdm(range(repeats), desc=label, leave=False):
        for name, function in functions.items():
            times[name].append(seconds(function))
    medians = {}
    for name, taken in times.items():
        processor, wall = zip(*taken)
        medians[name] = {"processor": statistics.median(processor), "wall": statistics.median(wall)}
    return medians


def peak_memory(kind, args, shape, queue):
    """In a child process: megabytes of the process before a training step and at its peak."""
    torch.set_num_threads(args.threads)
    model, input_ids = build(kind, args), text(shape)
    before = process_memory("VmRSS") * 2**10
    train_step(kind, model, input_ids)
    queue.put((before, process_memory("VmHWM") * 2**10))


def measured_memory(kind, args, shape):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak_memory, args=(kind, args, shape, queue))
    process.start()
    before, peak = queue.get()
    process.join()
    return {"process_peak_mb": peak, "step_mb": peak - before}


def matmul_rate(rounds=5):
    """Operations a processor second of a float32 product of the model's own shapes."""
    a, b = torch.randn(1024, 768), torch.randn(768, 3072)
    torch.mm(a, b)
    return 2 * 1024 * 768 * 3072 / min(seconds(torch.mm, a, b)[0] for _ in range(rounds))


def operations(args, input_ids, vocab_size=50264):
    """Multiplications and additions of the matrix products of one forward pass, senses once per distinct token."""
    tokens, length, d = input_ids.numel(), input_ids.shape[1], args.hidden_size
    backbone = args.num_layers * tokens * (24 * d * d + 4 * length * d)
    senses = input_ids.unique().numel() * 2 * (8 + 4 + 4 * NUM_SENSES) * d * d
    mixture = tokens * (4 * d * d + 2 * length * d + 2 * NUM_SENSES * length * d)
    return backbone + senses + mixture + 2 * tokens * d * vocab_size


def measure_training(args, models, rate):
    results = {}
    for name in args.shapes:
        input_ids = text(tuple(map(int, name.split("x"))))
        torch.testing.assert_close(*(forward(kind, models[kind], input_ids) for kind in models), rtol=0, atol=1e-3)
        result = {"tokens": input_ids.numel(), "distinct_tokens": input_ids.unique().numel()}
        for what, function, factor in (("forward", forward, 1), ("training_step", train_step, 3)):
            times = in_turns(
                {kind: lambda kind=kind: function(kind, models[kind], input_ids) for kind in models},  # noqa: B023
                args.repeats,
                f"{what} {name}",
            )
            bound = factor * operations(args, input_ids) / rate
            result[what] = {
                **times,
                "speedup": times["plain"]["processor"] / times["ours"]["processor"],
                "bound_seconds": bound,
                "share_of_bound": bound / times["ours"]["processor"],
            }
        result["memory"] = {kind: measured_memory(kind, args, tuple(input_ids.shape)) for kind in models}
        gradients = sum(parameter.numel() for parameter in models["ours"].parameters()) * 4 / 2**20
        ours, plain = (result["memory"][kind]["step_mb"] for kind in ("ours", "plain"))
        result["memory"] |= {
            "gradients_mb": gradients,
            "step_ratio": ours / plain,
            "step_ratio_without_gradients": (ours - gradients) / (plain - gradients),
        }
        results[name] = result
        print(
            f"{name}: forward {result['forward']['speedup']:.2f}x, training step "
            f"{result['training_step']['speedup']:.2f}x ({result['training_step']['share_of_bound']:.0%} of the "
            f"matrix-product rate), memory of a step {result['memory']['step_ratio']:.2f} "
            f"({ours:.0f} of {plain:.0f} MB)"
        )
    return results


@torch.no_grad()
def measure_generation(args, models):
    prompt = text((1, 32))
    settings = dict(max_new_tokens=args.new_tokens, min_new_tokens=args.new_tokens, do_sample=False, pad_token_id=0)
    cached = {}
    for kind, model in tqdm({"ours": models["ours"], "gpt2": build("gpt2", args)}.items(), desc="generate"):
        model.eval().generate(prompt, **settings | {"max_new_tokens": 2, "min_new_tokens": 2})
        cached[kind] = seconds(lambda model=model: model.generate(prompt, **settings))[0]
    steps = {length: seconds(forward, "plain", models["plain"], text((1, length)))[0] for length in LENGTHS}
    plain = sum(interpolated(steps, 32 + t) for t in range(args.new_tokens))
    result = {
        "new_tokens": args.new_tokens,
        "ours_seconds": cached["ours"],
        "gpt2_seconds": cached["gpt2"],
        "plain_seconds_interpolated": plain,
        "plain_seconds_by_length": steps,
        "speedup": plain / cached["ours"],
        "share_of_gpt2": cached["gpt2"] / cached["ours"],
    }
    print(f"generation: {result['speedup']:.1f}x, {result['share_of_gpt2']:.0%} of GPT-2's cached tokens a second")
    return result


def interpolated(points, x):
    lengths = sorted(points)
    low = max((length for length in lengths[:-1] if length <= x), default=lengths[0])
    high = lengths[lengths.index(low) + 1]
    return points[low] + (points[high] - points[low]) * (x - low) / (high - low)


@torch.no_grad()
def measure_sense_cache(args, model, length=288, rounds=5):
    """Keeping the senses of past tokens, or computing them again, at one step of generation."""
    input_ids, network = text((1, length)), model.backpack.sense_weight_net
    cache = model(input_ids, use_cache=True).past_key_values
    layer = cache.layers[-1]
    senses, state = model.get_senses(input_ids[:, -1:]), torch.randn(1, 1, args.hidden_size)

    def keep():
        network(state, senses, lambda keys: torch.ones(1, 1, 1, keys, dtype=torch.bool), past_key_values=cache)
        cache.crop(-1)

    def recompute():
        model.backpack.sense_network(model.get_input_embeddings()(input_ids))

    def one_token():
        model.backpack.sense_network(model.get_input_embeddings()(input_ids[:, -1:]))

    result = {"length": length, "distinct_tokens": input_ids.unique().numel()}
    for name, function in {"keep": keep, "recompute": recompute, "one_token": one_token}.items():
        function()
        result[f"{name}_seconds"] = statistics.median(seconds(function)[0] for _ in range(rounds))
    backbone = [tensor for other in cache.layers[:-1] for tensor in (other.keys, other.values)]
    for name, tensors in {"senses": [layer.keys, layer.values], "backbone": backbone}.items():
        result[f"{name}_mb"] = sum(tensor.numel() for tensor in tensors) * 4 / 2**20
    print(
        f"senses at length {length}: kept {result['senses_mb']:.0f} MB and {1e3 * result['keep_seconds']:.1f} ms a "
        f"step, recomputed {1e3 * result['recompute_seconds']:.0f} ms a step"
    )
    return result


def run(args) -> dict:
    """Measures training, memory, generation and the cache of senses; returns them with ratios to the plain form."""
    torch.set_num_threads(args.threads)
    plain = build("plain", args)
    models = {"plain": plain, "ours": as_ours(plain, args)}
    rate = matmul_rate()
    return {
        "settings": {name: value for name, value in vars(args).items() if name != "run"} | {"num_senses": NUM_SENSES},
        "matmul_gflops": rate / 1e9,
        "load_average": Path("/proc/loadavg").read_text().split()[:3],
        "training": measure_training(args, models, rate),
        "generation": measure_generation(args, models),
        "sense_cache": measure_sense_cache(args, models["ours"].eval()),
    }


def tables(result) -> str:
    """The measurements as Markdown."""
    lines = [
        "| shape | measured | plain, s | ours, s | speed | of the bound | memory, MB plain / ours | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shape, measured in result["training"].items():
        for what in ("forward", "training_step"):
            times, memory = measured[what], measured["memory"]
            space = ["", ""]
            if what == "training_step":
                space = [f"{memory['plain']['step_mb']:.0f} / {memory['ours']['step_mb']:.0f}"]
                space += [f"{memory['step_ratio']:.2f}"]
            lines.append(
                f"| {shape} | {what.replace('_', ' ')} | {times['plain']['processor']:.2f} "
                f"| {times['ours']['processor']:.2f} | {times['speedup']:.2f} | {times['share_of_bound']:.0%} "
                f"| {space[0]} | {space[1]} |"
            )
    new, kept = result["generation"], result["sense_cache"]
    return "\n".join(lines) + (
        "\n\nThe bound is what the matrix products alone take at the rate of this machine, senses once per distinct "
        f"token.\n\n{new['new_tokens']} tokens generated greedily after 32: {new['ours_seconds']:.1f} s, "
        f"{new['speedup']:.1f} times as fast as the plain way ({new['plain_seconds_interpolated']:.0f} s) and "
        f"{new['share_of_gpt2']:.0%} of the tokens a second of GPT-2 alone ({new['gpt2_seconds']:.1f} s).\n\n"
        f"At {kept['length']} tokens, keeping their senses takes {kept['senses_mb']:.0f} MB beside the backbone's "
        f"{kept['backbone_mb']:.0f} MB and {1e3 * kept['keep_seconds']:.1f} ms a token; computing them again takes "
        f"{1e3 * kept['recompute_seconds']:.0f} ms a token."
    )
