"""SAE statistics as a user of transformers and SAELens gets them: padded batches of 8, hidden states
of every layer, SAE.encode at the reply's tokens, sums and firing counts per corpus.

    THREADS=2 score_saelens.py MODEL SAES LAYERS CHOSEN REJECTED bf16|f32

SAES: a folder as tools/make_random_saes.py writes it. CHOSEN, REJECTED: what `sails tokenize` made of
the two sides of the same pairs. The SAEs run in f32, as SAELens loads them. The model runs without
its head, which few users think of. The first batch warms up and is not timed."""
import glob
import json
import os
import sys
import time

import numpy as np
import torch
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformers import AutoModel

BATCH = 8
DTYPE = {"bf16": torch.bfloat16, "f32": torch.float32}


def load_sae(folder, layer):
    (path,) = glob.glob(f"{folder}/layer_{layer}/*/*/params.npz")
    params = np.load(path)
    width, features = params["W_enc"].shape
    about = SAEMetadata(model_name="random", hook_name=f"blocks.{layer}.hook_resid_post")
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=width, d_sae=features, apply_b_dec_to_input=False,
                                        metadata=about))
    for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold"):
        getattr(sae, name).data = torch.from_numpy(params[name])
    return sae.eval()


def documents(path):
    """id -> (ids, which of them count): the reply without the <end_of_turn> and newline behind it."""
    found = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            counted = [bool(label) for label in record["labels"]]
            if not record["truncated"]:
                end = max(i for i, c in enumerate(counted) if c)
                counted[end] = counted[end - 1] = False
            found[record["id"]] = record["tokens"], counted
    return found


def padded(docs):
    longest = max(len(ids) for ids, _ in docs)
    ids = torch.zeros(len(docs), longest, dtype=torch.long)
    mask, counted = torch.zeros_like(ids), torch.zeros(len(docs), longest, dtype=torch.bool)
    for row, (tokens, counts) in enumerate(docs):
        ids[row, :len(tokens)] = torch.tensor(tokens)
        mask[row, :len(tokens)] = 1
        counted[row, :len(tokens)] = torch.tensor(counts)
    return ids, mask, counted


@torch.no_grad()
def add(sums, fires, corpus, model, saes, docs):
    ids, mask, counted = padded(docs)
    hidden = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for layer, sae in saes.items():
        acts = sae.encode(hidden[layer + 1][counted].float())
        sums[layer][corpus] += acts.sum(0)
        fires[layer][corpus] += (acts > 0).sum(0)


def main():
    folder, sae_folder, layers, chosen, rejected, dtype = sys.argv[1:]
    torch.set_num_threads(int(os.environ["THREADS"]))
    model = AutoModel.from_pretrained(folder, dtype=DTYPE[dtype]).eval()
    saes = {int(layer): load_sae(sae_folder, layer) for layer in layers.split(",")}
    corpora = [documents(chosen), documents(rejected)]
    both = [i for i in corpora[0] if i in corpora[1]]
    features = next(iter(saes.values())).cfg.d_sae
    sums = {layer: torch.zeros(2, features, dtype=torch.float64) for layer in saes}
    fires = {layer: torch.zeros(2, features, dtype=torch.int64) for layer in saes}
    docs = [[corpus[i] for i in both] for corpus in corpora]
    add(sums, fires, 0, model, saes, docs[0][:BATCH])
    start = time.perf_counter()
    for corpus in range(2):
        for at in range(0, len(both), BATCH):
            add(sums, fires, corpus, model, saes, docs[corpus][at:at + BATCH])
    seconds = time.perf_counter() - start
    print(json.dumps({"rate": sum(len(ids) for side in docs for ids, _ in side) / seconds}))


if __name__ == "__main__":
    main()
