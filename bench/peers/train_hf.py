"""LoRA fine-tuning by the loop that every tutorial shows: transformers, PEFT, AdamW, padded batches
of 8 (BATCH), no gradient checkpointing. On the CPU it is faster than SFTTrainer's defaults.

    THREADS=2 [DEVICE=cuda] [BATCH=2] train_hf.py MODEL TOKENS bf16|f32

The first batch warms up and is not timed."""
import os
import sys

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

import common

BATCH = int(os.environ.get("BATCH", 8))


def padded(docs):
    longest = max(len(ids) for ids, _ in docs)
    ids = torch.zeros(len(docs), longest, dtype=torch.long)
    labels = torch.full_like(ids, common.IGNORED)
    mask = torch.zeros_like(ids)
    for row, (tokens, targets) in enumerate(docs):
        ids[row, :len(tokens)] = torch.tensor(tokens)
        labels[row, :len(tokens)] = torch.tensor(targets)
        mask[row, :len(tokens)] = 1
    batch = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    return {name: t.to(common.DEVICE) for name, t in batch.items()}


def main():
    folder, tokens, dtype = sys.argv[1:]
    common.use_threads()
    docs = common.documents(tokens)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=common.dtype_named(dtype))
    model.to(common.DEVICE)
    weights = common.weight_bytes(model.parameters())
    model = get_peft_model(model, common.lora_config())
    model.train()
    adamw = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4,
                              weight_decay=0)
    start = 0
    for at in range(-BATCH, len(docs), BATCH):
        loss = model(**padded(docs[max(at, 0):max(at, 0) + BATCH])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        if at < 0:
            start = common.clock()
    common.report(common.tokens_of(docs), common.clock() - start, weights, loss=loss.item())


if __name__ == "__main__":
    main()
