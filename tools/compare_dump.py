#!/usr/bin/env python3
"""Where sails and transformers part: the tensors of a dumped pass, one by one.

    SAILS_DUMP='*' build/sails logprob --model MODEL --dtype f32 --data FILE --out /dev/null
    python tools/compare_dump.py sails-dump.safetensors MODEL [--adapter FOLDER] [--bound X]

The tokens of the dump go through transformers in float32 with eager attention, and through PEFT's
adapter if one is given. Prints each tensor's largest difference and its RMS relative to that of
transformers', in the order of the forward pass, and names the first beyond the bound; exits 1 then.
The bound: 1e-4, or for a dump in bf16 eight roundings, 2^-5. What transformers does not show (lse,
gradients) is listed and not compared. Needs torch, transformers, peft and safetensors."""
import argparse
import re
import sys

import torch
from safetensors import safe_open
from transformers import Gemma2ForCausalLM
from transformers.models.gemma2.modeling_gemma2 import apply_rotary_pos_emb

BOUNDS = {"f32": 1e-4, "bf16": 2.0**-5}
GROUPS = {"q,k,v": ("self_attn", ("q", "k", "v")), "o": ("self_attn", ("o",)),
          "gate,up": ("mlp", ("gate", "up")), "down": ("mlp", ("down",))}
LAYER = ("x rx h xa(q,k,v) q k v rope(q) rope(k) o xa(o) p rp x2 rx2 h2 xa(gate,up) gate up g "
         "xa(down) m rm").split()
HEAD = ["final: x", "final: rx", "final: h", "head: h", "head: logits", "head: nll"]


def read(path):
    with safe_open(path, "pt") as f:
        return {name: f.get_tensor(name) for name in f.keys()}, f.metadata()["dtype"]


class Watch:
    """What transformers' modules take and give for one document, under the names of the dump."""

    def __init__(self, model):
        self.seen = {}
        base = model.model
        for number, layer in enumerate(base.layers):
            self.layer(f"layer {number}: ", layer)
        self.norm(base.norm, "final: x", "final: rx", "final: h")
        self.gives(model.lm_head, "head: logits")

    def keep(self, name, value):
        self.seen[name] = value[0].detach() if value.dim() > 2 else value.detach()

    def gives(self, module, name):
        def hook(_, __, out):
            self.keep(name, out[0] if isinstance(out, tuple) else out)
        module.register_forward_hook(hook)

    def takes(self, module, name):
        module.register_forward_pre_hook(lambda _, args: self.keep(name, args[0]))

    def norm(self, module, x, rstd, y):
        def hook(_, args, out):
            self.keep(x, args[0])
            self.keep(rstd, torch.rsqrt(args[0].square().mean(-1, keepdim=True) + module.eps))
            self.keep(y, out)
        module.register_forward_hook(hook)

    def layer(self, scope, layer):
        attention, mlp = layer.self_attn, layer.mlp
        self.norm(layer.input_layernorm, scope + "x", scope + "rx", scope + "h")
        for name in "qkv":
            self.gives(getattr(attention, name + "_proj"), scope + name)
        attention.register_forward_hook(self.rope(scope), with_kwargs=True)
        self.takes(attention.o_proj, scope + "o")
        self.norm(layer.post_attention_layernorm, scope + "p", scope + "rp", scope + "norm(p)")
        self.norm(layer.pre_feedforward_layernorm, scope + "x2", scope + "rx2", scope + "h2")
        for name in ("gate", "up"):
            self.gives(getattr(mlp, name + "_proj"), scope + name)
        self.takes(mlp.down_proj, scope + "g")
        self.norm(layer.post_feedforward_layernorm, scope + "m", scope + "rm", scope + "norm(m)")
        for group, (part, names) in GROUPS.items():
            for name in names:
                adapters = getattr(getattr(getattr(layer, part), name + "_proj"), "lora_A", {})
                for a in adapters.values():
                    self.gives(a, f"{scope}xa({group}) {name}")

    def rope(self, scope):
        def hook(module, _, kwargs, __):
            heads = [self.seen[scope + n].unflatten(-1, (-1, module.head_dim)).transpose(0, 1)[None]
                     for n in "qk"]
            for name, x in zip("qk", apply_rotary_pos_emb(*heads, *kwargs["position_embeddings"])):
                self.keep(f"{scope}rope({name})", x[0].transpose(0, 1).flatten(-2)[None])
        return hook

    def join_groups(self):
        """x A^T of a group's adapters, side by side as sails has them."""
        for scope in {name.split(": ")[0] + ": " for name in self.seen if name.startswith("layer")}:
            for group, (_, names) in GROUPS.items():
                parts = [self.seen.pop(f"{scope}xa({group}) {n}", None) for n in names]
                parts = [p for p in parts if p is not None]
                if parts:
                    self.seen[f"{scope}xa({group})"] = torch.cat(parts, -1)


