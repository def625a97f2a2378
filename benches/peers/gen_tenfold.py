"""Ten times the rows of gen_data.py, with ten seeds: OUT.parquet, in row groups of 262,144.
usage: gen_tenfold.py OUT.parquet
"""
import pathlib
import sys

import pyarrow.parquet as pq

ROWS, TIMES = 3_000_000, 10
text = (pathlib.Path(__file__).parent / "gen_data.py").read_text()
imports = text[text.index("import sys") : text.index("d, n =")]
body = text[text.index("r = np.random.Generator") : text.index("t = pa.table(c)")]
writer = None
for k in range(TIMES):
    scope = {"n": ROWS}
    exec(imports + body.replace("PCG64(20250101)", f"PCG64({20250101 + k})"), scope)
    columns = scope["c"]
    columns["row_id"] = columns["row_id"] + k * ROWS
    table = scope["pa"].table({name: column for name, column in columns.items() if name not in ("item_id", "n12", "n13", "n14")})
    writer = writer or pq.ParquetWriter(sys.argv[1], table.schema, compression="zstd")
    writer.write_table(table, row_group_size=262_144)
writer.close()
