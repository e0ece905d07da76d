#!/usr/bin/env python3
"""A bf16 LoRA step at 2B width, two layers, against transformers + PEFT, with ranks 16 and 4.

    python tools/check_step.py [program [device]]

Of all adapters' gradients, the RMS of the relative errors against PEFT's in float32 must be at most
twice that of PEFT in bf16. Exits 1 when that is broken. Needs torch, transformers, peft,
safetensors and about 2 GB in the temporary folder."""
import json
import os
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from check_wide import VOCABULARY, WIDTHS, build
from make_golden_model import gradients, load

LENGTHS, RANKS = [90, 20, 146], [16, 4]


def documents():
    """[(ids, labels)]: the second half of each document is its targets."""
    docs = []
    for n in LENGTHS:
        tokens = torch.randint(3, VOCABULARY, (n,))
        tokens[0] = 2
        docs.append((tokens, (torch.arange(n) >= n // 2).int()))
    return docs


def make_adapter(folder, rank):
    """A PEFT folder with A and B both non-zero."""
    peft = get_peft_model(load(folder, torch.float32), LoraConfig(
        r=rank, lora_alpha=2 * rank, task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
    with torch.no_grad():
        for name, p in peft.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn_like(p) * (p.shape[1] ** -0.5 if "lora_A" in name else 0.02))
    peft.save_pretrained(os.path.join(folder, "adapter"))


def ours(program, device, folder, docs):
    """Loss and gradients by PEFT's names, of the first step of `sails train`."""
    data, out, dump = (os.path.join(folder, n) for n in ("docs.jsonl", "out", "dump.safetensors"))
    with open(data, "w", encoding="utf-8") as f:
        for tokens, labels in docs:
            print(json.dumps({"tokens": tokens.tolist(), "labels": labels.tolist()}), file=f)
    subprocess.run([program, "train", "--model", folder, "--data", data, "--init-adapter",
                    os.path.join(folder, "adapter"), "--dtype", "bf16", "--device", device,
                    "--batch", str(len(docs)), "--steps", "1", "--out", out, "--json"],
                   check=True, stdout=subprocess.DEVNULL,
                   env=dict(os.environ, SAILS_DUMP="grad*", SAILS_DUMP_FILE=dump))
    with open(out + "/metrics.jsonl", encoding="utf-8") as f:
        loss = json.loads(f.readline())["loss"]
    start = "grad: layer "
    return loss, {f"grad.model.layers.{n[len(start):].replace(': ', '.')}.weight": g
                  for n, g in load_file(dump).items() if n.startswith(start)}


def error(grad, ref):
    """RMS over matrices of the relative error of each; not below any bound where one is NaN."""
    each = [((grad[n].float() - g).norm() / g.norm()).square() for n, g in ref.items()]
    return torch.stack(each).mean().sqrt().item()


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "build/sails"
    device = sys.argv[2] if len(sys.argv) > 2 else "cpu"
    torch.manual_seed(7)
    good = True
    for rank in RANKS:
        with tempfile.TemporaryDirectory() as folder:
            build(WIDTHS["2B"], folder, 2)
            make_adapter(folder, rank)
            docs = documents()
            exact, ref = gradients(folder, docs, torch.float32)
            their_loss, low = gradients(folder, docs, torch.bfloat16)
            loss, grad = ours(program, device, folder, docs)
        mine, their = error(grad, ref), error(low, ref)
        good = good and mine <= 2 * their
        print(f"rank {rank}: loss {exact.item():.5f}, in bf16 {loss:.5f}, PEFT {their_loss:.5f}; error "
              f"of {len(ref)} gradients {mine:.4f}, PEFT {their:.4f}, ratio {mine / their:.3f}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
