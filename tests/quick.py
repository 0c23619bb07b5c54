"""What every training does and no test asks for, left out: it took a third of the time that all tests take.

Writing waits for no disk (that it does is tested by itself), the speed of this machine is measured for a moment, the
collector of garbage leaves alone what was there before the first test, and a PNG is one pixel where the SVG beside it,
which tests read, is drawn (but with `real_pictures`: to draw one moves what is in the other by a hair).
"""

import gc
import os
import struct
import zlib
from pathlib import Path

from matplotlib.figure import Figure


savefig = Figure.savefig


def quicken() -> None:
    """In this process, from now on."""
    import sensia_trainer.training.progress as progress

    progress.MEASURED_SECONDS = 0.01
    os.fsync = lambda descriptor: None
    Figure.savefig = _without_png
    gc.collect()
    gc.freeze()


def _without_png(self, file, **options):
    if options.get("format") != "png":
        return savefig(self, file, **options)
    Path(file).write_bytes(ONE_PIXEL)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


ONE_PIXEL = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
ONE_PIXEL += _chunk(b"IDAT", zlib.compress(b"\0\xff")) + _chunk(b"IEND", b"")
