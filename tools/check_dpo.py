#!/usr/bin/env python3
"""Training on pairs against TRL's own DPOTrainer, in float32 on a tiny model of random weights.

    python tools/check_dpo.py [sails]

For each loss that `sails train` has, of an adapter and of all weights: two steps of three over the
same pairs, one of which is cut and one dropped. The first is at the reference, the second where
AdamW at a high rate has led; its weights are taken from the checkpoint, so TRL is asked at the very
same place. Without beta1 AdamW's mean is the gradient. What is told of a step, and of an evaluation
behind the first, must be TRL's to 1e-5 (of numbers below 1: in all), every gradient to 1e-5 of its
norm, and to what PyTorch makes in float64, with the losses written down here from their papers,
ours must be at most twice as far as TRL's (numbers: or by two roundings of each). Exits 1 if not.
Needs torch, transformers, peft, trl."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from datasets import Dataset, disable_progress_bars
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.chat_template_utils import gemma_chat_template

from check_full import computing_in, load
from make_golden_model import CASES, adapters, build

TOKENIZER, MAX_LENGTH, BOUND = "tests/golden/tokenizer_small.json", 36, 1e-5
KINDS = {"sigmoid": 0, "robust": 0.1, "exo_pair": 0.1, "ipo": 0, "sigmoid_norm": 0}
BETA = 0.2
RATES = {"adapter": "0.006", "all": "0.001"}  # by --weights
PAIRS = [("How do I open a lock?", "I cannot help with a lock.", "Take two keys."),
         ("Hi", "No.", "Sure, and then turn it twice, slowly."),
         ("Tell me of bread.", "Bread is red. " * 20, "It is."),  # cut
         ("Tell me of rivers. " * 20, "Two.", "Three."),  # dropped
         ("Is it the red door?", "It is the other one.", "It is the other one, number 3.")]
METRICS = ["loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
           "logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected", "entropy",
           "mean_token_accuracy", "num_tokens"]


def make_model(folder):
    """A model, its adapter and the pairs; returns the tokenizer."""
    torch.manual_seed(11)
    model = build(dict(CASES["model_a"], vocab_size=703))
    model.save_pretrained(folder)
    adapters(model, folder)
    shutil.copy(TOKENIZER, os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "pairs.jsonl"), "w", encoding="ascii") as f:
        for pair in PAIRS:
            print(json.dumps(dict(zip(("prompt", "chosen", "rejected"), pair))), file=f)
    return PreTrainedTokenizerFast(tokenizer_file=TOKENIZER, bos_token="<bos>", eos_token="<eos>",
                                   pad_token="<pad>", unk_token="<unk>",
                                   chat_template=gemma_chat_template)


def messages():
    return [{"prompt": [{"role": "user", "content": p.strip()}],
             "chosen": [{"role": "assistant", "content": c.strip()}],
             "rejected": [{"role": "assistant", "content": r.strip()}]} for p, c, r in PAIRS]


# ------------------------------------------------------------------------------------------- ours

def ours(sails, folder, weights, kind, smoothing):
    """What metrics.jsonl says of each step, and of the evaluation between the two, which is of the
    second one's weights; the gradients; those weights."""
    out = os.path.join(folder, weights + kind)
    command = [sails, "train", "--model", folder, "--data", os.path.join(folder, "pairs.jsonl"),
               "--method", "dpo", "--weights", weights, "--loss-type", kind, "--beta", str(BETA),
               "--max-length", str(MAX_LENGTH), "--pack-tokens", "72", "--batch",
               str(len(PAIRS) - 1), "--steps", "3", "--lr", RATES[weights], "--schedule",
               "constant", "--warmup", "0", "--clip", "0", "--beta1", "0", "--dtype", "f32",
               "--device", "cpu", "--checkpoint-every", "1", "--eval-data",
               os.path.join(folder, "pairs.jsonl"), "--eval-every", "1", "--json", "--out", out]
    if weights == "adapter":
        command += ["--init-adapter", os.path.join(folder, "adapter")]
    if smoothing:
        command += ["--label-smoothing", str(smoothing)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(out + "/metrics.jsonl", encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    told = [line for line in lines if "loss" in line]
    evaluated = next({k[5:]: v for k, v in line.items() if k.startswith("eval_")}
                     for line in lines if "eval_loss" in line)
    told.append(dict(evaluated, num_tokens=told[1]["num_tokens"]))  # which TRL counts in training
    state = [load_file(f"{out}/checkpoints/step-{i:08d}/state.safetensors") for i in (1, 2)]
    grads = [part(s, "m") for s in state]
    return [told[0], told[1], told[-1]], grads, part(state[0], "master")


def part(state, kind):
    """The tensors of one kind, by PEFT's names; tiny ones are in one piece."""
    return {name.split("/", 1)[1].rsplit("@", 1)[0]: t for name, t in state.items()
            if name.startswith(kind + "/")}


# ------------------------------------------------------------------------------------------ torch

def start(folder, weights, dtype):
    base = load(folder, dtype)
    if weights == "all":
        return base
    return PeftModel.from_pretrained(base, os.path.join(folder, "adapter"),
                                     is_trainable=True).to(dtype)


def trained(model):
    """What is trained, by the names in files."""
    return {name.replace(".default", ""): p for name, p in model.named_parameters()
            if ".default" in name or not isinstance(model, PeftModel)}


def move(model, place):
    with torch.no_grad():
        for name, p in trained(model).items():
            p.copy_(place[name].view_as(p))


def grads_of(model):
    return {name: p.grad.double().flatten() for name, p in trained(model).items()}


def theirs(folder, tok, weights, kind, smoothing, second):
    """TRL's, at both places."""
    config = DPOConfig(output_dir=os.path.join(folder, "trl"), loss_type=[kind], beta=BETA,
                       label_smoothing=smoothing, max_length=MAX_LENGTH, use_cpu=True, bf16=False,
                       gradient_checkpointing=False, report_to="none", disable_tqdm=True,
                       per_device_train_batch_size=len(PAIRS))
    trainer = DPOTrainer(model=start(folder, weights, torch.float32), args=config,
                         ref_model=load(folder, torch.float32) if weights == "all" else None,
                         processing_class=tok, train_dataset=Dataset.from_list(messages()))
    model, told, grads = trainer.model, [], []
    model.train()
    for place in (None, second):
        if place:
            move(model, place)
        inputs = next(iter(trainer.get_train_dataloader()))
        model.zero_grad()
        loss = trainer.compute_loss(model, inputs)
        loss.backward()
        told.append({"loss": loss.item(),
                     **{k: v[-1] for k, v in trainer._metrics["train"].items()}})
        grads.append(grads_of(model))
    return told, grads


def documents(tok):
    """[(chosen, rejected)] of (ids, where the reply begins)."""
    docs = []
    for row in messages():
        prompt = tok.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
        whole = [tok.apply_chat_template(row["prompt"] + row[side])["input_ids"][:MAX_LENGTH]
                 for side in ("chosen", "rejected")]
        if len(prompt) < MAX_LENGTH:
            docs.append([(torch.tensor(ids), len(prompt)) for ids in whole])
    return docs


def measure(model, docs):
    """Of each side of each pair: log p of the reply, its length, its mean logits, entropies and
    hits."""
    found = []
    for pair in docs:
        found.append([])
        for ids, begin in pair:
            z = model(ids[None]).logits[0, begin - 1:-1]
            logp, target = z.log_softmax(-1), ids[begin:]
            entropy = -(logp.exp() * logp).sum(-1)
            found[-1].append((logp.gather(1, target[:, None]).sum(), len(target),
                              z.mean(-1).detach(), entropy.detach(), z.argmax(-1) == target))
    return found


def loss_of(kind, e, gains, lengths):
    """Of a pair: DPO (2305.18290), robust DPO (2403.00409), EXO (2402.00856), IPO (2310.12036)."""
    z = BETA * (gains[0] - gains[1])
    mean = gains[0] / lengths[0] - gains[1] / lengths[1]
    p = 1 / (1 + torch.exp(-z))
    if kind == "sigmoid":
        return -torch.log(p)
    if kind == "robust":
        return (-(1 - e) * torch.log(p) + e * torch.log(1 - p)) / (1 - 2 * e)
    if kind == "exo_pair":
        return p * torch.log(p / (1 - e)) + (1 - p) * torch.log((1 - p) / e)
    if kind == "ipo":
        return (mean - 1 / (2 * BETA)) ** 2
    return torch.log(1 + torch.exp(-BETA * mean))


def average(found, side, what):
    return torch.cat([pair[side][what].double() for pair in found])


def told_of(loss, found, gains, docs):
    side = {"chosen": 0, "rejected": 1}
    rewards = BETA * torch.tensor(gains, dtype=torch.float64)
    margins = rewards[:, 0] - rewards[:, 1]
    told = {"loss": loss, "rewards/accuracies": (margins > 0).double().mean(),
            "rewards/margins": margins.mean(), "mean_token_accuracy": average(found, 0, 4).mean(),
            "entropy": torch.cat([average(found, s, 3) for s in (0, 1)]).mean(),
            "num_tokens": sum(len(ids) for pair in docs for ids, _ in pair)}
    for name, s in side.items():
        told["rewards/" + name] = rewards[:, s].mean()
        told["logps/" + name] = sum(pair[s][0].item() for pair in found) / len(found)
        told["logits/" + name] = average(found, s, 2).mean()
    return {k: float(v) for k, v in told.items()}


def exact(folder, tok, weights, kind, smoothing, second):
    """The same in float64."""
    docs, told, grads = documents(tok), [], []
    with computing_in(torch.float64):
        model = start(folder, weights, torch.float64)
        reference = [[side[0].item() for side in pair] for pair in measure(model, docs)]
        for place in (None, second):
            if place:
                move(model, place)
            found, losses, all_gains = measure(model, docs), [], []
            for pair, ref in zip(found, reference):
                gains = [side[0] - r for side, r in zip(pair, ref)]
                losses.append(loss_of(kind, smoothing, gains, [side[1] for side in pair]))
                all_gains.append([g.item() for g in gains])
            loss = sum(losses) / len(docs)
            model.zero_grad()
            loss.backward()
            told.append(told_of(loss.item(), found, all_gains, docs))
            grads.append(grads_of(model))
    # as TRL counts them, from the first step on
    told[1]["num_tokens"] *= 2
    return told, grads


# ----------------------------------------------------------------------------------------- bounds

def apart(got, want):
    """The largest difference of two gradients, of a norm."""
    return max(((got[k] - g).norm() / g.norm()).item() for k, g in want.items())


def rms(got, want):
    each = torch.stack([((got[k] - g).norm() / g.norm()).square() for k, g in want.items()])
    return each.mean().sqrt().item()


def differences(got, want):
    return torch.tensor([(got[k] - want[k]) / max(1, abs(want[k])) for k in METRICS])


def check(sails, folder, tok, weights, kind, smoothing):
    told, grads, second = ours(sails, folder, weights, kind, smoothing)
    trl, trl_grads = theirs(folder, tok, weights, kind, smoothing, second)
    true, true_grads = exact(folder, tok, weights, kind, smoothing, second)
    good = abs(true[1]["rewards/margins"]) > 0.1  # else the second place is the first
    evaluated = differences(told[2], trl[1]).abs().max().item()
    print(f"{weights:8s} {kind:13s} evaluation: from TRL's: numbers {evaluated:.1e}")
    good = good and evaluated <= BOUND
    for i in range(2):
        number = differences(told[i], trl[i]).abs().max().item()
        gradient = apart(grads[i], trl_grads[i])
        mine, other = rms(grads[i], true_grads[i]), rms(trl_grads[i], true_grads[i])
        far, trl_far = (differences(t[i], true[i]).norm().item() for t in (told, trl))
        print(f"{weights:8s} {kind:13s} step {i + 1}: loss {told[i]['loss']:.7f}, margin "
              f"{told[i]['rewards/margins']:+.4f}; from TRL's: numbers {number:.1e}, gradients "
              f"{gradient:.1e}; from float64: numbers {far:.1e} (TRL {trl_far:.1e}), gradients "
              f"{mine:.1e} (TRL {other:.1e})")
        good = good and number <= BOUND and gradient <= BOUND and mine <= 2 * other
        good = good and far <= max(2 * trl_far, 2 * 2.0**-24 * len(METRICS) ** 0.5)
    return good


def main():
    sails = sys.argv[1] if len(sys.argv) > 1 else "build/sails"
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        tok = make_model(folder)
        good = [check(sails, folder, tok, weights, kind, e) for weights in RATES
                for kind, e in KINDS.items()]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
