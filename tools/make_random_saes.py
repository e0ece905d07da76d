"""make_random_saes.py - random SAEs in Gemma Scope's form for a random checkpoint.

  make_random_saes.py --model HF_FOLDER --layers 5,10,15,20 --width 16384 --out FOLDER

Writes FOLDER/layer_L/width_16k/average_l0_N/params.npz with W_enc, W_dec (unit rows), b_enc,
b_dec and threshold, all float32, as the published files have them.

A checkpoint of `sails init` adds two sub-layer outputs of about unit variance per layer to an
embedding of about unit variance, so the stream that leaves layer l has a variance near 2 l + 3.
Encoder columns are unit vectors: a threshold of 2.3 standard deviations lets one feature in a
hundred fire. Needs numpy."""

import argparse
import json
import os

import numpy as np


def unit_rows(rng, rows, columns):
    x = rng.standard_normal((rows, columns), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--layers", required=True)
    p.add_argument("--width", type=int, default=16384)
    p.add_argument("--out", required=True)
    args = p.parse_args()
    with open(f"{args.model}/config.json", encoding="utf-8") as f:
        hidden = json.load(f)["hidden_size"]
    for layer in map(int, args.layers.split(",")):
        rng = np.random.default_rng(layer)
        directions = unit_rows(rng, args.width, hidden)
        threshold = 2.3 * np.sqrt(2 * layer + 3)
        folder = (f"{args.out}/layer_{layer}/width_{args.width // 1024}k/"
                  f"average_l0_{args.width // 100}")
        os.makedirs(folder, exist_ok=True)
        np.savez(
            f"{folder}/params.npz",
            W_enc=np.ascontiguousarray(directions.T),
            W_dec=directions,
            b_enc=np.zeros(args.width, np.float32),
            b_dec=np.zeros(hidden, np.float32),
            threshold=np.full(args.width, threshold, np.float32),
        )
        print(folder)


if __name__ == "__main__":
    main()
