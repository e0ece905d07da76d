#!/usr/bin/env python3
"""Makes tests/golden/model_*: tiny awkward Gemma-2 checkpoints with what transformers and PEFT
compute from them. Needs torch, transformers, peft, safetensors; the tests need only the result.

    python tools/make_golden_model.py tests/golden

Each folder is a Hugging Face model folder, with PEFT folders in it, and golden.safetensors:
  doc<i>.tokens, doc<i>.labels   documents; labels mark target tokens
  doc<i>.logits / .logits_bf16   eager attention in float32 / everything in bfloat16
  doc<i>.logits_<adapter>        with that PEFT adapter, float32
  grad.<peft name>               of the mean loss over all label tokens, adapter "adapter"
  train.*                        20 AdamW steps on the whole batch from "adapter"
  gen<i>.prompt, gen<i>.tokens   greedy continuation
"""
import json
import math
import os
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import Gemma2Config, Gemma2ForCausalLM, get_cosine_schedule_with_warmup

# Every width differs from every other one where the architecture lets it.
CASES = {
    "model_a": dict(hidden_size=30, num_hidden_layers=3, intermediate_size=53, vocab_size=211,
                    num_attention_heads=2, num_key_value_heads=2, head_dim=32, sliding_window=5,
                    query_pre_attn_scalar=24, attn_logit_softcapping=50.0,
                    final_logit_softcapping=30.0, rms_norm_eps=1e-6, dtype="float32"),
    "model_b": dict(hidden_size=20, num_hidden_layers=5, intermediate_size=41, vocab_size=167,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=64, sliding_window=7,
                    query_pre_attn_scalar=64, attn_logit_softcapping=9.0,
                    final_logit_softcapping=12.0, rms_norm_eps=1e-4, dtype="float16"),
    "model_c": dict(hidden_size=8, num_hidden_layers=3, intermediate_size=19, vocab_size=158,
                    num_attention_heads=4, num_key_value_heads=1, head_dim=256, sliding_window=6,
                    query_pre_attn_scalar=144, attn_logit_softcapping=20.0,
                    final_logit_softcapping=30.0, rms_norm_eps=1e-6, dtype="bfloat16"),
}
DOC_LENGTHS = [17, 2, 9, 24]
TRAIN = dict(lr=5e-3, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.01, clip=0.7, warmup=3,
             steps=20)


class Unfit(Exception):
    """This draw would make a poor test."""


def build(case):
    """Random weights whose scores and logits reach into both softcaps, and not so far that
    gradients are small differences: float32 itself must be good to well below 1e-5."""
    shape = {k: v for k, v in case.items() if k != "dtype"}
    config = Gemma2Config(**shape, eos_token_id=[1, 7], bos_token_id=2, pad_token_id=0,
                          max_position_embeddings=64, attn_implementation="eager")
    model = Gemma2ForCausalLM(config)
    D, E = config.hidden_size, config.head_dim
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(0.3 * torch.randn_like(p))
            elif "embed" in name:
                p.copy_(torch.randn_like(p) * 3 / D**0.5)
            elif "q_proj" in name or "k_proj" in name:  # scores of 1.5, some of 6
                scale = 1.5 * config.query_pre_attn_scalar**0.5
                p.copy_(torch.randn_like(p) * (scale / E**0.5) ** 0.5 / D**0.5)
            else:
                p.copy_(torch.randn_like(p) / p.shape[1] ** 0.5)
    return model.to(getattr(torch, case["dtype"]))


def load(folder, dtype):
    return Gemma2ForCausalLM.from_pretrained(folder, dtype=dtype,
                                             attn_implementation="eager").eval()


def adapters(model, folder):
    """PEFT folders with A and B both non-zero. Returns their names."""
    plain = LoraConfig(r=2, lora_alpha=5, task_type="CAUSAL_LM",
                       target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                       "up_proj", "down_proj"])
    pattern = LoraConfig(r=3, lora_alpha=4, task_type="CAUSAL_LM",
                         target_modules=r".*\.(0|2)\.(self_attn\.(q|v|o)_proj|mlp\.down_proj)",
                         rank_pattern={r"layers\.2\.self_attn\.q_proj": 5, "down_proj": 1},
                         alpha_pattern={"q_proj": 7.5, "v_proj": 1})
    rslora = LoraConfig(r=4, lora_alpha=3, use_rslora=True, task_type="CAUSAL_LM",
                        target_modules=["o_proj", "up_proj"], layers_to_transform=[1])
    made = {"adapter": plain, "adapter_pattern": pattern, "adapter_rslora": rslora}
    for name, lora in made.items():
        peft = get_peft_model(model, lora)
        with torch.no_grad():
            for key, p in peft.named_parameters():
                if "lora_" in key:
                    p.copy_(torch.randn_like(p) * (0.2 if "lora_A" in key else 0.15))
        peft.save_pretrained(os.path.join(folder, name))
        model = peft.unload()
        os.remove(os.path.join(folder, name, "README.md"))
        path = os.path.join(folder, name, "adapter_config.json")
        text = json.load(open(path))
        text["base_model_name_or_path"] = None
        json.dump(text, open(path, "w"), indent=1, sort_keys=True)
    return list(made), model


def logits_of(model, docs):
    with torch.no_grad():
        return [model(t[None]).logits[0].clone() for t, _ in docs]


def mean_loss(model, docs):
    """Sum of the label tokens' losses over their number in the whole batch."""
    total, count = 0, 0
    for tokens, labels in docs:
        logits = model(tokens[None]).logits[0]
        at = labels.nonzero()[:, 0]
        total = total + torch.nn.functional.cross_entropy(logits[at - 1], tokens[at],
                                                          reduction="sum")
        count += len(at)
    return total / count


