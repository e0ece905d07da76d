#!/usr/bin/env python3
"""One layer at the true widths of Gemma-2 2B and 9B, random weights: sails against transformers.

    python tools/check_wide.py [build folder]

f32: the largest |logit difference| must be at most 1e-4. bf16: the RMS error against the f32
reference must be at most twice that of transformers in bf16. Exits 1 when a bound is broken. With
SAILS_TEST_DEVICE=cuda sails computes on the GPU, transformers always on the CPU.
Needs torch, transformers, safetensors and about 2 GB in the temporary folder."""
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM

WIDTHS = {
    "2B": dict(hidden_size=2304, num_attention_heads=8, num_key_value_heads=4, head_dim=256,
               intermediate_size=9216, query_pre_attn_scalar=256),
    "9B": dict(hidden_size=3584, num_attention_heads=16, num_key_value_heads=8, head_dim=256,
               intermediate_size=14336, query_pre_attn_scalar=256),
}
VOCABULARY, TOKENS, WINDOW = 1200, 300, 128


def build(widths, folder, layers=1):
    """Activations of the sizes that trained models have: scores of a few units, logits of ten."""
    config = Gemma2Config(**widths, num_hidden_layers=layers, vocab_size=VOCABULARY,
                          sliding_window=WINDOW, attn_implementation="eager")
    model = Gemma2ForCausalLM(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(0.3 * torch.randn_like(p))
            elif "embed" in name:
                p.copy_(torch.randn_like(p) * 10 / p.shape[1] ** 0.5)
            else:
                gain = 2 if "q_proj" in name or "k_proj" in name else 1
                p.copy_(torch.randn_like(p) * gain / p.shape[1] ** 0.5)
    model.to(torch.bfloat16).save_pretrained(folder)


def theirs(folder, dtype, tokens):
    model = Gemma2ForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    with torch.no_grad():
        return model.eval()(tokens[None]).logits[0].float()


def ours(build_folder, folder, dtype, tokens):
    source, target = os.path.join(folder, "tokens.st"), os.path.join(folder, "logits.st")
    save_file({"tokens": tokens.int()}, source)
    subprocess.run([os.path.join(build_folder, "tests/dump_logits"), folder, source, target, dtype],
                   check=True)
    return load_file(target)["logits"]


def main():
    build_folder = sys.argv[1] if len(sys.argv) > 1 else "build"
    torch.manual_seed(5)
    good = True
    for name, widths in WIDTHS.items():
        with tempfile.TemporaryDirectory() as folder:
            build(widths, folder)
            tokens = torch.randint(3, VOCABULARY, (TOKENS,))
            tokens[0] = 2
            ref = theirs(folder, torch.float32, tokens)
            low = theirs(folder, torch.bfloat16, tokens)
            f32 = (ours(build_folder, folder, "f32", tokens) - ref).abs().max().item()
            mine = (ours(build_folder, folder, "bf16", tokens) - ref).square().mean().sqrt().item()
            their = (low - ref).square().mean().sqrt().item()
            good = good and f32 <= 1e-4 and mine <= 2 * their
            print(f"{name}: logits to {ref.abs().max():.1f}; f32 max difference {f32:.2e}; "
                  f"bf16 rms error {mine:.4f}, transformers {their:.4f}, ratio {mine / their:.3f}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
