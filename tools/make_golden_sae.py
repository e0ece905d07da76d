#!/usr/bin/env python3
"""Writes tests/golden/sae: small SAEs saved by SAELens and NumPy, and what SAELens computes with them.

Needs numpy, torch, safetensors and sae-lens. Deterministic: run again, and git sees no change
(zip time stamps excepted). Usage: make_golden_sae.py [FOLDER]
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sae_lens import SAE
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

D, S, ROWS, LAYER = 8, 12, 6, 3
OUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests/golden/sae")
random = torch.Generator().manual_seed(20)


def noise(*shape):
    return torch.randn(*shape, generator=random)


def fill(sae):
    """Random weights of a size that makes every term matter."""
    sae.W_enc.data = noise(D, S) / D**0.5
    sae.W_dec.data = noise(S, D)
    sae.b_enc.data = noise(S) * 0.3
    sae.b_dec.data = noise(D) * 0.5
    if hasattr(sae, "threshold"):
        sae.threshold.data = noise(S) * 0.3
    return sae


def metadata():
    return SAEMetadata(model_name="tiny", hook_name=f"blocks.{LAYER}.hook_resid_post")


def configs():
    common = {"d_in": D, "d_sae": S, "metadata": metadata()}
    yield "standard", StandardSAE(StandardSAEConfig(**common))
    yield "plain", StandardSAE(StandardSAEConfig(apply_b_dec_to_input=False, **common))
    yield "topk", TopKSAE(TopKSAEConfig(k=3, **common))
    yield "rescaled", TopKSAE(TopKSAEConfig(k=3, rescale_acts_by_decoder_norm=True, **common))
    yield "jumprelu", JumpReLUSAE(JumpReLUSAEConfig(**common))


def old_configs():
    """Flat configurations as versions before 6 wrote them; the weights are the new ones."""
    flat = {"d_in": D, "d_sae": S, "dtype": "torch.float32", "device": "cpu", "model_name": "tiny",
            "hook_layer": LAYER, "hook_head_index": None, "prepend_bos": True,
            "normalize_activations": "none", "apply_b_dec_to_input": True,
            "finetuning_scaling_factor": False, "sae_lens_training_version": "3.22.1"}
    hook = f"blocks.{LAYER}.hook_resid_post"
    yield "old_standard", "standard", flat | {
        "architecture": "standard", "activation_fn_str": "relu", "hook_name": hook}
    yield "old_topk", "topk", flat | {
        "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "hook_name": hook}
    yield "old_pre", "standard", flat | {
        "hook_point": f"blocks.{LAYER + 1}.hook_resid_pre", "normalize_activations": False}


def record(out, name, sae, x):
    """Activations, and the largest sum of magnitudes behind one: the scale of rounding errors."""
    x_in = x - sae.b_dec * sae.cfg.apply_b_dec_to_input
    size = (x.abs() + sae.b_dec.abs()) @ sae.W_enc.abs() + sae.b_enc.abs()
    pre = x_in @ sae.W_enc + sae.b_enc
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        size, pre = size * sae.W_dec.norm(dim=-1), pre * sae.W_dec.norm(dim=-1)
    level = sae.threshold if hasattr(sae, "threshold") else torch.zeros(S)
    assert (pre - level).abs().min() > 1e-4, f"{name}: a pre-activation is too near its threshold"
    out[f"{name}.acts"] = sae.encode(x).contiguous()
    out[f"{name}.size"] = size.max().reshape(1)


def main():
    x = noise(ROWS, D).bfloat16().float()
    out = {"x": x}
    with torch.no_grad():
        for name, sae in configs():
            fill(sae).save_model(OUT / name)
            record(out, name, SAE.load_from_disk(OUT / name), x)
        for name, weights, cfg in old_configs():
            (OUT / name).mkdir(parents=True, exist_ok=True)
            (OUT / name / "cfg.json").write_text(json.dumps(cfg))
            save_file(load_file(OUT / weights / "sae_weights.safetensors"),
                      OUT / name / "sae_weights.safetensors")
            record(out, name, SAE.load_from_disk(OUT / name), x)
        scope = fill(JumpReLUSAE(JumpReLUSAEConfig(
            d_in=D, d_sae=S, apply_b_dec_to_input=False, metadata=metadata())))
        scope.threshold.data = scope.threshold.data.abs()
        members = {k: getattr(scope, k).data.numpy()
                   for k in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
        for l0, save in ((7, np.savez), (59, np.savez_compressed)):
            folder = OUT / f"gemma-scope-2b-pt-res/layer_{LAYER}/width_16k/average_l0_{l0}"
            folder.mkdir(parents=True, exist_ok=True)
            save(folder / "params.npz", **members)
        record(out, "scope", scope, x)
    save_file(out, OUT / "expected.safetensors")
    print(OUT, sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file()), "bytes")


main()
