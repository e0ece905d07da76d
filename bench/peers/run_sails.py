"""A training run of sails, measured from outside: rate from its own log, without the first step,
and its peak of memory beyond the weights.

    SAILS=... THREADS=2 run_sails.py MODEL DATA bf16|f32 DOCUMENTS"""
import glob
import json
import os
import resource
import subprocess
import sys
import tempfile

STEPS = 4


def main():
    folder, data, dtype, docs = sys.argv[1:]
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([os.environ["SAILS"], "train", "--model", folder, "--data", data, "--init",
                        "lora", "--dtype", dtype, "--batch", docs, "--steps", str(STEPS),
                        "--threads", os.environ["THREADS"], "--out", out],
                       check=True, stdout=sys.stderr)
        with open(out + "/metrics.jsonl", encoding="utf-8") as lines:
            steps = [json.loads(line) for line in lines][1:]
    weights = sum(os.path.getsize(f) for f in glob.glob(folder + "/*.safetensors"))
    if dtype == "f32":  # the file is bf16: its pages are read, and held converted
        weights *= 2
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    rate = sum(s["step_tokens"] for s in steps) / sum(s["ms"] for s in steps) * 1000
    print(json.dumps({"rate": rate, "peak": peak - weights, "loss": steps[-1]["loss"]}))


if __name__ == "__main__":
    main()
