"""
Make a Hub-ready folder of a finished run: half-precision weights, the model's code, the card.

    sensia release outputs/backpack-micro-en model_cards/backpack-micro-en
    sensia release outputs/sensia-id model_cards/sensia-id --after sensia-id.json --control lm-only-id.json
    sensia release --refresh model_cards/*  # code, figures and cards of this version; the weights stay

The results on the card are those of `sensia evaluate`; without them, those of the run itself. To refresh is to render
cards anew: what was written into one by hand is lost.
"""

from ..utils.arguments import Parser


def parser():
    parser = Parser(prog="sensia release", description=__doc__)
    parser.add_argument("folders", nargs="+", help="what a finished run left, and where to write")
    parser.add_argument(
        "--refresh", action="store_true", help="bring released folders, as many as are given, up to date"
    )
    parser.add_argument("--dtype", help="float16, bfloat16 or float32; by default float16 where it holds every weight")
    parser.add_argument("--license", help="licence of the weights, in place of what follows from the text's")
    parser.add_argument("--text_licence", help="licence of the text beside the pairs, where the recipe did not say it")
    parser.add_argument("--title", help="first line of the card, in place of the one made of size and languages")
    parser.add_argument("--after", help="results of the released model")
    parser.add_argument("--before", help="results of the base model")
    parser.add_argument("--control", help="results of the control")
    return parser


def main(argv):
    command = parser()
    args = vars(command.parse_args(argv))

    from ..hub.release import refresh, release

    folders, refreshing = args.pop("folders"), args.pop("refresh")
    if refreshing:
        text_licence = args.pop("text_licence")
        given = [name for name, value in args.items() if value is not None]
        if given:
            command.error(f"--refresh takes folders alone, not --{given[0]}")
        for folder in folders:
            print(refresh(folder, text_licence))
    elif len(folders) != 2:
        command.error(f"two folders are needed, the run's and the one to write; got {len(folders)}")
    else:
        print(release(*folders, **args))
