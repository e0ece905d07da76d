#!/usr/bin/env python3
"""`sails score` in float32 against transformers and SAELens, on a random model and random SAEs.

    python tools/check_sae_parity.py BUILD TOKENIZER.json PAIRS.jsonl[.gz] [number of pairs]

Renders HH pairs, finds the reply's tokens by character offsets, runs Gemma2Model and SAELens' SAEs
of every kind sails reads, and compares per layer, corpus and feature:

  where firing counts agree   mean activations within 1e-5 relative
  where they differ           as many latents lie within 1e-5 of their threshold, and they explain
                              the difference

A third run, in float64, knows what is near a threshold, and judges the one layer where float32
cannot keep 1e-5: a plain ReLU whose features fire seldom. A mean over a few activations just above
zero is a small difference of large terms, and inherits their rounding: SAELens itself is up to 2e-5
away from float64 there, and so is a float64 encoder behind a float32 model. In that layer the
distance from float64 must be

  of every mean    within 1e-5 relative, or within what rounding may do to the terms it is made of
  of all, RMS      at most twice SAELens', in units of that rounding

Exits 1 when a bound is broken. Needs torch, transformers, tokenizers, safetensors, sae-lens."""

import copy
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from sae_lens import SAE
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from tokenizers import Tokenizer
from transformers import Gemma2Config, Gemma2ForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

RELATIVE = 1e-5  # of means, and of a latent's distance from its threshold
D, S, LAYERS, MAX_TOKENS = 96, 700, 6, 400
TERM = 6 * D**0.5 * 2.0**-24  # error of a float32 sum of D terms: six deviations, of magnitudes
random = torch.Generator().manual_seed(7)


def noise(*shape):
    return torch.randn(*shape, generator=random)


def make_model(folder, vocab):
    torch.manual_seed(3)
    config = Gemma2Config(
        vocab_size=vocab, hidden_size=D, intermediate_size=2 * D, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, query_pre_attn_scalar=32,
        sliding_window=64, max_position_embeddings=1024, initializer_range=0.1)
    model = Gemma2ForCausalLM(config).float().eval()
    for name, p in model.named_parameters():
        if "norm" in name:
            p.data = noise(*p.shape) * 0.3
    model.config._attn_implementation = "eager"
    model.save_pretrained(folder)
    return model


# Mean and spread of the bias, the SAE's class and settings. Pre-activations have a deviation of one,
# so that activations stay away from zero (TopK; thresholds above 0.5, as Gemma Scope's are above 0)
# or all features fire often; but for the last layer.
KINDS = [
    (0.0, 0.5, StandardSAE, StandardSAEConfig, {}),
    (-1.0, 1.0, TopKSAE, TopKSAEConfig, {"k": 20}),
    (-0.5, 0.5, JumpReLUSAE, JumpReLUSAEConfig, {"apply_b_dec_to_input": False}),
    (-1.0, 1.0, TopKSAE, TopKSAEConfig, {"k": 20, "rescale_acts_by_decoder_norm": True}),
    (-1.0, 1.0, StandardSAE, StandardSAEConfig, {}),
]
SELDOM = len(KINDS) - 1  # the layer of features that fire seldom, just above zero


def make_saes(folder, scale):
    for layer, (mean, spread, kind, config, extra) in enumerate(KINDS):
        meta = SAEMetadata(model_name="random", hook_name=f"blocks.{layer}.hook_resid_post")
        sae = kind(config(d_in=D, d_sae=S, metadata=meta, **extra))
        sae.W_enc.data = noise(D, S) / D**0.5 / scale[layer]
        sae.W_dec.data = noise(S, D) * torch.rand(S, 1, generator=random)
        sae.b_enc.data = spread * noise(S) + mean
        sae.b_dec.data = noise(D) * 0.1 * scale[layer]
        if hasattr(sae, "threshold"):
            sae.threshold.data = 0.5 + 2 * torch.rand(S, generator=random)
        sae.save_model(folder / f"layer_{layer}")
    return [SAE.load_from_disk(folder / f"layer_{layer}") for layer in range(len(KINDS))]


class ExactNorm(torch.nn.Module):
    """Gemma2RMSNorm, which computes in float32 whatever its input."""

    def __init__(self, norm):
        super().__init__()
        self.scale, self.eps = 1 + norm.weight.double(), norm.eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.scale


def exact_attention(module, query, key, value, mask, scaling, softcap, **_):
    """The eager attention, whose softmax computes in float32 whatever its input."""
    heads = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(heads, dim=1) for x in (key, value))
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) * scaling / softcap) + mask
    return (scores.softmax(-1) @ value).transpose(1, 2), None


