#!/usr/bin/env python3
"""Adapter folders that sails writes, loaded by PEFT: logits must agree to 1e-4 in float32.

    python tools/check_peft.py [build folder]

Every adapter of the golden models is loaded by sails, saved again by it, and that copy is given to
PEFT, which must find every tensor in its place. Exits 1 when a bound is broken. With
SAILS_TEST_DEVICE=cuda sails computes on the GPU."""
import glob
import os
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import Gemma2ForCausalLM


def main():
    # PEFT only warns about tensors that it misses
    warnings.filterwarnings("error", message="Found missing adapter keys")
    build_folder = sys.argv[1] if len(sys.argv) > 1 else "build"
    adapters = sorted(glob.glob("tests/golden/model_*/adapter*"))
    good = bool(adapters)
    for adapter in adapters:
        folder = os.path.dirname(adapter)
        with tempfile.TemporaryDirectory() as scratch:
            source, target, copy = (os.path.join(scratch, n) for n in ("t.st", "z.st", "copy"))
            tokens = load_file(folder + "/golden.safetensors")["doc3.tokens"]
            save_file({"tokens": tokens}, source)
            subprocess.run([build_folder + "/tests/dump_logits", folder, source, target, "f32",
                            adapter, copy], check=True)
            base = Gemma2ForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                     attn_implementation="eager")
            model = PeftModel.from_pretrained(base, copy).eval()
            with torch.no_grad():
                ref = model(tokens[None].long()).logits[0]
            error = (load_file(target)["logits"] - ref).abs().max().item()
            good = good and error <= 1e-4
            print(f"{adapter}: max |logit difference| {error:.2e}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
