#!/usr/bin/env python3
"""`sails score` in float32 against transformers and SAELens, on a random model and random SAEs.

    python tools/check_sae_parity.py BUILD TOKENIZER.json PAIRS.jsonl[.gz] [number of pairs]

Renders HH pairs, finds the reply's tokens by character offsets, runs Gemma2Model and SAELens' SAEs
of every kind sails reads, and compares per layer, corpus and feature:

  where firing counts agree   mean activations to 1e-5 relative (of the mean, or of the error that
                              1e-6 in each of its activations makes: see BELOW)
  where they differ           as many latents lie within 1e-5 of their threshold, relative to the sum
                              of magnitudes that made them, and they explain the difference

Exits 1 when a bound is broken. Needs torch, transformers, tokenizers, safetensors, sae-lens."""

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

RELATIVE = 1e-5  # of means, and of a latent's distance from its threshold
D, S, LAYERS, MAX_TOKENS = 96, 700, 6, 400
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


def make_saes(folder, scale):
    """One SAE of each kind, of a size that some features fire often, others hardly ever."""
    kinds = [
        (StandardSAE, StandardSAEConfig, {}),
        (TopKSAE, TopKSAEConfig, {"k": 20}),
        (JumpReLUSAE, JumpReLUSAEConfig, {"apply_b_dec_to_input": False}),
        (TopKSAE, TopKSAEConfig, {"k": 20, "rescale_acts_by_decoder_norm": True}),
    ]
    for layer, (kind, config, extra) in enumerate(kinds):
        meta = SAEMetadata(model_name="random", hook_name=f"blocks.{layer}.hook_resid_post")
        sae = kind(config(d_in=D, d_sae=S, metadata=meta, **extra))
        size = scale[layer]
        sae.W_enc.data = noise(D, S) / D**0.5 / size
        sae.W_dec.data = noise(S, D) * torch.rand(S, 1, generator=random)
        sae.b_enc.data = noise(S) - 1
        sae.b_dec.data = noise(D) * 0.1 * size
        if hasattr(sae, "threshold"):
            sae.threshold.data = torch.rand(S, generator=random) * 2
        sae.save_model(folder / f"layer_{layer}")
    return [SAE.load_from_disk(folder / f"layer_{layer}") for layer in range(len(kinds))]


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
    """Per layer: sum, fires, the sum that latents near their threshold can move, and their number."""
    shape = (len(saes), 2, S)
    out = {k: torch.zeros(shape, dtype=torch.float64)
           for k in ("sum", "fires", "near", "near_sum", "error")}
    tokens = [0, 0]
    for _, sides in pairs:
        for c, (ids, mask) in enumerate(sides):
            x = streams(model, ids, len(saes))
            tokens[c] += int(mask.sum())
            for i, sae in enumerate(saes):
                rows = x[i][mask]
                with torch.no_grad():
                    acts = sae.encode(rows).double()
                    pre, level, size = pre_activations(sae, rows)
                near = (pre - level).abs() <= RELATIVE * size
                out["sum"][i, c] += acts.sum(0)
                out["fires"][i, c] += (acts > 0).sum(0)
                out["near"][i, c] += near.sum(0)
                out["near_sum"][i, c] += (near * pre.abs()).double().sum(0)
                # BELOW: an activation is a difference of terms that may be far larger than itself
                out["error"][i, c] += ((acts > 0) * size.double() * 1e-6).sum(0)
    return out, tokens


def compare(ref, tokens, scores, layers):
    good = True
    for i in range(layers):
        total = scores[f"layer.{i}.sum"].sum(1)
        fires = scores[f"layer.{i}.fires"].double()
        bound = RELATIVE * ref["sum"][i] + ref["error"][i]
        off = (total - ref["sum"][i]).abs()
        flips = (fires - ref["fires"][i]).abs()
        agree = flips == 0
        live = agree & (ref["fires"][i] > 0)
        relative = (off / ref["sum"][i].clamp(min=1e-30))[live]
        strict = (relative <= RELATIVE).double().mean()
        explained = (flips <= ref["near"][i]) & (off <= bound + ref["near_sum"][i])
        ok = bool((off <= bound)[agree].all() and explained.all())
        good = good and ok and live.any().item()
        print(f"layer {i}: {int(live.sum())} live means, {100 * strict:.2f} % within 1e-5 of "
              f"themselves, median {relative.median():.1e}, worst {relative.max():.1e} "
              f"({(off / bound)[live].max():.2f} of the bound); {int(flips.sum())} flips of "
              f"{int(ref['fires'][i].sum())} firings, "
              f"{int((~explained).sum())} unexplained: {'ok' if ok else 'FAIL'}")
    counted = [int(scores["tokens"][c].sum()) for c in (0, 1)]
    print(f"tokens counted: {counted}, expected {tokens}")
    return good and counted == tokens


def main():
    build, tokenizer_path, data = sys.argv[1:4]
    limit = int(sys.argv[4]) if len(sys.argv) > 4 else 100
    tokenizer = Tokenizer.from_file(tokenizer_path)
    pairs = read_pairs(data, tokenizer, limit)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = make_model(folder / "model", tokenizer.get_vocab_size())
        first = streams(model, pairs[0][1][0][0], 4)
        saes = make_saes(folder / "saes", [float(first[i].pow(2).mean().sqrt()) for i in range(4)])
        (folder / "pairs.jsonl").write_text("".join(line for line, _ in pairs), encoding="utf-8")
        subprocess.run(
            [build + "/sails", "score", "--model", folder / "model", "--tokenizer", tokenizer_path,
             "--dtype", "f32", "--device", "cpu", "--data", folder / "pairs.jsonl", "--sae",
             folder / "saes" / "layer_{layer}", "--layers", "0,1,2,3", "--out", folder / "scores"],
            check=True, stdout=subprocess.DEVNULL)
        ref, tokens = reference(model, saes, pairs)
        good = compare(ref, tokens, load_file(folder / "scores"), len(saes))
    sys.exit(0 if good else 1)


main()
