"""What a training costs, on paper: operations, memory and time from the sizes of a model and its batches.

Pure functions of numbers. Operations are those of matrix products that a step cannot do without, a multiplication and
an addition each; `examples/benchmark.py adapt` measures what share of a machine's matrix products training reaches.
Memory is what is alive at the peak of a step; it leaves out the libraries (half a gigabyte) and fragmentation.
"""

import time
from typing import NamedTuple


# What training reaches of a processor's rate of matrix products: measured (`examples/benchmark.py adapt`) on a CPU; on
# GPUs the share of the data sheet that well-kept training loops report.
SHARE_OF_CPU, SHARE_OF_GPU = 0.7, 0.4
# Dense half-precision operations a second and bytes, as the vendors' data sheets have them.
GPUS = {"T4": (65e12, 16e9), "RTX 4090": (165e12, 24e9), "A100": (312e12, 80e9), "H100": (989e12, 80e9)}
# Bytes that a weight takes in float32: itself, its gradient and two moments of AdamW, or itself alone.
TRAINED_BYTES, FROZEN_BYTES = 16, 4
LOGITS_BYTES = 4 * 64 * 2**20  # blocks of logits and what the loss makes of them


class Sizes(NamedTuple):
    """
    What operations and memory depend on.

    Args:
        hidden (`int`): d.
        layers (`int`): Blocks of the backbone.
        attention (`int`): Heads times their width, of the queries.
        keys (`int`): The same of keys and values, fewer with grouped queries.
        inner (`int`): Width inside an MLP.
        mlp_matrices (`int`): 2, or 3 where it is gated.
        vocabulary (`int`): Rows of the embeddings.
        positions (`int`): Learned positions, 0 without.
        tied (`bool`): Whether the head shares the embeddings.
        senses (`int`): K; 0 for a model without senses.
        sense_inner (`int`): Width inside the last MLP of the sense network.
        kept_inner (`int`): Vectors of width `inner` that an MLP keeps of a token for its backward pass: 2 (before and
            behind the activation), 4 where it is gated, 5 with `gelu_new`, which is computed in several steps.
    """

    hidden: int
    layers: int
    attention: int
    keys: int
    inner: int
    mlp_matrices: int
    vocabulary: int
    positions: int = 0
    tied: bool = True
    senses: int = 0
    sense_inner: int = 0
    kept_inner: int = 2


class Trained(NamedTuple):
    """
    What of a model learns; the rest is frozen.

    Args:
        backbone (`bool`): The blocks of the backbone.
        words (`bool`): Embeddings and head, or some of their rows.
        senses (`bool`): Sense network and sense weights.
        updates (`int`): Weights of low-rank updates of frozen matrices.
    """

    backbone: bool = True
    words: bool = True
    senses: bool = True
    updates: int = 0

    @property
    def through_blocks(self) -> bool:
        """Whether gradients go back through the backbone: to its own weights, or to what lies below."""
        return self.backbone or self.words or self.updates > 0


EVERYTHING = Trained()


class Batch(NamedTuple):
    """
    A batch of a step, on all processes.

    Args:
        tokens (`float`): Of all sentences.
        seen (`float`): Pairs of a token and one that it sees, itself included: sum of n (n + 1) / 2.
        distinct (`float`): Distinct tokens, whose senses are computed once.
        labels (`float`): Tokens that are predicted.
    """

    tokens: float
    seen: float
    distinct: float
    labels: float


class Memory(NamedTuple):
    """Bytes: weights with their gradients and optimizer, and what a step keeps for its backward pass."""

    states: float
    activations: float

    @property
    def total(self) -> float:
        return self.states + self.activations


