"""The texts of a bitext as Arrow columns: no pair becomes a Python object on the way."""

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


# What `str.strip` removes and `str.isspace` knows; none of it lies further on.
WHITESPACE = "".join(character for character in map(chr, range(0x3001)) if character.isspace())


def sides(dataset: datasets.Dataset) -> list[str]:
    """The keys of `translation`, in the order in which the rows hold them."""
    return [field.name for field in dataset.data.schema.field("translation").type]


def column(dataset: datasets.Dataset, name: str) -> pa.ChunkedArray:
    """A column of the dataset; of its rows alone, in their order, where it is a selection of a larger one."""
    values, chosen = dataset.data.column(name), dataset._indices
    if chosen is None:
        return values
    rows = chosen.column(0).to_numpy()
    if len(rows) > 1 and not (rows[1:] > rows[:-1]).all():
        return values.take(chosen.column(0))
    mask = np.zeros(len(values), bool)
    mask[rows] = True
    return values.filter(mask)


def texts(dataset: datasets.Dataset, side: str) -> pa.ChunkedArray:
    """The texts of one side, `(n,)` strings."""
    return pc.struct_field(column(dataset, "translation"), side).cast(pa.string())


def is_blank(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Which texts hold nothing but whitespace, or are missing, `(n,)` bool."""
    trimmed = pc.utf8_trim(values, characters=WHITESPACE)
    return pc.equal(pc.binary_length(trimmed), 0).fill_null(True).to_numpy(zero_copy_only=False)
