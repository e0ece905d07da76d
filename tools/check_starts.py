#!/usr/bin/env python3
"""Starts that are taken off again, against PEFT's of the same name, in float32 on a golden model.

    python tools/check_starts.py [sails]

A folder that sails writes must load in PEFT, leave the base's logits alone before training (to
1e-5), and after it compute what PEFT's form does, a base W - s B0 A0 with A and B on it (1e-5). The
starts themselves must agree as products B A, relative to their norm, to 1e-5 and what PEFT's SVD in
float32 may turn the space of the R largest singular values by: its backward error, at most
max(in, out) 2^-24 of the largest, over the gap beside them. CorDA gets sails' C, which PEFT weighs
otherwise, each document by its largest entry; its inverse in float32 is off by cond(C) 2^-24.
PEFT's needs the package attrs.

PEFT's LoRA-GA scales another way than its authors, whom sails follows: of it the directions are
compared, as spans of A's rows and of B's columns, with those of PEFT's gradient in double. They may
be off by 2e-5 of its norm over the gaps beside them; how far PEFT's own are is printed.

PEFT has no SaLoRA. Its folder must load and leave the base's logits alone in the same way, and of
what each projection writes along the directions that it keeps, found here by torch in double from
the outputs themselves, change nothing: 1e-5 of what it changes, and what sums in f32 over n tokens
may turn these directions by, n 2^-24 of the largest eigenvalue over the gap behind the last.

Exits 1 when a bound is broken."""
import json
import math
import os
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import CordaConfig, LoraGAConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from safetensors.torch import load_file
from transformers import Gemma2ForCausalLM

MODEL, R, ALPHA = "tests/golden/model_a", 3, 6
OF_BATCH = "lora-ga", "corda", "corda-kpm"  # of all four documents, then
SAFE = (0, 2)  # documents that stand for safe replies
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def base_model():
    return Gemma2ForCausalLM.from_pretrained(MODEL, dtype=torch.float32,
                                             attn_implementation="eager").eval()


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens[None].long()).logits[0]