def sizes_of(config) -> Sizes:
    """Sizes of a model of transformers from its configuration, a Backpack's or a decoder's."""
    backbone = getattr(config, "backbone_config", config)
    d, heads = backbone.hidden_size, backbone.num_attention_heads
    width = getattr(backbone, "head_dim", None) or d // heads
    inner = getattr(backbone, "intermediate_size", None) or getattr(backbone, "n_inner", None) or 4 * d
    learned = getattr(backbone, "max_position_embeddings", 0) if backbone.model_type in ("gpt2", "opt") else 0
    senses = getattr(config, "num_senses", 0)
    matrices = 2 if backbone.model_type in ("gpt2", "gpt_neox", "opt", "phi") else 3
    activation = getattr(backbone, "activation_function", None) or getattr(backbone, "hidden_act", None)
    return Sizes(
        hidden=d,
        layers=backbone.num_hidden_layers,
        attention=heads * width,
        keys=(getattr(backbone, "num_key_value_heads", None) or heads) * width,
        inner=inner,
        mlp_matrices=matrices,
        vocabulary=backbone.vocab_size,
        positions=learned or 0,
        tied=bool(config.tie_word_embeddings),
        senses=senses,
        sense_inner=senses and config.sense_intermediate_scale * d,
        kept_inner=4 if matrices == 3 else 5 if activation == "gelu_new" else 2,
    )


def layer_weights(sizes: Sizes) -> int:
    """Weights of the matrices of one block: queries and output, keys and values, MLP."""
    return sizes.hidden * (2 * sizes.attention + 2 * sizes.keys + sizes.mlp_matrices * sizes.inner)


def sense_network_weights(sizes: Sizes) -> int:
    """Weights of the sense network's matrices: a block without mixing (inner width 4 d) and the last MLP."""
    d = sizes.hidden
    return sizes.senses and 8 * d**2 + d * sizes.sense_inner + sizes.sense_inner * sizes.senses * d


