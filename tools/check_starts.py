#!/usr/bin/env python3
"""Starts that are taken off again, against PEFT's of the same name, in float32 on a golden model.

    python tools/check_starts.py [sails]

A folder that sails writes must load in PEFT, leave the base's logits alone before training (to
1e-5), and after it compute what PEFT's form does, a base W - s B0 A0 with A and B on it (1e-5). The
starts themselves must agree as products B A, relative to their norm, to 1e-5 and what PEFT's SVD in
float32 may turn the space of the R largest singular values by: its backward error, at most
max(in, out) 2^-24 of the largest, over the gap behind the R-th. Exits 1 when a bound is broken."""
import json
import os
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import Gemma2ForCausalLM

MODEL, R, ALPHA = "tests/golden/model_a", 3, 6
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def base_model():
    return Gemma2ForCausalLM.from_pretrained(MODEL, dtype=torch.float32,
                                             attn_implementation="eager").eval()


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens[None].long()).logits[0]


def train(sails, scratch, init, lr):
    """An adapter folder after three steps at this rate."""
    out = os.path.join(scratch, f"{init}-{lr}")
    subprocess.run([sails, "train", "--model", MODEL, "--data", os.path.join(scratch, "data.jsonl"),
                    "--init", init, "--rank", str(R), "--alpha", str(ALPHA), "--lr", str(lr),
                    "--schedule", "constant", "--batch", "2", "--steps", "3", "--max-length", "64",
                    "--dtype", "f32", "--device", "cpu", "--json", "--out", out],
                   check=True, stdout=subprocess.DEVNULL)
    return out


def halves(folder):
    """Of each module A, B and the start's A0, B0."""
    found = {}
    for name, t in load_file(os.path.join(folder, "adapter_model.safetensors")).items():
        module, factor = name.rsplit(".lora_", 1)
        first, second = (t[:R], t[R:]) if factor[0] == "A" else (t[:, :R], -t[:, R:])
        found.setdefault(module, {})[factor[0]] = (first, second)
    return found


def check(sails, scratch, tokens, init):
    errors = {}
    before, after = (train(sails, scratch, init, lr) for lr in (0, 1e-3))
    ref = logits(base_model(), tokens)
    errors["base"] = (logits(PeftModel.from_pretrained(base_model(), before).eval(), tokens)
                      - ref).abs().max().item()
    own = get_peft_model(base_model(), LoraConfig(r=R, lora_alpha=ALPHA, init_lora_weights=init,
                                                  target_modules=TARGETS)).eval()
    moved, start = halves(after), halves(before)
    errors["start"], turned = 0, 0
    with torch.no_grad():
        for name, module in own.named_modules():
            if name not in moved:
                continue
            A, B = module.lora_A["default"].weight, module.lora_B["default"].weight
            want, got = B @ A, start[name]["B"][1] @ start[name]["A"][1]
            W = module.base_layer.weight + ALPHA / R * want
            s = torch.linalg.svdvals(W.double())
            if init == "pissa":
                turned = max(W.shape) * 2.0**-24 * (s[0] / (s[R - 1] - s[R])).item()
            off = ((got - want).norm() / want.norm()).item()
            errors["start"] = max(errors["start"], off - turned)
            module.base_layer.weight.copy_(W - ALPHA / R * got)
            A.copy_(moved[name]["A"][0])
            B.copy_(moved[name]["B"][0])
    trained = logits(PeftModel.from_pretrained(base_model(), after).eval(), tokens)
    errors["trained"] = (logits(own, tokens) - trained).abs().max().item()
    change = (trained - ref).abs().max().item()
    print(f"{init}: base moves by {errors['base']:.1e}, start off by {errors['start']:.1e} more than "
          f"PEFT's may be, trained off by {errors['trained']:.1e} of a change of {change:.1e}")
    return change > 0.1 and all(e <= 1e-5 for e in errors.values())


def main():
    sails = sys.argv[1] if len(sys.argv) > 1 else "build/sails"
    golden = load_file(os.path.join(MODEL, "golden.safetensors"))
    with tempfile.TemporaryDirectory() as scratch:
        with open(os.path.join(scratch, "data.jsonl"), "w", encoding="ascii") as f:
            for d in range(4):
                print(json.dumps({"tokens": golden[f"doc{d}.tokens"].tolist()}), file=f)
        good = [check(sails, scratch, golden["doc3.tokens"], init) for init in ("pissa", "olora")]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
