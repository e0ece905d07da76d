"""Greedy replies by transformers' model.generate: batches of 8, padded on the left, key/value cache.

    THREADS=2 generate_hf.py MODEL PROMPTS bf16|f32 NEW

PROMPTS: JSONL of {"tokens": [...]}; NEW: tokens of every reply, none ends early. The first batch
warms up with two tokens and is not timed."""
import json
import os
import sys
import time

import torch
from transformers import AutoModelForCausalLM

BATCH = 8
DTYPE = {"bf16": torch.bfloat16, "f32": torch.float32}


@torch.no_grad()
def generate(model, prompts, new):
    longest = max(len(p) for p in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt):] = torch.tensor(prompt)
        mask[row, longest - len(prompt):] = 1
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False,
                         pad_token_id=0)
    return out[:, longest:].numel()


def main():
    folder, path, dtype, new = sys.argv[1:]
    torch.set_num_threads(int(os.environ["THREADS"]))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPE[dtype]).eval()
    model.generation_config.eos_token_id = None
    with open(path, encoding="utf-8") as lines:
        prompts = [json.loads(line)["tokens"] for line in lines]
    generate(model, prompts[:BATCH], 2)
    start = time.perf_counter()
    made = sum(generate(model, prompts[at:at + BATCH], int(new))
               for at in range(0, len(prompts), BATCH))
    print(json.dumps({"rate": made / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main()