def sense_weight_weights(sizes: Sizes) -> int:
    """Weights of the matrix that makes the queries and keys of all senses."""
    return sizes.senses and 2 * sizes.hidden * (sizes.hidden // sizes.senses) * sizes.senses


def parameters(sizes: Sizes) -> int:
    """All weights but biases and norms, which are less than 1 %."""
    return trained_parameters(sizes, EVERYTHING)


def trained_parameters(sizes: Sizes, trained: Trained) -> int:
    """The weights that learn, likewise."""
    words = (sizes.vocabulary * (1 if sizes.tied else 2) + sizes.positions) * sizes.hidden
    network = sense_network_weights(sizes) + sense_weight_weights(sizes)
    of_blocks = sizes.layers * layer_weights(sizes)
    return trained.words * words + trained.backbone * of_blocks + trained.senses * network + trained.updates


def low_rank_updates(sizes: Sizes, rank: int, senses: bool = False) -> int:
    """Weights of the updates of all matrices of the blocks, r (d_in + d_out) each; with `senses` of theirs too."""
    d = sizes.hidden
    sides = 2 * (d + sizes.attention) + 2 * (d + sizes.keys) + sizes.mlp_matrices * (d + sizes.inner)
    of_senses = 14 * d + 2 * sizes.sense_inner + sizes.senses * d if senses and sizes.senses else 0
    return rank * (sizes.layers * sides + of_senses)


def training_operations(
    sizes: Sizes, batch: Batch, chunked: bool = False, trained: Trained = EVERYTHING, head_products: int = 0
) -> float:
    """
    Operations of one training step: twice the multiplications of each matrix product forward, as many for the
    gradient of what enters it and of its weights, where these are wanted; senses once per distinct token, logits
    where a label is, padding and the future not counted.

    Args:
        chunked (`bool`, *optional*, defaults to `False`): Whether the contrastive batch is computed in chunks
            (`contrastive_chunk_size`), which costs one more forward pass without logits.
        trained ([`Trained`], *optional*): What of the model learns, everything by default.
        head_products (`int`, *optional*, defaults to 0): Products of the labelled states with the head besides those
            of one loss: [`induction_head_products`] of an induction.
    """
    d, again = sizes.hidden, int(chunked)
    through_senses = trained.senses or trained.words
    blocks = 1 + again + trained.through_blocks + trained.backbone
    attention = 1 + again + 2 * trained.through_blocks
    network = 1 + again + through_senses + trained.senses
    weights = 1 + again + trained.through_blocks + trained.senses
    mixing = 1 + again + 2 * (through_senses or trained.through_blocks)
    products = sizes.layers * (
        blocks * batch.tokens * layer_weights(sizes) + attention * batch.seen * 2 * sizes.attention
    )
    products += batch.distinct * network * sense_network_weights(sizes)
    products += batch.tokens * (weights * sense_weight_weights(sizes) + 3 * trained.updates)
    if sizes.senses:
        products += mixing * batch.seen * (sense_weight_weights(sizes) // (2 * d) + sizes.senses * d)
    head = 2 + trained.words + head_products
    return 2 * (products + head * batch.labels * d * sizes.vocabulary)


def induction_head_products(mixture_weight: float) -> int:
    """What an induction multiplies with the head besides a loss: the state of the base, to distil from, and, for the
    loss of the senses alone, the mixture, whose gradient is one product more."""
    return 1 + 2 * (mixture_weight > 0)


def training_memory(
    sizes: Sizes,
    batch: Batch,
    *,
    half: bool = False,
    processes: int = 1,
    tensor_parallel: int = 1,
    trained: Trained = EVERYTHING,
) -> Memory:
    """
    Memory of one process at the peak of a step with AdamW, in bytes.

    Args:
        batch ([`Batch`]): What is computed at once, on one process.
        half (`bool`, *optional*, defaults to `False`): bfloat16 or float16 autocast: what matrices give takes two
            bytes, norms and sums four, and the matrices have a copy in half precision.
        processes (`int`, *optional*, defaults to 1): Processes among which FSDP shards weights, gradients and
            optimizer; the largest block is whole while it is computed.
        tensor_parallel (`int`, *optional*, defaults to 1): Processes among which each matrix is split. The states
            between the blocks and the sense weights stay whole.
        trained ([`Trained`], *optional*): What of the model learns, everything by default: the rest has neither
            gradients nor moments, and blocks that no gradient goes through keep nothing.
    """
    d, bytes_of = sizes.hidden, 2 if half else 4
    learn = trained_parameters(sizes, trained)
    number = parameters(sizes) + trained.updates
    states = learn * TRAINED_BYTES + (number - learn) * FROZEN_BYTES
    states = (states + number * (2 if half else 0)) / (processes * tensor_parallel)  # the copy of autocast
    if processes > 1:
        whole = max(layer_weights(sizes), sense_network_weights(sizes), sizes.vocabulary * d) / tensor_parallel
        states += whole * (bytes_of + 4)  # gathered, and its gradient before it is scattered
    # Of a block: inputs of both norms and what they give, both sums, which autocast leaves in float32; of the split
    # matrices: queries, keys, values and what attention gives, with rotary positions queries and keys once more, in
    # float32, and what the MLP keeps.
    split = (2 * sizes.attention + 2 * sizes.keys + sizes.kept_inner * sizes.inner) * bytes_of
    split += 0 if sizes.positions else (sizes.attention + sizes.keys) * 4
    of_token = sizes.layers * (6 * d * 4 + split / tensor_parallel) if trained.through_blocks else 0
    activations = batch.tokens * of_token
    if sizes.senses:
        # Senses of distinct tokens and the layers before them; of every token its senses and their gradient, and the
        # sense weights. Norms, sums and softmax are in float32 here, too.
        kept = batch.distinct * (8 * d + 2 * sizes.sense_inner + 2 * sizes.senses * d)
        kept += batch.tokens * 2 * sizes.senses * d
        in_float32 = batch.distinct * 6 * d + batch.tokens * 4 * d + 4 * sizes.senses * batch.seen
        activations += kept * bytes_of + in_float32 * 4
    return Memory(states, activations + LOGITS_BYTES)


def average_batch(
    pairs: float, source: float, target: float, vocabulary: int, both_sides: bool = False, texts=()
) -> Batch:
    """
    A batch of that many pairs whose sides have so many tokens on average, and of `texts` beside them, all of whose
    tokens are predicted: for each kind, their number for each pair and tokens of one.

    Distinct tokens by Heaps' law, 10 n^0.6 at most n and the vocabulary, which fits bitext of several domains (64
    pairs of 20 to 30 tokens have 900 to 1,200 distinct ones). Lengths vary: the mean of squares is 1.5 times the
    square of the mean.
    """
    parts = [(1, source), (1, target), *texts]
    tokens = pairs * sum(number * n for number, n in parts)
    seen = pairs * sum(number * (1.5 * n**2 + n) / 2 for number, n in parts)
    distinct = min(tokens, 10 * tokens**0.6, vocabulary)
    return Batch(tokens, seen, distinct, tokens - (0 if both_sides else pairs * source))


def fewest_processes(
    sizes: Sizes, batch: Batch, room: float, most: int = 64, trained: Trained = EVERYTHING
) -> tuple[int, Memory] | None:
    """The least power of two of processes with `room` bytes each, among which FSDP shards, that hold a training; each
    computes its part of the batch. `None` where `most` do not. A tenth of the room is left free."""
    processes = 1
    while processes <= most:
        part = Batch(*(number / processes for number in batch))
        part = part._replace(distinct=min(batch.distinct, part.tokens))
        memory = training_memory(sizes, part, half=True, processes=processes, trained=trained)
        if memory.total <= 0.9 * room:
            return processes, memory
        processes *= 2
    return None


def blocks_batch(blocks: int, length: int, vocabulary: int) -> Batch:
    """A batch of blocks of text, each of `length` tokens, with distinct tokens as in [`average_batch`]."""
    tokens = blocks * length
    seen = blocks * length * (length + 1) / 2
    return Batch(tokens, seen, min(tokens, 10 * tokens**0.6, vocabulary), blocks * (length - 1))


def step_batch(counts: tuple[float, float], pairs: float, vocabulary: int, args, texts=()) -> Batch:
    """The batch that an adaptation sees of `pairs` whose sides have `counts` tokens, with `texts` as
    [`average_batch`]: language modelling alone reads the labelled side."""
    both = args.source_lm_weight > 0
    seen = counts if _aligns(args) or both else (0, counts[1])
    return average_batch(pairs, *seen, vocabulary, both, texts)


def pairs_at_once(args) -> int:
    """Pairs of an adaptation that one process computes at a time."""
    return min(args.contrastive_chunk_size or args.train_batch_size, args.train_batch_size)


def is_chunked(args) -> bool:
    """Whether an adaptation computes its contrastive batches in chunks."""
    return _aligns(args) and args.contrastive_chunk_size > 0


def _aligns(args) -> bool:
    return args.w_sense != 0 or args.w_context != 0


def matrix_product_rate(
    size: int = 2048, seconds: float = 1.0, processor: bool = False, average: bool = False, dtype=None
) -> float:
    """Operations a second of the fastest of the matrix products that this machine's processor makes in that time, in
    `dtype` (float32 by default); with `processor` a second of processor time, the sum over threads; with `average` of
    all of them: what else the machine does has its share."""
    import torch

    clock = time.process_time if processor else time.perf_counter
    a, b = (torch.randn(size, size).to(dtype or torch.float32) for _ in range(2))
    ends = [clock()]
    while ends[-1] - ends[0] < seconds:
        a @ b
        ends.append(clock())
    each = [end - start for start, end in zip(ends, ends[1:])]
    return 2 * size**3 / (sum(each) / len(each) if average else min(each))
