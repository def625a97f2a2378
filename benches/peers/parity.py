"""Holds the features of examples/features-3m against parity_ref.json: integer columns
by digest, real ones by four moments, within 1e-9.

    host run examples/features-3m/pipeline.toml --set data=…/events.parquet
    host show features --export features.arrow
    host show split.test --export test.arrow
    host show evaluate.metrics --export metrics.json
    python benches/peers/parity.py features.arrow test.arrow metrics.json
"""
import hashlib
import json
import pathlib
import sys

import numpy as np
import pyarrow as pa

reference = json.loads((pathlib.Path(__file__).parent / "parity_ref.json").read_text())
read = lambda path: pa.ipc.open_file(pa.memory_map(path)).read_all()
features, test = read(sys.argv[1]), read(sys.argv[2])
metrics = json.load(open(sys.argv[3]))
names = {"b0": "n10_bin", "b1": "n11_bin", "b2": "price_bin", "cat": "category", "cty": "country", "dev": "device"}
names |= {f"z{i}": f"x{i}" for i in range(12)}
column = lambda name: features[names.get(name, name)].to_numpy()
row_id = column("row_id")
sides = np.isin(row_id, test["row_id"].to_numpy())
wrong = []


def check(name, found, expected):
    same = abs(found - expected) <= 1e-9 * max(1, abs(expected)) if isinstance(expected, float) else found == expected
    if not same:
        wrong.append((name, found, expected))


digest = lambda values, kind: hashlib.sha256(np.ascontiguousarray(values, kind).tobytes()).hexdigest()[:16]
check("rows", len(row_id), reference["rows"])
check("row_id", digest(row_id, "<i8"), reference["row_id_sha"])
for name in ["label", "b0", "b1", "b2", "cat", "cty", "dev", "hour", "dow", "wknd", "cross", "test", "u_count"]:
    values = sides if name == "test" else column(name)
    check(name, digest(values, "<i4"), reference[name]["sha"])
for name in [f"z{i}" for i in range(12)] + ["u_sum", "u_mean", "u_max", "u_rec"]:
    x = column(name)
    moments = {"mean": x.mean(), "meansq": (x * x).mean(), "cube": (x**3).mean(), "mix": (x * (row_id % 101)).mean()}
    for moment, value in moments.items():
        check(f"{name}.{moment}", float(value), reference[name][moment])
for name in ["auc", "pr_auc", "log_loss", "accuracy"]:
    check(name, metrics[name], reference["metrics"][name])
print("parity" if not wrong else f"{len(wrong)} differ: {wrong[:8]}")
sys.exit(bool(wrong))
