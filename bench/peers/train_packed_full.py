"""A step of all weights by the packed PyTorch of train_packed.py, with f32 masters: in bf16 the
products read copies, whose gradients are bf16, and one compiled pass over each tensor clips, moves
its master by AdamW and rounds it into the copy. The tied embedding's gradient is made in place, by
the head and by the rows that were looked up, never as a tensor of zeros beside it.

    THREADS=2 train_packed_full.py MODEL TOKENS bf16|f32 [profile]"""
import math
import sys

import torch
import torch.nn.functional as F

import common
import train_packed as packed

CHUNK = 1024  # label rows of the head: adding to the embedding's gradient is dear
LR, BETA1, BETA2, EPS, CLIP = 2e-5, 0.9, 0.999, 1e-8, 1.0


class LookUp(torch.autograd.Function):
    """Rows of the embedding; their gradients are added to embed.grad."""

    @staticmethod
    def forward(ctx, _, embed, ids):  # _: a tensor that asks for gradients, so that backward runs
        ctx.embed, ctx.ids = embed, ids
        return F.embedding(ids, embed)

    @staticmethod
    def backward(ctx, dx):
        ctx.embed.grad.index_add_(0, ctx.ids, dx)
        return None, None, None


class TiedHead(torch.autograd.Function):
    """scale * sum of nll, as packed.Head's, with the embedding's gradient added to embed.grad."""

    @staticmethod
    def forward(ctx, h, embed, target, cap, scale):
        grad, total = torch.empty_like(h), 0.0
        for at in range(0, h.shape[0], CHUNK):
            rows = slice(at, at + CHUNK)
            nll, d = packed.loss_and_gradient(h[rows] @ embed.t(), target[rows], cap)
            d *= scale
            torch.mm(d, embed, out=grad[rows])
            embed.grad.addmm_(d.t(), h[rows])
            total = total + nll.sum()
        ctx.save_for_backward(grad)
        return total * scale

    @staticmethod
    def backward(ctx, up):
        return ctx.saved_tensors[0] * up, None, None, None, None


def move(p, g, m, v, rate, root, scale):
    """One tensor's step; the rates are tensors, so that nothing is compiled again."""
    g = g.float() * scale
    m.lerp_(g, 1 - BETA1)
    v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
    p.sub_(rate * m / (v.sqrt() * root + EPS))


adamw = torch.compile(move, dynamic=True)


@torch.compile(dynamic=True)
def adamw_rounded(copy, p, g, m, v, rate, root, scale):
    move(p, g, m, v, rate, root, scale)
    copy.copy_(p)


class FullModel(packed.Model):
    """nll() is a pack's part of the loss, one number, since the head adds gradients ahead."""

    def __init__(self, folder, dtype):
        super().__init__(folder, dtype)
        self.anchor = torch.zeros(1, requires_grad=True)
        self.state, self.steps = {}, 0
        for name, w in self.w.items():
            w.requires_grad_()
            master = w.detach() if dtype == torch.float32 else w.detach().float()
            self.state[name] = master, torch.zeros_like(master), torch.zeros_like(master)
        embed = self.w["embed_tokens.weight"]
        embed.requires_grad_(False)  # LookUp and TiedHead see to it
        embed.grad = torch.zeros_like(embed)

    def adapters(self, widths, width):
        return widths

    def adapted(self, x, weight, lora):
        return F.linear(x, weight).split(lora, -1)

    def look_up(self, ids):
        return LookUp.apply(self.anchor, self.w["embed_tokens.weight"], ids)

    def head(self, h, target):
        return TiedHead.apply(h, self.w["embed_tokens.weight"], target,
                              self.c["final_logit_softcapping"], 1 / self.labels)

    @torch.no_grad()
    def update(self):
        self.steps += 1
        norm = torch.stack(torch._foreach_norm([w.grad for w in self.w.values()])).float().norm()
        scale = torch.clamp(CLIP / (norm + 1e-6), max=1.0)
        rate = torch.tensor(LR / (1 - BETA1 ** self.steps))
        root = torch.tensor(1 / math.sqrt(1 - BETA2 ** self.steps))
        for name, w in self.w.items():
            p, m, v = (t.view(-1) for t in self.state[name])
            g = w.grad.view(-1)
            if p.data_ptr() == w.data_ptr():
                adamw(p, g, m, v, rate, root, scale)
            else:
                adamw_rounded(w.detach().view(-1), p, g, m, v, rate, root, scale)
            if w.requires_grad:
                w.grad = None
            else:
                w.grad.zero_()


def step(model, docs):
    model.labels, total = sum(map(packed.labels_of, docs)), 0.0
    for pack in packed.packs([[doc] for doc in docs], packed.PACK):
        loss = model.nll([doc for doc, in pack])
        loss.backward()
        total += loss.item()
    model.update()
    return total


def main():
    folder, tokens, dtype = sys.argv[1:4]
    common.use_threads()
    docs = common.documents(tokens)
    model = FullModel(folder, common.dtype_named(dtype))
    packed.measure(lambda: step(model, docs), common.tokens_of(docs),
                   common.weight_bytes(model.w.values()), len(sys.argv) > 4)


if __name__ == "__main__":
    main()
