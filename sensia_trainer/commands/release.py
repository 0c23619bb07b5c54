"""
Make a Hub-ready folder of a finished run: half-precision weights, linked code, the card.

    python examples/release.py outputs/backpack-micro-en model_cards/backpack-micro-en
    python examples/release.py outputs/sensia-id model_cards/sensia-id --after sensia-id.json --control lm-only-id.json

The results on the card are those of `examples/evaluate.py`; without them, those of the run itself.
"""

import argparse
from pathlib import Path

import modeling_backpack

from ..hub.release import release


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", help="what adapt.py or pretrain.py left")
    parser.add_argument("destination", help="folder to write; its name is the model's")
    parser.add_argument("--dtype", default="float16", help="float16 or bfloat16")
    parser.add_argument("--after", help="results of the released model")
    parser.add_argument("--before", help="results of the base model")
    parser.add_argument("--control", help="results of the control")
    args = vars(parser.parse_args())
    code = Path(modeling_backpack.__file__).parent
    print(release(args.pop("run_folder"), args.pop("destination"), code, **args))
