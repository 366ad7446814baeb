"""Attention, RAT and RNN as an expert would write them in PyTorch for speed on a GPU: the other side of compare_family.py.

Models of Wei, Yadav, Pascanu and Gulcehre, "RAT", arXiv 2507.04416. As torch_gpu_rival.py, of which the parts that models
share are taken: float32 master weights under autocast to bfloat16, blocks compiled, AdamW fused; the recurrence and RAT's
attention each come in several forms. On a CPU the same code runs, to be checked there.

Symbols: B sequences of T tokens, d channels, H heads of P channels, L tokens a chunk, G groups of queries and keys; head h
reads group h mod G.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

import torch_gpu_rival as rival

# --- recurrence: h_t = g_t h_{t-1} + (1 - g_t) x_t, restarting every `chunk` tokens; all [B, T, d] --------------
# A scan takes g and some xs [N, chunk, d] and returns the states of h_t = g_t h_{t-1} + x_t; reverse: those of
# s_t = x_t + g_{t+1} s_{t+1}.


def combine(earlier, later):
    return earlier[0] * later[0], *(later[0] * a + b for a, b in zip(earlier[1:], later[1:]))


def after(g):
    """g_{t+1}, and 0 after the last token."""
    return F.pad(g[:, 1:], (0, 0, 0, 1))


def scan_whole(g, xs, reverse=False):
    mode = "pointwise" if g.is_cuda or torch.compiler.is_compiling() else "generic"  # one kernel, compiled for CUDA
    leaves = (after(g) if reverse else g, *xs)
    return associative_scan(combine, leaves, dim=1, reverse=reverse, combine_mode=mode)[1:]


def scan_blocked(g, xs, reverse=False, block=64):
    """All blocks of time side by side, then the carry from block to block."""
    rows, tokens, width = g.shape
    mode = "pointwise" if g.is_cuda or torch.compiler.is_compiling() else "generic"
    parts = tuple(part.reshape(rows, -1, block, width) for part in (after(g) if reverse else g, *xs))
    decay, *local = associative_scan(combine, parts, dim=2, reverse=reverse, combine_mode=mode)
    last = 0 if reverse else block - 1
    ends = tuple(part[:, :, last].contiguous() for part in (decay, *local))
    carry = associative_scan(combine, ends, dim=1, reverse=reverse, combine_mode=mode)[1:]
    states = []
    for h, total in zip(local, carry):
        incoming = F.pad(total[:, 1:], (0, 0, 0, 1)) if reverse else F.pad(total[:, :-1], (0, 0, 1, 0))
        states.append((h + decay * incoming[:, :, None]).reshape(rows, tokens, width))
    return tuple(states)


def scan_triangular(g, xs, reverse=False):
    """h_t = sum over s <= t of exp(c_t - c_s) x_s, c the sums of log g: a sum over a short chunk, fused by the compiler."""
    sums = g.clamp_min(1e-30).log().cumsum(1)
    t = torch.arange(g.shape[1], device=g.device)
    earlier = (t[:, None] >= t[None, :])[None, :, :, None]
    product = (sums[:, :, None] - sums[:, None]).masked_fill(~earlier, -math.inf).exp()  # [N, t, s, d]
    if reverse:
        return tuple((product * x[:, :, None]).sum(1) for x in xs)
    return tuple((product * x[:, None]).sum(2) for x in xs)


def chunked(x, chunk):
    return x.reshape(-1, chunk, x.shape[-1])


def recurrence_forward(scan, chunk, f, bias, xs):
    """States in the type of f, computed in float32. An x of fewer channels than f repeats: its groups are shared."""
    g = torch.sigmoid(f.float() + bias)
    new = tuple(chunked((1 - g) * x.repeat(1, 1, f.shape[-1] // x.shape[-1]).float(), chunk) for x in xs)
    # Copies, even of the same type: torch.compile (2.11) loses the gradient of an output that is a view.
    how = dict(copy=True, memory_format=torch.contiguous_format)
    return tuple(h.reshape(f.shape).to(f.dtype, **how) for h in scan(chunked(g, chunk), new))


def recurrence_backward(scan, chunk, f, bias, xs, hs, es):
    """s_t = e_t + g_{t+1} s_{t+1}; dx_t = (1 - g_t) s_t; dg_t = s_t (h_{t-1} - x_t), added up over the xs."""
    g = torch.sigmoid(f.float() + bias)
    dg, dxs = torch.zeros_like(g), []
    states = scan(chunked(g, chunk), tuple(chunked(e.float(), chunk) for e in es), reverse=True)
    for x, h, s in zip(xs, hs, states):
        copies, s = f.shape[-1] // x.shape[-1], s.reshape(f.shape)
        before = F.pad(chunked(h, chunk)[:, :-1], (0, 0, 1, 0)).reshape(f.shape).float()
        dg = dg + s * (before - x.repeat(1, 1, copies).float())
        dxs.append(((1 - g) * s).unflatten(-1, (copies, -1)).sum(2).to(x.dtype).contiguous())
    df = dg * g * (1 - g)
    return df.to(f.dtype).contiguous(), df.sum((0, 1)), *dxs


class Whole(torch.autograd.Function):
    """Traced into the graph around it."""

    @staticmethod
    def forward(ctx, chunk, f, bias, *xs):
        hs = recurrence_forward(scan_whole, chunk, f, bias, xs)
        ctx.chunk = chunk
        ctx.save_for_backward(f, bias, *xs, *hs)
        return hs

    @staticmethod
    def backward(ctx, *es):
        f, bias, *rest = ctx.saved_tensors
        return None, *recurrence_backward(scan_whole, ctx.chunk, f, bias, rest[: len(es)], rest[len(es) :], es)


class Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, chunk, f, bias, *xs):
        hs = recurrence_forward(scan_blocked, chunk, f, bias, xs)
        ctx.chunk = chunk
        ctx.save_for_backward(f, bias, *xs, *hs)
        return hs

    @staticmethod
    def backward(ctx, *es):
        f, bias, *rest = ctx.saved_tensors
        return None, *recurrence_backward(scan_blocked, ctx.chunk, f, bias, rest[: len(es)], rest[len(es) :], es)


class Triangular(torch.autograd.Function):
    @staticmethod
    def forward(ctx, chunk, f, bias, *xs):
        hs = recurrence_forward(scan_triangular, chunk, f, bias, xs)
        ctx.chunk = chunk
        ctx.save_for_backward(f, bias, *xs, *hs)
        return hs

    @staticmethod
    def backward(ctx, *es):
        f, bias, *rest = ctx.saved_tensors
        return None, *recurrence_backward(scan_triangular, ctx.chunk, f, bias, rest[: len(es)], rest[len(es) :], es)


# Functions, since torch.compile (2.11) does not follow a stored `Whole.apply`.
def recurrence_whole(chunk, f, bias, *xs):
    return Whole.apply(chunk, f, bias, *xs)


def recurrence_blocked(chunk, f, bias, *xs):
    return Blocked.apply(chunk, f, bias, *xs)


def recurrence_triangular(chunk, f, bias, *xs):
    return Triangular.apply(chunk, f, bias, *xs)


def make_operator(name, scan):
    """The same as a custom operator, compiled by itself: for a compiler that cannot trace the scan in a function."""
    forward = torch.compile(recurrence_forward, fullgraph=True, dynamic=False)
    backward = torch.compile(recurrence_backward, fullgraph=True, dynamic=False)

    @torch.library.custom_op(f"ratplus_family_rival::{name}", mutates_args=())
    def operator(chunk: int, f: torch.Tensor, bias: torch.Tensor, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        return list(forward(scan, chunk, f, bias, tuple(xs)))

    @operator.register_fake
    def _(chunk, f, bias, xs):
        return [torch.empty_like(f, memory_format=torch.contiguous_format) for _ in xs]

    @torch.library.custom_op(f"ratplus_family_rival::{name}_backward", mutates_args=())
    def backward_operator(
        chunk: int, f: torch.Tensor, bias: torch.Tensor, xs: list[torch.Tensor], hs: list[torch.Tensor],
        es: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        return list(backward(scan, chunk, f, bias, tuple(xs), tuple(hs), tuple(es)))

    @backward_operator.register_fake
    def _(chunk, f, bias, xs, hs, es):
        return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (f, bias, *xs)]

    def setup_context(ctx, inputs, output):
        chunk, f, bias, xs = inputs
        ctx.chunk = chunk
        ctx.save_for_backward(f, bias, *xs, *output)

    def gradient(ctx, es):
        f, bias, *rest = ctx.saved_tensors
        df, dbias, *dxs = backward_operator(ctx.chunk, f, bias, rest[: len(es)], rest[len(es) :], list(es))
        return None, df, dbias, dxs

    operator.register_autograd(gradient, setup_context=setup_context)
    return lambda chunk, f, bias, *xs: tuple(operator(chunk, f, bias, list(xs)))


def recurrence_loop(chunk, f, bias, *xs):
    """One step a token of the chunks, all chunks side by side: slow, and plain enough to check the others against."""
    g = chunked(torch.sigmoid(f.float() + bias), chunk)
    results = []
    for x in xs:
        x = chunked(x.repeat(1, 1, f.shape[-1] // x.shape[-1]).float(), chunk)
        state, states = torch.zeros_like(x[:, 0]), []
        for t in range(chunk):
            state = torch.lerp(x[:, t], state, g[:, t])
            states.append(state)
        results.append(torch.stack(states, dim=1).reshape(f.shape).to(f.dtype))
    return tuple(results)


# Forms by name, of RAT's chunks and of whole sequences. An own operator is compiled, which needs a GPU.
SHORT = {
    "associative scan": recurrence_whole,
    "triangular product": recurrence_triangular,
    "associative scan, own operator": make_operator("short", scan_whole),
}
LONG = {
    "associative scan": recurrence_whole,
    "associative scan, blocked": recurrence_blocked,
    "associative scan, own operator": make_operator("long", scan_whole),
    "associative scan, blocked, own operator": make_operator("long_blocked", scan_blocked),
}

# --- RAT's attention, q, k, v [B, H, T, P]: to the last keys of earlier chunks, and to the token's own -----------


def make_merged(pattern, tokens, device):
    """FlexAttention over the earlier chunks' keys; the own key is merged in by the log-sum-exp, as the authors do."""
    chunk = pattern.dilation

    def earlier(b, h, t, j):
        return j < t // chunk

    mask = create_block_mask(earlier, None, None, tokens, tokens // chunk, device=device)

    def attention(q, k, v):
        ends = slice(chunk - 1, None, chunk)
        inter, aux = flex_attention(q, k[:, :, ends].contiguous(), v[:, :, ends].contiguous(), block_mask=mask,
                                    return_aux=AuxRequest(lse=True))
        own = (q.float() * k.float()).sum(-1) / math.sqrt(q.shape[-1])
        weight = torch.sigmoid(aux.lse.float() - own)[..., None].to(v.dtype)
        return weight * inter + (1 - weight) * v

    return attention


ATTENTIONS = {
    "products with gathered keys": rival.make_gathered,
    "FlexAttention over chunks, own key merged": make_merged,
    "FlexAttention, gathered keys": rival.make_flex_gathered,
}


def chunk_rope(tokens, chunk, head_dim, device):
    """RoPE whose position is the token's chunk."""
    rope = rival.Rope(-(-tokens // chunk), head_dim, device)
    rope.cos, rope.sin = (part.repeat_interleave(chunk, 0)[:tokens].contiguous() for part in (rope.cos, rope.sin))
    return rope


# --- model -----------------------------------------------------------------------------------------------------


@dataclass
class Sizes:
    kind: str  # rat, rnn or attention
    layers: int
    width: int
    head_dim: int
    vocab: int
    tokens: int
    chunk: int = 0  # of rat
    groups: int = 0  # of rat

    def row_parts(self):
        """Widths of the parts of in_proj's rows: z, v, f, q, k; z, v, f; v, q, k."""
        d, shared = self.width, self.groups * self.head_dim
        return [d, d, d, shared, shared] if self.kind == "rat" else [d, d, d]


class Parts:
    """What all blocks share: the recurrence, the attention and RoPE's tables."""

    def __init__(self, sizes, recurrence, attention, device):
        self.recurrence, self.attention = recurrence, attention
        if sizes.kind != "rnn":
            self.rope = chunk_rope(sizes.tokens, sizes.chunk if sizes.kind == "rat" else 1, sizes.head_dim, device)


def rat_attention(sizes, parts, q, k, v):
    """a [B, T, d] of q [B, T, G P] and the states k, v [B, T, d]."""
    q, k, v = (x.unflatten(2, (-1, sizes.head_dim)) for x in (q, k, v))
    q, k = parts.rope(q).repeat(1, 1, k.shape[2] // sizes.groups, 1), parts.rope(k)
    return parts.attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        d = sizes.width
        self.sizes = sizes
        self.input_norm = nn.RMSNorm(d, eps=1e-6)
        self.in_proj = nn.Linear(d, sum(sizes.row_parts()), bias=False)
        self.out_proj = nn.Linear(d, d, bias=False)
        if sizes.kind != "attention":
            memory = sizes.chunk if sizes.kind == "rat" else sizes.tokens
            self.gate_bias = nn.Parameter(torch.empty(d).uniform_(1, memory - 1).log_())
        self.ln = nn.RMSNorm(d, eps=1e-6)
        self.fc1 = nn.Linear(d, 4 * d, bias=False)
        self.fc2 = nn.Linear(4 * d, d, bias=False)

    def mix(self, u, parts):
        sizes = self.sizes
        rows = self.in_proj(u).split(sizes.row_parts(), dim=-1)
        if sizes.kind == "attention":
            v, q, k = (part.unflatten(2, (-1, sizes.head_dim)) for part in rows)
            q, k, v = (x.transpose(1, 2) for x in (parts.rope(q), parts.rope(k), v))
            return parts.attention(q, k, v).transpose(1, 2).flatten(2)
        if sizes.kind == "rnn":
            z, v, f = rows
            (h,) = parts.recurrence(sizes.tokens, f, self.gate_bias, v)
            return rival.output_gate(h, z)
        z, v, f, q, k = rows
        k, v = parts.recurrence(sizes.chunk, f, self.gate_bias, k, v)
        return rival.output_gate(rat_attention(sizes, parts, q, k, v), z)

    def forward(self, x, parts):
        x = x + self.out_proj(self.mix(self.input_norm(x), parts))
        return x + self.fc2(F.gelu(self.fc1(self.ln(x))))


class Family(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.embedding = nn.Embedding(sizes.vocab, sizes.width)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.ln = nn.RMSNorm(sizes.width, eps=1e-6)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, inputs, labels, counted, parts):
        """The summed cross-entropy over `counted`, the number of counted positions of the whole batch."""
        x = self.embedding(inputs)
        for block in self.blocks:
            x = block(x, parts)
        return self.head(x, labels, counted)

    def head(self, x, labels, counted):
        logits = F.linear(self.ln(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="sum") / counted


class Trainer:
    """One update a step. compiled: one graph for all blocks and one for the head."""

    def __init__(self, sizes, parts, device, compiled=True, autocast=True):
        torch.manual_seed(1)
        self.device, self.autocast, self.parts = device, autocast, parts
        with torch.device(device):
            self.model = Family(sizes)
        if compiled:
            for block in self.model.blocks:
                block.compile(fullgraph=True, dynamic=False)
            self.model.head = torch.compile(self.model.head, fullgraph=True, dynamic=False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=8e-4, betas=(0.9, 0.95), eps=1e-8,
                                           weight_decay=0.1, fused=True)

    def parameters(self):
        return sum(parameter.numel() for parameter in self.model.parameters())

    def loss(self, inputs, labels, counted):
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.autocast):
            return self.model(inputs, labels, counted, self.parts)

    def step(self, inputs, labels, micro_batch):
        """Returns the loss before the update, which stays on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        counted, total = (labels >= 0).sum(), torch.zeros((), device=self.device)
        for i, l in zip(inputs.split(micro_batch), labels.split(micro_batch)):
            loss = self.loss(i, l, counted)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        return total
