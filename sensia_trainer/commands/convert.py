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

from ..utils.arguments import Parser
from ..utils.models import load_model, load_tokenizer


def parser():
    parser = Parser(prog="sensia convert", description=__doc__)
    parser.add_argument("checkpoint", help="folder or Hub id in the published layout")
    parser.add_argument("output_dir", help="folder to write")
    parser.add_argument("--tokenizer", help="tokenizer to save beside the weights: folder or Hub id, e.g. gpt2")
    parser.add_argument("--text", help="file of plain text that decides about inverse-layer scaling")
    return parser


def main(argv):
    args = parser().parse_args(argv)
    if args.text and not args.tokenizer:
        parser().error("--text needs --tokenizer")

    model = load_model(args.checkpoint)
    if not isinstance(model, BackpackForCausalLM):
        raise ValueError(
            f"`checkpoint` is {args.checkpoint!r}, a {type(model).__name__}, which has no senses to convert: `sensia "
            "induce` gives it some."
        )
    print(
        f"{model.num_parameters():,} parameters, {model.config.num_senses} senses, scale {model.config.sense_scale:g}"
    )
    if args.tokenizer:
        tokenizer = load_tokenizer(args.tokenizer, model)
        tokenizer.save_pretrained(args.output_dir)
    if args.text:
        text = Path(args.text).read_text(encoding="utf-8-sig")
        length = model.config.max_position_embeddings
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)
        losses = inverse_layer_losses(model, inputs["input_ids"])
        print(f"loss with inverse-layer scaling {losses[True]:.4f}, without {losses[False]:.4f} nats a token")
        set_inverse_layer_scaling(model, losses[True] <= losses[False])
    model.save_pretrained(args.output_dir)
    scaling = model.config.backbone_config.scale_attn_by_inverse_layer_idx
    print(f"Saved to {args.output_dir}, inverse-layer scaling {'on' if scaling else 'off'}")