def expected_positions(pack):
    return torch.cat([torch.arange(n) + before for _, n, _, before in pack["segments"].tolist()])


def theirs(model, pack):
    """Every tensor for all rows of the pack: segment by segment, behind the prefix it branches off."""
    watch, rows = Watch(model), {}
    tokens = pack["tokens"][:, 0].long()
    for row, n, prefix, before in pack["segments"].tolist():
        text = torch.cat([tokens[prefix:prefix + before], tokens[row:row + n]])
        watch.seen.clear()
        with torch.no_grad():
            model(text[None], use_cache=False)
        watch.join_groups()
        for name, value in watch.seen.items():
            rows.setdefault(name, []).append(value[before:])
    return {name: torch.cat(parts) for name, parts in rows.items()}


def add_head(ref, ours, rows, cap):
    """What the head makes of label rows: those of `rows` that "head: row" lists."""
    logits = ref.pop("head: logits")
    if "head: row" not in ours:  # a pass that draws tokens: its logits are those of all its rows
        ref["head: logits"] = logits
        return
    at = rows[ours["head: row"][:, 0].long()]
    ref["head: h"], ref["head: logits"] = ref["final: h"][at], logits[at]
    z = cap * torch.tanh(logits[at] / cap) if cap else logits[at]
    ref["head: nll"] = -z.log_softmax(-1).gather(1, ours["head: target"].long())


def difference(mine, ref, rows):
    """Largest absolute difference, and RMS of the difference relative to the reference's."""
    if mine.shape[0] != ref.shape[0]:
        ref = ref[rows]
    if mine.shape != ref.shape:
        return float("inf"), float("inf")
    error = (mine - ref).double()
    scale = ref.double().square().mean().sqrt().item()
    rms = error.square().mean().sqrt().item()
    return error.abs().max().item(), rms / scale if scale else rms


def compare(ours, ref, rows, bound):
    """Prints all; returns the first name beyond the bound."""
    layers = 1 + max((int(n[6:n.index(":")]) for n in ref if n.startswith("layer ")), default=-1)
    order = [f"layer {i}: {name}" for i in range(layers) for name in LAYER] + HEAD
    first = None
    for name in order:
        if name not in ours:
            continue
        if name not in ref:
            sys.exit(f"{name}: transformers has none; which --adapter did sails have?")
        largest, relative = difference(ours[name], ref[name], rows)
        good = relative <= bound  # not so for NaN
        print(f"{name:24} max {largest:.2e}  relative RMS {relative:.2e}{'' if good else '  <'}")
        first = first if good or first else name
    rest = [n for n in ours if n not in order and not re.match("pack: |head: (row|target)$", n)]
    if rest:
        kinds = {n.split(": ")[0 if n.startswith("grad") else 1] for n in rest}
        print("not compared:", ", ".join(sorted(kinds)))
    return first


def main():
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dump")
    options.add_argument("model")
    options.add_argument("--adapter")
    options.add_argument("--bound", type=float)
    o = options.parse_args()
    ours, dtype = read(o.dump)
    pack = {n[6:]: ours[n] for n in ours if n.startswith("pack: ")}
    bound = BOUNDS[dtype] if o.bound is None else o.bound
    model = Gemma2ForCausalLM.from_pretrained(o.model, dtype=torch.float32,
                                              attn_implementation="eager").eval()
    if o.adapter:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, o.adapter).eval().base_model.model
    if not torch.equal(pack["positions"][:, 0].long(), expected_positions(pack)):
        print("first that differs: pack: positions, which do not restart with each document")
        sys.exit(1)
    rows = pack["rows"][:, 0].long() if "rows" in pack else torch.arange(len(pack["tokens"]))
    ref = theirs(model, pack)
    add_head(ref, ours, rows, model.config.final_logit_softcapping)
    first = compare(ours, ref, rows, bound)
    print(f"first that differs by more than {bound:.2g}: {first}" if first else
          f"all within {bound:.2g}")
    sys.exit(1 if first else 0)


if __name__ == "__main__":
    main()