def short(name):
    return name.replace("base_model.model.", "").replace(".default", "")


def gradients(folder, docs, dtype):
    """Loss and gradients by name. In float64 only norms and softmax are still float32."""
    base = load(folder, torch.float32).to(dtype)
    base.model.embed_tokens.embed_scale.fill_(base.config.hidden_size**0.5)
    peft = PeftModel.from_pretrained(base, os.path.join(folder, "adapter"), is_trainable=True)
    for p in peft.parameters():
        p.data = p.data.to(dtype)
    loss = mean_loss(peft, docs)
    loss.backward()
    return loss.detach().float(), {"grad." + short(name): p.grad.clone()
                                   for name, p in peft.named_parameters() if "lora_" in name}


def store_gradients(folder, docs, out):
    loss, grad = gradients(folder, docs, torch.float32)
    _, wide = gradients(folder, docs, torch.float64)
    noise = max(((g - wide[k]).norm() / wide[k].norm()).item() for k, g in grad.items())
    print("   float32 noise of the worst gradient %.1e" % noise)
    if not noise < 3e-6:
        raise Unfit("badly conditioned")
    out.update(grad, loss=loss.reshape(1))


def train(base, folder, docs, out):
    peft = PeftModel.from_pretrained(base, os.path.join(folder, "adapter"), is_trainable=True)
    t = TRAIN
    params = [p for p in peft.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=t["lr"], betas=(t["beta1"], t["beta2"]), eps=t["eps"],
                            weight_decay=t["weight_decay"])
    plan = get_cosine_schedule_with_warmup(opt, t["warmup"], t["steps"])
    losses, norms, lrs = [], [], []
    for _ in range(t["steps"]):
        opt.zero_grad()
        loss = mean_loss(peft, docs)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, t["clip"])
        lrs.append(plan.get_last_lr()[0])
        opt.step()
        plan.step()
        losses.append(loss.item())
        norms.append(norm.item())
    if sum(n > t["clip"] for n in norms) < 5:
        raise Unfit("clipping has nothing to do")
    out["train.loss"] = torch.tensor(losses, dtype=torch.float64)
    out["train.norm"] = torch.tensor(norms, dtype=torch.float64)
    out["train.lr"] = torch.tensor(lrs, dtype=torch.float64)
    out["train.hyper"] = torch.tensor([t[k] for k in ("lr", "beta1", "beta2", "eps",
                                                      "weight_decay", "clip", "warmup", "steps")],
                                      dtype=torch.float64)
    print("   losses %.6f -> %.6f, norms %.3f..%.3f" % (losses[0], losses[-1], min(norms),
                                                       max(norms)))
    return peft.unload()


def generate(model, config, out):
    """Greedy; the best and second logits must differ by more than float32 noise."""
    for i, n in enumerate([9, 1, 15, 4]):
        prompt = torch.randint(8, config.vocab_size, (n,))
        prompt[0] = 2
        got = model.generate(prompt[None], max_new_tokens=14, do_sample=False, output_scores=True,
                             output_logits=True, return_dict_in_generate=True)
        for step in got.logits:
            top = step[0].topk(2).values
            if not top[0] - top[1] > 1e-3:
                raise Unfit("a near tie")
        out[f"gen{i}.prompt"] = prompt.int()
        out[f"gen{i}.tokens"] = got.sequences[0, n:].int()


def make(name, case, root, seed):
    torch.manual_seed(seed)
    folder = os.path.join(root, name)
    shutil.rmtree(folder, ignore_errors=True)
    build(case).save_pretrained(folder)
    model = load(folder, torch.float32)  # starts from what the file holds
    config = model.config
    docs = []
    for n in DOC_LENGTHS:
        tokens = torch.randint(3, config.vocab_size, (n,))
        tokens[0] = 2
        labels = (torch.rand(n) < 0.6).int()
        labels[0] = 0
        labels[1] = 1
        docs.append((tokens, labels))
    out = {}
    for i, ((t, lab), z) in enumerate(zip(docs, logits_of(model, docs))):
        out[f"doc{i}.tokens"], out[f"doc{i}.labels"], out[f"doc{i}.logits"] = t.int(), lab, z
    generate(model, config, out)
    names, model = adapters(model, folder)
    for a in names:
        peft = PeftModel.from_pretrained(model, os.path.join(folder, a)).eval()
        for i, z in enumerate(logits_of(peft, docs)):
            if i == 2:
                out[f"doc{i}.logits_{a}"] = z
        model = peft.unload()
    store_gradients(folder, docs, out)
    model = train(model, folder, docs, out)
    half = load(folder, torch.bfloat16)
    for i, z in enumerate(logits_of(half, docs)):
        out[f"doc{i}.logits_bf16"] = z
        full = out[f"doc{i}.logits"]
        print("   doc %d: |logit| max %.1f of cap %.0f, bf16 rms error %.4f" %
              (i, full.abs().max(), config.final_logit_softcapping,
               (z.float() - full).square().mean().sqrt()))
    save_file({k: v.contiguous() for k, v in out.items()},
              os.path.join(folder, "golden.safetensors"))
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(folder) for f in fs)
    print(f"{folder}: {size / 1024:.0f} KB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, case in CASES.items():
        for seed in range(100):
            try:
                make(name, case, sys.argv[1], seed)
                break
            except Unfit as why:
                print(f"{name}: seed {seed}: {why}")
