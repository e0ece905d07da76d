"""What the peers' scripts share: documents, adapters, and one line of result.

Documents come tokenised from `sails tokenize`, so that all sides train on the same ids and labels."""
import json
import os
import resource
import time

import torch

DEVICE = os.environ.get("DEVICE", "cpu")  # or cuda, of train_hf.py alone
IGNORED = -100  # label of a token that is no target
RANK, ALPHA = 16, 32
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def documents(path):
    """[(ids, labels)] of a file that `sails tokenize` wrote; a label is the id, or IGNORED."""
    found = []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            ids = record["tokens"]
            found.append((ids, [t if l else IGNORED for t, l in zip(ids, record["labels"])]))
    return found


def lora_config():
    """The adapters that `sails train --init lora` makes."""
    from peft import LoraConfig
    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")


def dtype_named(name):
    return {"bf16": torch.bfloat16, "f32": torch.float32}[name]


def use_threads():
    torch.set_num_threads(int(os.environ["THREADS"]))


def clock():
    """Seconds, when the device has done all that it was asked for."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def tokens_of(docs):
    return sum(len(ids) for ids, _ in docs)


def weight_bytes(tensors):
    """Of distinct tensors: a tied one counts once."""
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def report(tokens, seconds, weights, steps=1, **more):
    """The result, as common.sh reads it: of steps of so many tokens each. peak: bytes in use at most,
    beyond the weights."""
    peak = (torch.cuda.max_memory_allocated() if DEVICE == "cuda" else
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(json.dumps({"rate": steps * tokens / seconds, "tokens": tokens, "peak": peak - weights,
                      **more}))
