#!/usr/bin/env python3
"""check_events.py FOLDER.. - what TensorBoard reads of the event files that training has left.

Each FOLDER holds metrics.jsonl and an event file (an adapter, a tuned model). Every number of every
line must be there as a scalar of its step, train/NAME or eval/NAME, to the rounding of f32, and
nothing else. Needs PyPI's tensorboard.
"""
import json
import math
import os
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def expected(path):
    """{tag: {step: value}} of a metrics.jsonl; the last line of a step counts."""
    want = {}
    with open(path, encoding="utf-8") as f:
        for line in map(json.loads, f):
            for name, value in line.items():
                if name == "step" or isinstance(value, bool) or not isinstance(value, (int, float)):
                    continue
                tag = "eval/" + name[5:] if name.startswith("eval_") else "train/" + name
                want.setdefault(tag, {})[line["step"]] = value
    return want


def check(folder):
    events = EventAccumulator(folder, size_guidance={"scalars": 0})
    events.Reload()
    want = expected(os.path.join(folder, "metrics.jsonl"))
    tags = set(events.Tags()["scalars"])
    if tags != set(want):
        return f"tags differ: {sorted(tags ^ set(want))}"
    for tag, values in want.items():
        got = {}
        for e in events.Scalars(tag):
            if e.step in got:
                return f"{tag}: step {e.step} is there twice"
            got[e.step] = e.value
        if set(got) != set(values):
            return f"{tag}: steps {sorted(set(got) ^ set(values))}"
        for step, value in values.items():
            single = struct.unpack("<f", struct.pack("<f", value))[0]
            if not math.isclose(got[step], single, rel_tol=1e-12):
                return f"{tag}: step {step}: {got[step]}, not {value}"
    return None


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    bad = 0
    for folder in sys.argv[1:]:
        why = check(folder)
        print(f"{folder}: {why or 'as in metrics.jsonl'}")
        bad += why is not None
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
