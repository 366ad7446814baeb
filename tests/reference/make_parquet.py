#!/usr/bin/env python3
"""Makes data/texts.parquet, which tests/data reads: six rows in three row groups, nulls among them; and
data/ill_formed.parquet, whose second row is no UTF-8. Needs pyarrow."""
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

texts = ["first", None, "", "dr\u00f6lf \U0001F680", "y" * 5000, "last"]
table = pa.table(
    {"text": pa.array(texts, pa.string()), "url": [f"u{i}" for i in range(6)], "id": pa.array(range(6), pa.int64())}
)
out = pathlib.Path(__file__).parent / "data" / "texts.parquet"
pq.write_table(table, out, row_group_size=2, compression="zstd", use_dictionary=["url"])
print(out, out.stat().st_size, "bytes")

ill_formed = out.with_name("ill_formed.parquet")
pq.write_table(pa.table({"text": pa.array([b"fine", b"x\xffy"], pa.binary())}), ill_formed)
print(ill_formed, ill_formed.stat().st_size, "bytes")
