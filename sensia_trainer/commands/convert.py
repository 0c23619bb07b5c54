"""
Convert a published Backpack checkpoint (stanfordnlp/backpack-gpt2, the SENSIA checkpoints, the Levanter family) to a
folder that loads with the Auto classes and `trust_remote_code=True`.

    sensia convert stanfordnlp/backpack-gpt2 backpack-gpt2 --tokenizer gpt2 --text sample.txt

Some checkpoints claim GPT-2's inverse-layer attention scaling but were trained without it. `--text`, some hundred
words of plain text that the model should know, decides: the setting with the lower loss is kept.
"""

from pathlib import Path

from modeling_backpack import BackpackForCausalLM
from modeling_backpack.conversion_backpack import inverse_layer_losses, set_inverse_layer_scaling

from ..evaluation.vectors import keep_vectors
from ..hub.folders import complete_folder
from ..hub.licences import keep_licence
from ..training.parts import merge_updates
from ..utils.arguments import Parser
from ..utils.files import check_new, written_folder
from ..utils.models import load_model, load_tokenizer
from ..vocabulary.extension import keep_report


SCALING = "scale_attn_by_inverse_layer_idx"  # of GPT-2's configuration


def parser():
    parser = Parser(prog="sensia convert", description=__doc__)
    parser.add_argument("checkpoint", help="folder or Hub id in the published layout")
    parser.add_argument("output_dir", help="folder to write")
    parser.add_argument("--tokenizer", help="tokenizer to save beside the weights: folder or Hub id, e.g. gpt2")
    parser.add_argument("--text", help="file of plain text that decides about inverse-layer scaling")
    return parser


def main(argv):
    args = parser().parse_args(argv)
    check_new(args.output_dir)
    model = merge_updates(load_model(args.checkpoint))
    if not isinstance(model, BackpackForCausalLM):
        raise ValueError(
            f"`checkpoint` is {args.checkpoint!r}, a {type(model).__name__}, which has no senses to convert: `sensia "
            "induce` gives it some."
        )
    print(
        f"{model.num_parameters():,} parameters, {model.config.num_senses} senses, scale {model.config.sense_scale:g}"
    )
    tokenizer = _tokenizer(args, model)
    if args.text:
        if tokenizer is None:
            parser().error("--text needs --tokenizer: the checkpoint has none")
        losses = losses_of_scaling(model, tokenizer, args.text)
        print(f"loss with inverse-layer scaling {losses[True]:.4f}, without {losses[False]:.4f} nats a token")
        set_inverse_layer_scaling(model, losses[True] <= losses[False])
    with written_folder(args.output_dir) as written:
        if tokenizer is not None:
            tokenizer.save_pretrained(written)
        model.save_pretrained(written, save_original_format=False)  # an adapter came with names of PEFT
        keep_report(args.checkpoint, written)
        keep_licence(args.checkpoint, written)
        keep_vectors(args.checkpoint, written)
        complete_folder(written)
    scaling = {True: ", inverse-layer scaling on", False: ", inverse-layer scaling off", None: ""}
    print(f"Saved to {args.output_dir}{scaling[getattr(model.config.backbone_config, SCALING, None)]}")


def _tokenizer(args, model):
    """The tokenizer that is named, or that of the checkpoint; None, which is told, where that has none."""
    if args.tokenizer:
        return load_tokenizer(args.tokenizer, model)
    try:
        return load_tokenizer(args.checkpoint, model)
    except (OSError, ValueError):
        print("The checkpoint has no tokenizer; `--tokenizer` names one to put beside the model.")
        return None


def losses_of_scaling(model, tokenizer, file) -> dict[bool, float]:
    """
    The loss of a text with and without inverse-layer scaling.

    Raises:
        `ValueError`: for a model without such scaling, a file that is not in UTF-8, and one of less than two tokens.
    """
    kind = model.config.backbone_config
    if not hasattr(kind, SCALING):
        raise ValueError(f"`text` is {file!r}, but a {kind.model_type} has no inverse-layer scaling: leave it out.")
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"`text` is {file!r}, which is not in UTF-8: convert it, e.g. by `iconv`.") from error
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=model.config.max_position_embeddings)
    if inputs["input_ids"].shape[1] < 2:
        raise ValueError(f"`text` is {file!r}, which has no two tokens: give some hundred words that the model knows.")
    return inverse_layer_losses(model, inputs["input_ids"])
