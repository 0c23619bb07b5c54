"""
Write what distinguishes a model from the one it was made of, or put such a delta and its base together.

    sensia delta outputs/smollm2-id smollm2-135m smollm2-sensia-id-delta  # make it: float16, files of 8 MB
    sensia delta smollm2-sensia-id-delta smollm2-135m smollm2-sensia-id   # and back: a folder for `from_pretrained`

A model adapted by parts (`train: lora`) needs a small one. Another base than that of the delta is refused.
"""

from pathlib import Path

from ..utils.arguments import Parser
from ..utils.files import DELTA_FILE, check_new


def parser():
    parser = Parser(prog="sensia delta", description=__doc__)
    parser.add_argument("folder", help="a model, or a delta")
    parser.add_argument("base", help="the model it was made of: folder, Hub id, or one that comes with the package")
    parser.add_argument("output_dir", help="folder to write, which must not exist")
    return parser


def main(argv):
    args = parser().parse_args(argv)
    check_new(args.output_dir)

    from ..hub.delta import apply_delta, make_delta, weight_files

    if (Path(args.folder) / DELTA_FILE).is_file():
        print(f"model folder: {apply_delta(args.folder, args.base, args.output_dir)}")
    else:
        folder = make_delta(args.folder, args.base, args.output_dir)
        size = sum(file.stat().st_size for file in weight_files(folder))
        print(f"delta folder: {folder} ({size / 1e6:.1f} MB of weights)")
