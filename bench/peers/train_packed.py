"""The fastest LoRA step for Gemma-2 that we can write in PyTorch on a CPU: no padding, documents
packed into PACK rows, attention per document; the last layer above its attention, head and loss on
label rows only, in chunks, with the head's gradient made in the forward pass; what is not a matrix
product is compiled. train_packed_full.py and train_packed_dpo.py are other steps of the same model.

    THREADS=2 train_packed.py MODEL TOKENS bf16|f32 [profile]

SDPA knows no softcap, and flex attention has no backward on the CPU, hence products per document.
The first step warms up and compiles; then as many as fit in SECONDS are timed, but at least STEPS:
small ones take a few to reach their rate. `profile` prints the share of matrix products of the second."""
import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import common

PACK, CHUNK, STEPS, SECONDS = 2048, 256, 2, 10


@torch.compile(dynamic=True)
def norm(x, w, eps: float):
    f = x.float()
    return (f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + eps) * (1 + w.float())).to(x.dtype)


@torch.compile(dynamic=True)
def add_norm(x, p, w, eps: float):
    f = p.float()
    f = f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + eps) * (1 + w.float())
    return x + f.to(x.dtype)


@torch.compile(dynamic=True)
def geglu(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


@torch.compile(dynamic=True)
def rope(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


@torch.compile(dynamic=True)
def weights_of(scores, share: int, scale: float, cap: float):
    """softmax of the capped, causal scores (K, T * share, T)."""
    s = cap * torch.tanh(scores.float() * (scale / cap))
    row = torch.arange(s.shape[1]) // share
    s = torch.where(row[:, None] >= torch.arange(s.shape[2])[None, :], s, -math.inf)
    return torch.softmax(s, -1).to(scores.dtype)


def attention(q, k, v, lengths, c):
    """q (N,H,E), k, v (N,K,E). The query heads that share a key are rows of one product."""
    K, E = k.shape[1:]
    share, out = q.shape[1] // K, []
    for qd, kd, vd in zip(*(t.split(lengths) for t in (q, k, v))):
        T = qd.shape[0]
        qd = qd.view(T, K, share, E).transpose(0, 1).reshape(K, T * share, E)
        p = weights_of(qd @ kd.permute(1, 2, 0), share, c["query_pre_attn_scalar"] ** -0.5,
                       c["attn_logit_softcapping"])
        o = (p @ vd.transpose(0, 1)).view(K, T, share * E)
        out.append(o.transpose(0, 1).reshape(T, -1))
    return torch.cat(out)


@torch.compile(dynamic=True)
def loss_and_gradient(logits, target, cap: float):
    """nll of each row, and its gradient to the row's logits."""
    z = cap * torch.tanh(logits.float() / cap)
    logp = torch.log_softmax(z, -1)
    nll = -logp.gather(1, target[:, None])[:, 0]
    hit = torch.arange(z.shape[1])[None, :] == target[:, None]
    d = (logp.exp() - hit.float()) * (1 - (z / cap).square())
    return nll, d.to(logits.dtype)


class Head(torch.autograd.Function):
    """nll of each label row; the gradient, but for the row's share of the loss, is ready when it is."""

    @staticmethod
    def forward(ctx, h, embed, target, cap):
        grad, nll = torch.empty_like(h), torch.empty(h.shape[0])
        for at in range(0, h.shape[0], CHUNK):
            rows = slice(at, at + CHUNK)
            nll[rows], d = loss_and_gradient(h[rows] @ embed.t(), target[rows], cap)
            torch.mm(d, embed, out=grad[rows])
        ctx.save_for_backward(grad)
        return nll

    @staticmethod
    def backward(ctx, up):
        grad, = ctx.saved_tensors
        return grad * up[:, None].to(grad.dtype), None, None, None


class Model:
    """Weights that read the same input are one matrix, and so are their adapters' A. What they are
    trained by, subclasses may say otherwise: adapters here."""

    def __init__(self, folder, dtype):
        with open(folder + "/config.json", encoding="utf-8") as f:
            self.c = json.load(f)
        self.dtype = dtype
        w = {k.removeprefix("model."): v.to(dtype)
             for k, v in load_file(folder + "/model.safetensors").items()}
        self.lora = {}
        for l in range(self.c["num_hidden_layers"]):
            for name, parts in (("self_attn", "qkv"), ("mlp", ("gate", "up"))):
                names = [f"layers.{l}.{name}.{p}_proj.weight" for p in parts]
                self.widths = [w[n].shape[0] for n in names] if name == "self_attn" else self.widths
                w[f"layers.{l}.{name}.in"] = torch.cat([w.pop(n) for n in names])
            self.lora[l, "qkv"] = self.adapters(self.widths, self.c["hidden_size"])
            self.lora[l, "o"] = self.adapters([self.c["hidden_size"]], self.widths[0])
        self.w = w

    def adapters(self, widths, width):
        a = torch.empty(len(widths) * common.RANK, width)
        torch.nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        return [a.requires_grad_()] + [torch.zeros(n, common.RANK, requires_grad=True)
                                       for n in widths]

    def parameters(self):
        return [t for ab in self.lora.values() for t in ab]

    def adapted(self, x, weight, lora):
        """The outputs of weight's parts, each with its own B."""
        a, *b = (t.to(self.dtype) for t in lora)
        y = F.linear(x, weight).split([len(t) for t in b], -1)
        xa = F.linear(x, a).split(common.RANK, -1)
        return [torch.addmm(u, v, t.t(), alpha=common.ALPHA / common.RANK)
                for u, v, t in zip(y, xa, b)]

    def look_up(self, ids):
        return F.embedding(ids, self.w["embed_tokens.weight"])

    def head(self, h, target):
        return Head.apply(h, self.w["embed_tokens.weight"], target,
                          self.c["final_logit_softcapping"])

    def nll(self, docs):
        """Of each target of one pack, in the order of the documents, for backward."""
        c, lengths = self.c, [len(ids) for ids, _ in docs]
        ids = torch.tensor([t for d, _ in docs for t in d])
        rows, targets, at = [], [], 0
        for d, l in docs:
            rows += [at + i - 1 for i in range(len(d)) if l[i] != common.IGNORED]
            targets += [t for t in l if t != common.IGNORED]
            at += len(d)
        pos = torch.cat([torch.arange(n) for n in lengths])
        half = torch.arange(0, c["head_dim"], 2).float() / c["head_dim"]
        angle = pos[:, None].float() * (1.0 / c["rope_theta"] ** half)[None, :]
        cos, sin = (t.to(self.dtype)[:, None, :] for t in (angle.cos(), angle.sin()))
        h = self.layers(ids, lengths, cos, sin, torch.tensor(rows))
        return self.head(h, torch.tensor(targets))

    def layers(self, ids, lengths, cos, sin, rows):
        """Final hidden states of the given rows."""
        c, w, eps, N = self.c, self.w, self.c["rms_norm_eps"], len(ids)
        x = self.look_up(ids) * torch.tensor(c["hidden_size"] ** 0.5, dtype=self.dtype)
        for l in range(c["num_hidden_layers"]):
            scale = [w[f"layers.{l}.{n}_layernorm.weight"] for n in
                     ("input", "post_attention", "pre_feedforward", "post_feedforward")]
            h = norm(x, scale[0], eps)
            q, k, v = (t.view(N, -1, c["head_dim"]) for t in
                       self.adapted(h, w[f"layers.{l}.self_attn.in"], self.lora[l, "qkv"]))
            o = attention(rope(q, cos, sin), rope(k, cos, sin), v, lengths, c)
            if l == c["num_hidden_layers"] - 1:
                x, o = x[rows], o[rows]
            p, = self.adapted(o, w[f"layers.{l}.self_attn.o_proj.weight"], self.lora[l, "o"])
            x = add_norm(x, p, scale[1], eps)
            g = geglu(F.linear(norm(x, scale[2], eps), w[f"layers.{l}.mlp.in"]))
            x = add_norm(x, F.linear(g, w[f"layers.{l}.mlp.down_proj.weight"]), scale[3], eps)
        return norm(x, w["norm.weight"], eps)


def packs(examples, rows):
    """First fit, longest first, as sails packs a batch. An example: documents that stay together."""
    def length(example):
        return sum(len(ids) for ids, _ in example)
    found = []
    for example in sorted(examples, key=length, reverse=True):
        for pack in found:
            if sum(map(length, pack)) + length(example) <= rows:
                pack.append(example)
                break
        else:
            found.append([example])
    return found


def labels_of(doc):
    return sum(t != common.IGNORED for t in doc[1])


def step(model, adamw, docs):
    labels, total = sum(map(labels_of, docs)), 0.0
    for pack in packs([[doc] for doc in docs], PACK):
        loss = model.nll([doc for doc, in pack]).sum() / labels
        loss.backward()
        total += loss.item()
    update(model, adamw)
    return total


def update(model, adamw):
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adamw.step()
    adamw.zero_grad()


def adamw_of(model):
    return torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0)


def measure(one_step, tokens, weights, profile):
    """one_step() as often as it takes, and its result. `profile`: a profile of one in place of it."""
    one_step()
    if profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            one_step()
        print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=24))
        return
    start, steps = time.perf_counter(), 0
    while steps < STEPS or time.perf_counter() - start < SECONDS:
        loss = one_step()
        steps += 1
    common.report(tokens, time.perf_counter() - start, weights, steps, loss=loss)


def main():
    folder, tokens, dtype = sys.argv[1:4]
    common.use_threads()
    docs = common.documents(tokens)
    model = Model(folder, common.dtype_named(dtype))
    adamw = adamw_of(model)
    measure(lambda: step(model, adamw, docs), common.tokens_of(docs),
            common.weight_bytes(model.w.values()), len(sys.argv) > 4)


if __name__ == "__main__":
    main()
