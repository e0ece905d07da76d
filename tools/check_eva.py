#!/usr/bin/env python3
"""Components that `sails inputs` finds, against PEFT's EVA of the same documents, in float32 on a
golden model.

    python tools/check_eva.py [sails]

Both are held against PCA in double of what the projections read in transformers, by the largest
principal angle. sails' may be off by what its inputs and sums are: 1e-5 of the rows' mean square,
over the gap behind the R-th eigenvalue (Davis and Kahan). PEFT's PCA is incremental and randomised:
how far it is off is printed, once of one batch and once of small ones, and sails may be no further
from it than both errors together. With rho 2 adapters must have the ranks that PEFT gives them, and
its scale. Exits 1 when a bound is broken."""
import json
import math
import os
import subprocess
import sys
import tempfile

import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.eva import get_eva_state_dict
from safetensors.torch import load_file
from transformers import Gemma2ForCausalLM

MODEL, R = "tests/golden/model_a", 3
DOCS, LENGTH, PROMPT = 24, 40, 10
TOKENS = R + 1  # different ones: so many that R directions stand out
GROUPS = {"qkv": "self_attn.q_proj", "o": "self_attn.o_proj", "gate_up": "mlp.gate_proj",
          "down": "mlp.down_proj"}


def base_model():
    return Gemma2ForCausalLM.from_pretrained(MODEL, dtype=torch.float32,
                                             attn_implementation="eager").eval()


def documents(different=TOKENS):
    tokens = 3 + torch.randint(different, (DOCS, LENGTH), generator=torch.Generator().manual_seed(5))
    labels = tokens.clone()
    labels[:, :PROMPT] = -100
    return tokens, labels


def exact(model, tokens, labels):
    """Of each module that reads: R eigenvectors as columns, and the bound on an angle to them."""
    rows, hooks = {}, []
    for name, module in model.named_modules():
        if any(name.endswith(g) for g in GROUPS.values()):
            keep = lambda _, args, to=name: rows.update({to: args[0][labels != -100].double()})
            hooks.append(module.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    found = {}
    for name, x in rows.items():
        value, vector = torch.linalg.eigh(torch.cov(x.T, correction=0))
        size = x.square().sum(1).mean().item()
        found[name] = (vector[:, -R:], 1e-5 * size / (value[-R] - value[-R - 1]).item())
    return found


def angle(a, b):
    """The largest between two spans of orthonormal columns."""
    return math.asin(min(1, torch.linalg.svdvals(b - a @ (a.T @ b))[0].item()))


def write(path, tokens, labels):
    with open(path, "w", encoding="ascii") as f:
        for t, l in zip(tokens, labels):
            print(json.dumps({"tokens": t.tolist(), "labels": (l != -100).long().tolist()}), file=f)


def own(sails, scratch, tokens, labels):
    data, out = os.path.join(scratch, "data.jsonl"), os.path.join(scratch, "inputs.safetensors")
    write(data, tokens, labels)
    subprocess.run([sails, "inputs", "--model", MODEL, "--data", data, "--rank", str(R),
                    "--targets", "q,k,v,o,gate,up,down", "--dtype", "f32", "--device", "cpu", "--json", "--out",
                    out], check=True, stdout=subprocess.DEVNULL)
    found = {}
    for name, t in load_file(out).items():
        part = name.split(".")
        if part[-1] == "basis":
            found[f"model.layers.{part[1]}.{GROUPS[part[2]]}"] = t
    return found


def theirs(model, tokens, labels, size):
    """PEFT's, of batches of so many documents."""
    config = LoraConfig(r=R, init_lora_weights="eva", eva_config=EvaConfig(rho=1.0),
                        target_modules=[g.split(".")[1] for g in GROUPS.values()])
    mask = torch.ones_like(tokens)
    batches = [{"input_ids": tokens[i:i + size], "attention_mask": mask[i:i + size],
                "labels": labels[i:i + size]} for i in range(0, DOCS, size)]
    found = get_eva_state_dict(model, batches, config, show_progress_bar=False)
    return {name: torch.linalg.qr(t.T.double())[0] for name, t in found.items()}


def shared(sails, scratch):
    """With rho 2: of each module rank and alpha / rank, of sails' adapter and of PEFT's, which goes on
    until 2 R components are what they were: where tokens are few, for ever."""
    tokens, labels = documents(64)
    data, bases, out = (os.path.join(scratch, f) for f in ("two.jsonl", "two.safetensors", "two"))
    write(data, tokens, labels)
    common = ["--model", MODEL, "--data", data, "--rank", str(R), "--rho", "2", "--dtype", "f32",
              "--targets", "q,k,v,o,gate,up,down", "--device", "cpu", "--json", "--out"]
    run = lambda *words: subprocess.run([sails, *words], check=True, stdout=subprocess.DEVNULL)
    run("inputs", *common, bases)
    run("train", "--init", "eva", "--subspace", bases, "--alpha", "4", "--epochs", "0", *common, out)
    own_ranks = {name: (m.r["default"], round(m.scaling["default"], 5))
                 for name, m in PeftModel.from_pretrained(base_model(), out).base_model.model.named_modules()
                 if isinstance(m, LoraLayer)}
    # one batch: PEFT's incremental components are then those of all tokens
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
    config = LoraConfig(r=R, lora_alpha=4, init_lora_weights="eva", eva_config=EvaConfig(rho=2.0),
                        target_modules="all-linear")
    peft = get_peft_model(base_model(), config)
    initialize_lora_eva_weights(peft, [batch], show_progress_bar=False)
    return own_ranks, {name: (m.r["default"], round(m.scaling["default"], 5))
                       for name, m in peft.base_model.model.named_modules() if isinstance(m, LoraLayer)}


def main():
    sails = sys.argv[1] if len(sys.argv) > 1 else "build/sails"
    model = base_model()
    tokens, labels = documents()
    torch.manual_seed(0)
    truth = exact(model, tokens, labels)
    with tempfile.TemporaryDirectory() as scratch:
        ours = own(sails, scratch, tokens, labels)
        ranks, their_ranks = shared(sails, scratch)
    peft = {size: theirs(model, tokens, labels, size) for size in (DOCS, 4)}
    good = set(ours) == set(truth)
    for name, (V, bound) in sorted(truth.items()):
        off = angle(ours[name], V)
        line = f"{name}: sails off by {off:.1e} (bound {bound:.1e})"
        good &= off <= bound
        for size, found in peft.items():
            error, apart = angle(found[name], V), angle(ours[name], found[name])
            line += f"; PEFT in batches of {size} by {error:.1e}, from sails' by {apart:.1e}"
            good &= apart <= error + bound
        print(line)
    print(f"rho 2: ranks {sorted(r for r, _ in ranks.values())} of {len(ranks)} modules, PEFT's are "
          + ("the same" if ranks == their_ranks else f"{their_ranks}, sails' {ranks}"))
    good &= ranks == their_ranks
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