def in_float64(model):
    """A copy that computes in float64 all but the rotary angles, float32 by definition."""
    ALL_ATTENTION_FUNCTIONS.register("exact", exact_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register("exact", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    model = copy.deepcopy(model).double()
    model.config._attn_implementation = "exact"
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "Gemma2RMSNorm":
                setattr(module, name, ExactNorm(child))
    return model


def render(text):
    """The whole conversation and the place of the final reply in it."""
    turns = []
    for part in text.split("\n\n"):
        who, _, rest = part.partition(": ") if part.startswith(("Human:", "Assistant:")) else (
            "", "", part)
        if who or part in ("Human:", "Assistant:"):
            turns.append([who or part[:-1], rest])
        elif turns:
            turns[-1][1] += "\n\n" + part
    out = "<bos>"
    for who, said in turns:
        out += f"<start_of_turn>{'user' if who == 'Human' else 'model'}\n"
        start = len(out)
        out += said.strip() + "<end_of_turn>\n"
    return out, start, start + len(turns[-1][1].strip())


def read_pairs(path, tokenizer, limit):
    """Pairs short enough not to be cut, as (line, ids, reply mask) for chosen and rejected."""
    opener = gzip.open if path.endswith(".gz") else open
    pairs = []
    for line in opener(path, "rt", encoding="utf-8"):
        record, sides = json.loads(line), []
        for key in ("chosen", "rejected"):
            text, start, end = render(record[key])
            code = tokenizer.encode(text, add_special_tokens=False)
            mask = [start <= a and b <= end and a < b for a, b in code.offsets]
            sides.append((torch.tensor(code.ids), torch.tensor(mask)))
        if all(len(ids) <= MAX_TOKENS and mask.any() for ids, mask in sides):
            pairs.append((line, sides))
        if len(pairs) == limit:
            break
    return pairs


def streams(model, ids, layers):
    """Residual streams that leave the first layers."""
    found = {}
    hooks = [
        model.model.layers[i].register_forward_hook(
            lambda _m, _a, out, i=i: found.__setitem__(
                i, (out[0] if isinstance(out, tuple) else out).reshape(len(ids), D)))
        for i in range(layers)
    ]
    with torch.no_grad():
        model.model(ids[None])
    for hook in hooks:
        hook.remove()
    return found


def pre_activations(sae, x):
    """What is compared with the threshold, the threshold, and the magnitudes behind it."""
    x_in = x - sae.b_dec * sae.cfg.apply_b_dec_to_input
    pre = x_in @ sae.W_enc + sae.b_enc
    size = x_in.abs() @ sae.W_enc.abs() + sae.b_enc.abs()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        norm = sae.W_dec.norm(dim=-1)
        pre, size = pre * norm, size * norm
    if hasattr(sae, "threshold"):
        level = sae.threshold.expand_as(pre)
    elif hasattr(sae.cfg, "k"):
        top = pre.topk(sae.cfg.k + 1, dim=-1).values  # kept ones face the first left out
        level = torch.where(pre >= top[:, -2:-1], top[:, -1:], top[:, -2:-1]).clamp(min=0)
    else:
        level = torch.zeros_like(pre)
    return pre, level, size


def reference(model, saes, pairs):
    """Per layer, corpus and feature, over all counted tokens. lens: SAELens' sum and fires; exact:
    the sum in float64; mixed: of a float64 encoder on the float32 stream; near and near_sum: the
    latents within reach of their threshold and what switching them moves; error: what rounding may
    do to the sum, where the stream may be twice as far off as transformers'."""
    names = ("lens", "fires", "exact", "mixed", "near", "near_sum", "error")
    out = {k: torch.zeros((len(saes), 2, S), dtype=torch.float64) for k in names}
    exact_model = in_float64(model)
    exact_saes = [copy.deepcopy(sae).to(torch.float64) for sae in saes]
    tokens = [0, 0]
    for _, sides in pairs:
        for c, (ids, mask) in enumerate(sides):
            x, exact_x = streams(model, ids, len(saes)), streams(exact_model, ids, len(saes))
            tokens[c] += int(mask.sum())
            for i, (sae, exact_sae) in enumerate(zip(saes, exact_saes)):
                with torch.no_grad():
                    rows, exact_rows = x[i][mask], exact_x[i][mask]
                    acts, exact = sae.encode(rows), exact_sae.encode(exact_rows)
                    pre, level, size = pre_activations(exact_sae, exact_rows)
                    off = (rows - exact_rows).norm(dim=-1, keepdim=True)
                    error = TERM * size + 2 * off * exact_sae.W_enc.norm(dim=0)
                    mixed = exact_sae.encode(rows.double())
                near = (pre - level).abs() <= RELATIVE * level.clamp(min=1)
                out["lens"][i, c] += acts.double().sum(0)
                out["fires"][i, c] += (acts > 0).sum(0)
                out["exact"][i, c] += exact.sum(0)
                out["mixed"][i, c] += mixed.sum(0)
                out["near"][i, c] += near.sum(0)
                out["near_sum"][i, c] += (near * pre.abs()).sum(0)
                out["error"][i, c] += ((exact > 0) * error).sum(0)
    return out, tokens


def rms(x):
    return x.pow(2).mean().sqrt().item()


def against_exact(ref, total, live):
    """The layer that float32 cannot keep: judged by its distance from float64."""
    exact = ref["exact"][live]
    sums = {"sails": total, "SAELens": ref["lens"], "float64 encoder": ref["mixed"]}
    off = {name: (x[live] - exact).abs() for name, x in sums.items()}
    for name, x in off.items():
        relative = x / exact
        print(f"    {name} from float64: RMS {rms(relative):.1e}, worst {relative.max():.1e}, "
              f"{int((relative > RELATIVE).sum())} beyond 1e-5")
    error = ref["error"][live]
    reach = (off["sails"] / torch.maximum(RELATIVE * exact, error)).max()
    ratio = rms(off["sails"] / error) / rms(off["SAELens"] / error)
    print(f"    sails: worst {reach:.2f} of the bound, RMS {ratio:.2f} of SAELens'")
    return bool(reach <= 1 and ratio <= 2)


def compare(every, tokens, scores):
    good = True
    for i in range(len(KINDS)):
        ref = {name: x[i] for name, x in every.items()}
        total = scores[f"layer.{i}.sum"].sum(1)
        off = (total - ref["lens"]).abs()
        flips = (scores[f"layer.{i}.fires"].double() - ref["fires"]).abs()
        live = (flips == 0) & (ref["fires"] > 0)
        relative = (off / ref["lens"].clamp(min=1e-30))[live]
        explained = (flips <= ref["near"]) & (
            (flips == 0) | (off <= RELATIVE * ref["lens"] + ref["near_sum"]))
        print(f"layer {i}: {int(live.sum())} live means, median {relative.median():.1e}, worst "
              f"{relative.max():.1e} from SAELens'; {int(flips.sum())} flips of "
              f"{int(ref['fires'].sum())} firings, {int(ref['near'].sum())} latents near their "
              f"threshold, {int((~explained).sum())} flips unexplained")
        ok = bool(explained.all()) and len(relative) > S // 2
        ok = ok and (against_exact(ref, total, live) if i == SELDOM
                     else bool((relative <= RELATIVE).all()))
        good = good and ok
        print(f"    {'ok' if ok else 'FAIL'}")
    counted = [int(scores["tokens"][c].sum()) for c in (0, 1)]
    print(f"tokens counted: {counted}, expected {tokens}")
    return good and counted == tokens


def main():
    build, tokenizer_path, data = sys.argv[1:4]
    limit = int(sys.argv[4]) if len(sys.argv) > 4 else 100
    tokenizer = Tokenizer.from_file(tokenizer_path)
    pairs = read_pairs(data, tokenizer, limit)
    layers = list(range(len(KINDS)))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = make_model(folder / "model", tokenizer.get_vocab_size())
        first = streams(model, pairs[0][1][0][0], len(layers))
        saes = make_saes(folder / "saes", [float(first[i].pow(2).mean().sqrt()) for i in layers])
        (folder / "pairs.jsonl").write_text("".join(line for line, _ in pairs), encoding="utf-8")
        subprocess.run(
            [build + "/sails", "score", "--model", folder / "model", "--tokenizer", tokenizer_path,
             "--dtype", "f32", "--device", "cpu", "--data", folder / "pairs.jsonl", "--sae",
             folder / "saes" / "layer_{layer}", "--layers", ",".join(map(str, layers)), "--out",
             folder / "scores"],
            check=True, stdout=subprocess.DEVNULL)
        ref, tokens = reference(model, saes, pairs)
        good = compare(ref, tokens, load_file(folder / "scores"))
    sys.exit(0 if good else 1)


main()
