"""
Make a Hub-ready folder of a finished run: half-precision weights, linked code, the card.

    python examples/release.py outputs/backpack-micro-en model_cards/backpack-micro-en
"""

import argparse
from pathlib import Path

import modeling_backpack
from sensia_trainer.release import release


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", help="what adapt.py or pretrain.py left")
    parser.add_argument("destination", help="folder to write; its name is the model's")
    parser.add_argument("--dtype", default="float16", help="float16 or bfloat16")
    args = parser.parse_args()
    print(release(args.run_folder, args.destination, Path(modeling_backpack.__file__).parent, args.dtype))


if __name__ == "__main__":
    main()
