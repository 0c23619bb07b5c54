"""
Make a Hub-ready folder of a finished run: half-precision weights, linked code, the card.

    sensia release outputs/backpack-micro-en model_cards/backpack-micro-en
    sensia release outputs/sensia-id model_cards/sensia-id --after sensia-id.json --control lm-only-id.json

The results on the card are those of `sensia evaluate`; without them, those of the run itself.
"""

from pathlib import Path

import modeling_backpack

from ..hub.release import release
from ..utils.arguments import Parser


def parser():
    parser = Parser(prog="sensia release", description=__doc__)
    parser.add_argument("run_folder", help="what `sensia adapt` or `sensia pretrain` left")
    parser.add_argument("destination", help="folder to write; its name is the model's")
    parser.add_argument("--dtype", default="float16", help="float16 or bfloat16")
    parser.add_argument("--after", help="results of the released model")
    parser.add_argument("--before", help="results of the base model")
    parser.add_argument("--control", help="results of the control")
    return parser


def main(argv):
    args = vars(parser().parse_args(argv))
    code = Path(modeling_backpack.__file__).parent
    print(release(args.pop("run_folder"), args.pop("destination"), code, **args))
