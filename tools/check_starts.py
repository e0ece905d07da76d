#!/usr/bin/env python3
"""Starts that are taken off again, against PEFT's of the same name, in float32 on a golden model.

    python tools/check_starts.py [sails]

A folder that sails writes must load in PEFT, leave the base's logits alone before training (to
1e-5), and after it compute what PEFT's form does, a base W - s B0 A0 with A and B on it (1e-5). The
starts themselves must agree as products B A, relative to their norm, to 1e-5 and what PEFT's SVD in
float32 may turn the space of the R largest singular values by: its backward error, at most
max(in, out) 2^-24 of the largest, over the gap behind the R-th.

PEFT's LoRA-GA scales another way than its authors, whom sails follows: of it the directions are
compared, as spans of A's rows and of B's columns, with those of PEFT's gradient in double. They may
be off by 2e-5 of its norm over the gaps beside them; how far PEFT's own are is printed. Exits 1 when
a bound is broken."""
import json
import math
import os
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import LoraGAConfig
from peft.tuners.lora.loraga import preprocess_loraga
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
                    "--schedule", "constant", "--batch", "4" if init == "lora-ga" else "2", "--steps", "3", "--max-length", "64",
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


def angle(a, b):
    """The largest between the spans of these columns."""
    a, b = (torch.linalg.qr(x.double())[0] for x in (a, b))
    return math.asin(min(1, torch.linalg.svdvals(b - a @ (a.T @ b))[0].item()))


def check_lora_ga(start, docs):
    """By how much directions are off beyond their bound, at most."""
    config = LoraConfig(r=R, lora_alpha=ALPHA, init_lora_weights="lora_ga",
                        lora_ga_config=LoraGAConfig(), target_modules=TARGETS)
    model = base_model()

    def step():
        for t in docs:
            torch.nn.functional.cross_entropy(model(t[None]).logits[0, :-1], t[1:],
                                              reduction="sum").backward()

    preprocess_loraga(model, config, step)
    grads = {f"base_model.model.{name}": m._peft_loraga_grad.double()
             for name, m in model.named_modules() if hasattr(m, "_peft_loraga_grad")}
    torch.manual_seed(0)  # PEFT's decomposition is randomised
    theirs = dict(get_peft_model(model, config).named_modules())
    worst, ours_off, peft_off = -math.inf, 0, 0
    for name, G in grads.items():
        U, S, Vh = torch.linalg.svd(G)
        gap = min(S[R - 1] - S[R], S[2 * R - 1] - S[2 * R]).item()
        want = Vh[:R].T, U[:, R:2 * R]
        A, B = (getattr(theirs[name], f"lora_{f}")["default"].weight.detach() for f in "AB")
        own = max(angle(start[name]["A"][1].T, want[0]), angle(start[name]["B"][1], want[1]))
        ours_off, worst = max(ours_off, own), max(worst, own - 2e-5 * G.norm().item() / gap)
        peft_off = max(peft_off, angle(A.T, want[0]), angle(B, want[1]))
    print(f"lora-ga: directions off by {ours_off:.1e}, PEFT's own by {peft_off:.1e}")
    return max(worst, 0) if set(grads) == set(start) else math.inf


def check(sails, scratch, docs, init):
    errors = {}
    tokens = docs[3]
    before, after = (train(sails, scratch, init, lr) for lr in (0, 1e-3))
    ref = logits(base_model(), tokens)
    errors["base"] = (logits(PeftModel.from_pretrained(base_model(), before).eval(), tokens)
                      - ref).abs().max().item()
    form = True if init == "lora-ga" else init  # its factors are set below
    own = get_peft_model(base_model(), LoraConfig(r=R, lora_alpha=ALPHA, init_lora_weights=form,
                                                  target_modules=TARGETS)).eval()
    moved, start = halves(after), halves(before)
    errors["start"] = check_lora_ga(start, docs) if init == "lora-ga" else 0
    turned = 0
    with torch.no_grad():
        for name, module in own.named_modules():
            if name not in moved:
                continue
            A, B = module.lora_A["default"].weight, module.lora_B["default"].weight
            want, got = B @ A, start[name]["B"][1] @ start[name]["A"][1]
            if init == "lora-ga":
                W = module.base_layer.weight.clone()
            else:
                W = module.base_layer.weight + ALPHA / R * want
            s = torch.linalg.svdvals(W.double())
            if init == "pissa":
                turned = max(W.shape) * 2.0**-24 * (s[0] / (s[R - 1] - s[R])).item()
            if init != "lora-ga":
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
        docs = [golden[f"doc{d}.tokens"].long() for d in range(4)]
        good = [check(sails, scratch, docs, init) for init in ("pissa", "olora", "lora-ga")]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
