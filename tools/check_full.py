"""How exact is PyTorch's own float32 where all weights of the golden models are trained? What
tests/test_full.c allows is measured by that.

    tools/check_full.py tests/golden/model_a tests/golden/model_b tests/golden/model_c

For each model the largest relative error (Frobenius) of a gradient, and of a loss over twenty steps
of AdamW with the test's recipe, of float32 against float64. transformers makes norms and softmax in
float32 whatever the weights are; here they are made in the weights' type.
"""
import contextlib
import sys
from unittest import mock

import torch
from safetensors.torch import load_file
from transformers import Gemma2ForCausalLM, get_cosine_schedule_with_warmup

STEPS, WARMUP, CLIP, RATE, DECAY = 20, 3, 0.7, 3e-3, 0.1


@contextlib.contextmanager
def computing_in(dtype):
    to_float, softmax = torch.Tensor.float, torch.nn.functional.softmax
    if dtype == torch.float32:
        yield
        return
    with mock.patch.object(torch.Tensor, "float",
                           lambda t: t if t.dtype == dtype else to_float(t)), \
         mock.patch.object(torch.nn.functional, "softmax",
                           lambda x, dim=None, dtype=None: softmax(x, dim=dim)):
        yield


def load(folder, dtype):
    model = Gemma2ForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                              attn_implementation="eager").eval().to(dtype)
    scale = model.config.hidden_size**0.5
    model.model.embed_tokens.embed_scale = torch.tensor(scale, dtype=dtype)
    return model


def documents(folder):
    golden, docs = load_file(folder + "/golden.safetensors"), []
    while f"doc{len(docs)}.tokens" in golden:
        name = f"doc{len(docs)}."
        docs.append((golden[name + "tokens"].long(), golden[name + "labels"].bool()))
    return docs


def mean_loss(model, docs):
    total, count = 0, 0
    for tokens, labels in docs:
        logits, at = model(tokens[None]).logits[0], labels.nonzero()[:, 0]
        total = total + torch.nn.functional.cross_entropy(logits[at - 1], tokens[at],
                                                          reduction="sum")
        count += len(at)
    return total / count


def gradients(folder, docs, dtype):
    with computing_in(dtype):
        model = load(folder, dtype)
        mean_loss(model, docs).backward()
    return {name: p.grad.double() for name, p in model.named_parameters()}


def losses(folder, docs, dtype):
    with computing_in(dtype):
        model = load(folder, dtype)
        matrix = [p for p in model.parameters() if p.dim() == 2]
        norm = [p for p in model.parameters() if p.dim() == 1]
        adamw = torch.optim.AdamW([{"params": matrix, "weight_decay": DECAY},
                                   {"params": norm, "weight_decay": 0}],
                                  lr=RATE, betas=(0.9, 0.98), eps=1e-6)
        plan, found = get_cosine_schedule_with_warmup(adamw, WARMUP, STEPS), []
        for _ in range(STEPS):
            adamw.zero_grad()
            loss = mean_loss(model, docs)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            adamw.step()
            plan.step()
            found.append(loss.item())
    return found


def main():
    for folder in sys.argv[1:]:
        docs = documents(folder)
        single, double = (gradients(folder, docs, t) for t in (torch.float32, torch.float64))
        error = {k: ((g - double[k]).norm() / double[k].norm()).item() for k, g in single.items()}
        worst = max(error, key=error.get)
        curves = zip(*(losses(folder, docs, t) for t in (torch.float32, torch.float64)))
        off = max(abs(a - b) / b for a, b in curves)
        print("%s: gradient %.1e (%s), loss %.1e" % (folder, error[worst], worst, off))


if __name__ == "__main__":
    main()
