#!/usr/bin/env python3
"""Makes data/texts.parquet, which tests/data reads: six rows in three row groups, nulls among them. Needs pyarrow."""
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
