"""The texts of a bitext as Arrow columns: no pair becomes a Python object on the way."""

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..languages import find_language


# What `str.strip` removes and `str.isspace` knows; none of it lies further on.
WHITESPACE = "".join(character for character in map(chr, range(0x3001)) if character.isspace())


def sides(dataset: datasets.Dataset) -> list[str]:
    """The keys of `translation`, in the order in which the rows hold them."""
    return [field.name for field in dataset.data.schema.field("translation").type]


def column(dataset: datasets.Dataset, name: str) -> pa.ChunkedArray:
    """A column of the dataset; of its rows alone, in their order, where it is a selection of a larger one."""
    values = dataset.data.column(name)
    return values if dataset._indices is None else select_rows(values, dataset._indices.column(0).to_numpy())


def select_rows(values, rows: np.ndarray):
    """Rows of a table or a column. Filtered chunk by chunk first, for `take` joins all chunks of what it is given,
    which of a large text takes long, and fails above 2 GB."""
    mask = np.zeros(len(values), bool)
    mask[rows] = True
    found = values.filter(pa.array(mask))
    places = np.searchsorted(np.flatnonzero(mask), rows)
    return found if np.array_equal(places, np.arange(len(found))) else found.take(pa.array(places))


def key_of(dataset: datasets.Dataset, code: str) -> str | None:
    """The key of `translation` that holds a language, in whatever form it is given there; `None` where none does."""
    keys = sides(dataset)
    same = [key for key in keys if find_language(key) is not None and find_language(key) == find_language(code)]
    return code if code in keys else next(iter(same), None)


def texts(dataset: datasets.Dataset, code: str) -> pa.ChunkedArray:
    """The texts of one side, `(n,)` strings. `ValueError` where the bitext does not hold the language."""
    key = key_of(dataset, code)
    if key is None:
        raise ValueError(f"The bitext has no side in {code!r}; its `translation` holds {sorted(sides(dataset))}.")
    return pc.struct_field(column(dataset, "translation"), key).cast(pa.string())


def is_blank(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Which texts hold nothing but whitespace, or are missing, `(n,)` bool."""
    trimmed = pc.utf8_trim(values, characters=WHITESPACE)
    return pc.equal(pc.binary_length(trimmed), 0).fill_null(True).to_numpy(zero_copy_only=False)