def train(sails, scratch, init, lr, *more):
    """An adapter folder after three steps at this rate."""
    out = os.path.join(scratch, f"{init}-{lr}")
    subprocess.run([sails, "train", "--model", MODEL, "--data", os.path.join(scratch, "data.jsonl"),
                    "--init", init, "--rank", str(R), "--alpha", str(ALPHA), "--lr", str(lr),
                    "--schedule", "constant", "--batch",
                    "4" if init in OF_BATCH else "2", "--steps", "3", "--max-length", "64",
                    "--dtype", "f32", "--device", "cpu", "--json", "--out", out, *more],
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


def moments(docs):
    """C of what each target reads, in double: all tokens, the mean of its diagonal 1."""
    model, found, hooks = base_model(), {}, []

    def add(name, x):
        found[name] = found.get(name, 0) + x[0].double().T @ x[0].double()

    for name, module in model.named_modules():
        if name.split(".")[-1] in TARGETS:
            hooks.append(module.register_forward_pre_hook(
                lambda _, args, to=name: add(to, args[0])))
    for t in docs:
        logits(model, t)
    return {name: (C / C.diagonal().mean()).float() for name, C in found.items()}


def theirs(init, docs, scratch):
    """PEFT's model of this start, and C of each target, damped as PEFT does."""
    config = LoraConfig(r=R, lora_alpha=ALPHA, target_modules=TARGETS)
    if init == "lora-ga":  # a B of zeros: factors and base are set by the caller
        return get_peft_model(base_model(), config).eval(), {}
    if not init.startswith("corda"):
        config.init_lora_weights = init
        return get_peft_model(base_model(), config).eval(), {}
    found = moments(docs)
    file = os.path.join(scratch, "covariance.pt")
    torch.save(found, file)
    config.init_lora_weights = "corda"
    config.corda_config = CordaConfig(covariance_file=file,
                                      corda_method="kpm" if init.endswith("kpm") else "ipm")
    model = base_model()
    preprocess_corda(model, config)
    damped = {f"base_model.model.{name}": C.double() + 0.01 * torch.eye(len(C))
              for name, C in found.items()}
    return get_peft_model(model, config).eval(), damped


def turned_by(init, W, C):
    """How far an SVD in float32 may turn the directions that are taken, and CorDA's inverse of C."""
    if init == "olora":
        return 0
    S = torch.linalg.svdvals(W.double() if C is None else W.double() @ C)
    at = len(S) - R if init == "corda-kpm" else R
    inverse = 0 if C is None else 2.0**-24 * torch.linalg.cond(C).item()
    return max(W.shape) * 2.0**-24 * (S[0] / (S[at - 1] - S[at])).item() + inverse


def check(sails, scratch, docs, init):
    errors = {}
    tokens = docs[3]
    before, after = (train(sails, scratch, init, lr) for lr in (0, 1e-3))
    ref = logits(base_model(), tokens)
    errors["base"] = (logits(PeftModel.from_pretrained(base_model(), before).eval(), tokens)
                      - ref).abs().max().item()
    own, C = theirs(init, docs, scratch)
    moved, start = halves(after), halves(before)
    errors["start"] = check_lora_ga(start, docs) if init == "lora-ga" else 0
    with torch.no_grad():
        for name, module in own.named_modules():
            if name not in moved:
                continue
            A, B = module.lora_A["default"].weight, module.lora_B["default"].weight
            want, got = B @ A, start[name]["B"][1] @ start[name]["A"][1]
            W = module.base_layer.weight + ALPHA / R * want
            if init != "lora-ga":
                off = ((got - want).norm() / want.norm()).item()
                errors["start"] = max(errors["start"], off - turned_by(init, W, C.get(name)))
            module.base_layer.weight.copy_(W - ALPHA / R * got)
            A.copy_(moved[name]["A"][0])
            B.copy_(moved[name]["B"][0])
    trained = logits(PeftModel.from_pretrained(base_model(), after).eval(), tokens)
    errors["trained"] = (logits(own, tokens) - trained).abs().max().item()
    change = (trained - ref).abs().max().item()
    print(f"{init}: base moves by {errors['base']:.1e}, start off by {errors['start']:.1e} more than "
          f"PEFT's may be, trained off by {errors['trained']:.1e} of a change of {change:.1e}")
    return change > 0.1 and all(e <= 1e-5 for e in errors.values())


def outputs(documents):
    """What each target writes at all tokens of these but the first, (tokens,out), in double."""
    rows, model = {}, base_model().double()
    for name, module in model.named_modules():
        if name.split(".")[-1] in TARGETS:
            module.register_forward_hook(
                lambda m, x, y, name=name: rows.setdefault(name, []).append(y[0, 1:]))
    for tokens in documents:
        logits(model, tokens)
    return {name: torch.cat(y) for name, y in rows.items()}


def check_salora(sails, scratch, golden):
    kept = os.path.join(scratch, "kept.safetensors")
    data = [os.path.join(scratch, name) for name in ("data.jsonl", "safe.jsonl")]
    subprocess.run([sails, "inputs", "--model", MODEL, "--data", data[0], "--preserve", data[1],
                    "--preserve-rank", str(R), "--max-length", "64", "--dtype", "f32", "--device",
                    "cpu", "--json", "--out", kept], check=True, stdout=subprocess.DEVNULL)
    before, after = (train(sails, scratch, "salora", lr, "--subspace", kept) for lr in (0, 1e-3))
    tokens, errors = golden["doc3.tokens"], {"kept": 0}
    ref = logits(base_model(), tokens)
    errors["base"] = (logits(PeftModel.from_pretrained(base_model(), before).eval(), tokens)
                      - ref).abs().max().item()
    moved, safe = halves(after), outputs([golden[f"doc{d}.tokens"] for d in SAFE])
    for name, f in moved.items():
        y = safe[name.removeprefix("base_model.model.")]
        _, s, Vt = torch.linalg.svd(y, full_matrices=False)
        (A, A0), (B, B0) = ((x.double() for x in f[k]) for k in "AB")
        change = B @ A - B0 @ A0
        turned = len(y) * 2.0**-24 * (s[0] ** 2 / (s[R - 1] ** 2 - s[R] ** 2)).item()
        off = ((Vt[:R] @ change).norm() / change.norm()).item()
        errors["kept"] = max(errors["kept"], off - turned)
    change = (logits(PeftModel.from_pretrained(base_model(), after).eval(), tokens)
              - ref).abs().max().item()
    print(f"salora: base moves by {errors['base']:.1e}, what is kept by {errors['kept']:.1e} more than "
          f"it may, of a change of {change:.1e}")
    return change > 0.01 and all(e <= 1e-5 for e in errors.values())


def main():
    sails = sys.argv[1] if len(sys.argv) > 1 else "build/sails"
    golden = load_file(os.path.join(MODEL, "golden.safetensors"))
    with tempfile.TemporaryDirectory() as scratch:
        with open(os.path.join(scratch, "data.jsonl"), "w", encoding="ascii") as f:
            for d in range(4):
                print(json.dumps({"tokens": golden[f"doc{d}.tokens"].tolist()}), file=f)
        docs = [golden[f"doc{d}.tokens"].long() for d in range(4)]
        with open(os.path.join(scratch, "safe.jsonl"), "w", encoding="ascii") as f:
            for d in SAFE:
                print(json.dumps({"tokens": golden[f"doc{d}.tokens"].tolist()}), file=f)
        good = [check(sails, scratch, docs, init) for init in ("pissa", "olora", *OF_BATCH)]
        good.append(check_salora(sails, scratch, golden))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
