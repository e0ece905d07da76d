"""A training run of sails, measured from outside: rate from its own log, without the first step,
and its peak of memory beyond the weights.

    SAILS=... THREADS=2 run_sails.py MODEL TOKENIZER DATA bf16|f32 lora|full|dpo"""
import glob
import json
import os
import resource
import subprocess
import sys
import tempfile

STEPS = 4


def main():
    folder, tokenizer, data, dtype, method = sys.argv[1:]
    options = [] if method == "full" else ["--init", "lora"]
    with open(data, encoding="utf-8") as lines:
        examples = sum(1 for _ in lines)
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([os.environ["SAILS"], "train", "--model", folder, "--tokenizer", tokenizer,
                        "--data", data, "--method", method, *options, "--dtype", dtype,
                        "--batch", str(examples), "--steps", str(STEPS),
                        "--threads", os.environ["THREADS"], "--out", out],
                       check=True, stdout=sys.stderr)
        with open(out + "/metrics.jsonl", encoding="utf-8") as lines:
            steps = [json.loads(line) for line in lines][1:]
    weights = sum(os.path.getsize(f) for f in glob.glob(folder + "/*.safetensors"))
    if dtype == "f32":  # the file is bf16: its pages are read, and held converted
        weights *= 2
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    rate = sum(s["step_tokens"] for s in steps) / sum(s["ms"] for s in steps) * 1000
    print(json.dumps({"rate": rate, "tokens": steps[-1]["step_tokens"], "peak": peak - weights,
                      "loss": steps[-1]["loss"]}))


if __name__ == "__main__":
    main()
