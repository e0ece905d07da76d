"""A DPO step of LoRA adapters by the packed PyTorch of train_packed.py: as TRL does it, chosen and
rejected are concatenated and run at once, each behind its own copy of the prompt; sigmoid loss of
token sums, mean over the pairs. Both replies of a pair lie in one pack. The reference is measured
before the steps, which TRL does where precompute_ref_log_probs asks for it: it costs a step nothing.

    THREADS=2 train_packed_dpo.py MODEL CHOSEN REJECTED bf16|f32 [profile]"""
import sys

import torch
import torch.nn.functional as F

import common
import train_packed as packed

PACK, BETA = 4096, 0.1  # rows; both as sails' defaults


def logp_of(model, pack):
    """(pairs, 2) of a pack: chosen, rejected."""
    docs = [doc for pair in pack for doc in pair]
    nll = model.nll(docs).split([packed.labels_of(doc) for doc in docs])
    return -torch.stack([reply.sum() for reply in nll]).view(-1, 2)


def step(model, adamw, packs, reference):
    pairs, total = sum(map(len, packs)), 0.0
    for pack, before in zip(packs, reference):
        gain = logp_of(model, pack) - before
        loss = -F.logsigmoid(BETA * (gain[:, 0] - gain[:, 1])).sum() / pairs
        loss.backward()
        total += loss.item()
    packed.update(model, adamw)
    return total


def main():
    folder, chosen, rejected, dtype = sys.argv[1:5]
    common.use_threads()
    sides = common.documents(chosen), common.documents(rejected)
    packs = packed.packs(list(zip(*sides)), PACK)
    model = packed.Model(folder, common.dtype_named(dtype))
    with torch.no_grad():
        reference = [logp_of(model, pack) for pack in packs]
    adamw = packed.adamw_of(model)
    packed.measure(lambda: step(model, adamw, packs, reference),
                   sum(map(common.tokens_of, sides)), common.weight_bytes(model.w.values()),
                   len(sys.argv) > 5)


if __name__ == "__main__":
    main()
