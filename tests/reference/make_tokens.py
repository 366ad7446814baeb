#!/usr/bin/env python3
"""Makes data/tokens_*.h5, token streams as people write them with h5py, which tests/data imports. Needs h5py, numpy.

Every stream is the same 1000 tokens: i * i % 50000, but every 37th is 0, which ends a document.
"""
import pathlib

import h5py
import numpy as np

OUT = pathlib.Path(__file__).parent / "data"
tokens = np.arange(1000, dtype=np.int64) ** 2 % 50000
tokens[1:][tokens[1:] == 0] = 1
tokens[0] = 1
tokens[::37] = 0

with h5py.File(OUT / "tokens_one.h5", "w") as file:  # the usual: grown as it was written, packed
    grown = file.create_dataset("input_ids", (0,), "uint16", maxshape=(None,), chunks=(128,), compression="gzip", shuffle=True)
    for part in np.array_split(tokens, 7):
        grown.resize(grown.size + part.size, axis=0)
        grown[-part.size :] = part
    file.attrs["tokenizer"] = "gpt2"

with h5py.File(OUT / "tokens_many.h5", "w", libver=("v110", "v110"), track_order=True) as file:
    file["plain"] = tokens.astype("int32")
    file["big_endian"] = tokens.astype(">u2")
    file["nested/deep/int64"] = tokens
    file.create_dataset("checked", data=tokens.astype("uint32"), chunks=(100,), fletcher32=True)
    file["rows"] = tokens.astype("uint16").reshape(10, 100)
    file["one"] = np.int32(5)
    file["real"] = tokens.astype("float32")
    file["signed"] = np.array([-1, 5, 0], "int8")
    file["text"] = ["a", "b"]
    per_document = file.create_dataset("ragged", (2,), h5py.vlen_dtype(np.int32))
    per_document[0], per_document[1] = [1, 2, 0], [3, 0]
    file["empty"] = np.zeros(0, "uint16")

for path in sorted(OUT.glob("tokens_*.h5")):
    print(path, path.stat().st_size, "bytes")
