"""RAT+ as an expert would write it in PyTorch for speed on a GPU: the other side of compare_gpu.py.

As the authors' training does: float32 master weights under autocast to bfloat16, torch's associative scan,
FlexAttention or the dilated keys gathered by hand, everything compiled, AdamW fused. The recurrence and the sparse
attention each come in several forms, since which one is fastest depends on the machine. On a CPU the same code runs,
to be checked there.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

# --- recurrence: h_t = g_t h_{t-1} + (1 - g_t) x_t for x = k and x = v, all [B, T, d] ---------------------------


def combine(earlier, later):
    """Two stretches of h -> g h + x, as one; k and v share g."""
    return earlier[0] * later[0], later[0] * earlier[1] + later[1], later[0] * earlier[2] + later[2]


def scan_whole(g, k, v, dim=1, reverse=False):
    """h_t = g_t h_{t-1} + x_t (reverse: h_{t+1}) along dim, for x = k and x = v; also the running product of g."""
    # "pointwise" is one kernel, compiled for CUDA.
    mode = "pointwise" if g.is_cuda or torch.compiler.is_compiling() else "generic"
    return associative_scan(combine, (g, k, v), dim=dim, reverse=reverse, combine_mode=mode)


def scan_blocked(g, k, v, reverse=False, block=64):
    """All blocks of time side by side, then the carry from block to block: more programs than sequences x channels."""
    batch, tokens, width = g.shape
    if tokens % block:
        raise ValueError(f"{tokens} tokens are no multiple of {block}")
    parts = [part.reshape(batch, -1, block, width) for part in (g, k, v)]
    parts = scan_whole(*parts, dim=2, reverse=reverse)
    last = 0 if reverse else block - 1
    _, *carry = scan_whole(*(part[:, :, last] for part in parts), dim=1, reverse=reverse)
    decay, *local = parts
    results = [decay]
    for h, total in zip(local, carry):
        # What comes into a block is the state at the end of the one before it, in the direction of the scan.
        incoming = F.pad(total[:, 1:], (0, 0, 0, 1)) if reverse else F.pad(total[:, :-1], (0, 0, 1, 0))
        results.append(h + decay * incoming[:, :, None])
    return [part.reshape(batch, tokens, width) for part in results]


def recurrence_forward(scan, f, k, v):
    """k~, v~ in the type of k, computed in float32."""
    g = torch.sigmoid(f.float())
    _, hk, hv = scan(g, (1 - g) * k.float(), (1 - g) * v.float())
    # Copies, even of the same type: torch.compile (2.11) loses the gradient of an output that is a view.
    how = dict(copy=True, memory_format=torch.contiguous_format)
    return hk.to(k.dtype, **how), hv.to(v.dtype, **how)


def recurrence_backward(scan, f, k, v, hk, hv, ek, ev):
    """s_t = e_t + g_{t+1} s_{t+1}; dx_t = (1 - g_t) s_t; dg_t = s_t (h_{t-1} - x_t), k and v added up."""
    g = torch.sigmoid(f.float())
    after = F.pad(g[:, 1:], (0, 0, 0, 1))
    _, sk, sv = scan(after, ek.float(), ev.float(), reverse=True)
    before_k, before_v = (F.pad(h[:, :-1].float(), (0, 0, 1, 0)) for h in (hk, hv))
    dg = sk * (before_k - k.float()) + sv * (before_v - v.float())
    df, dk, dv = dg * g * (1 - g), (1 - g) * sk, (1 - g) * sv
    return df.to(f.dtype).contiguous(), dk.to(k.dtype).contiguous(), dv.to(v.dtype).contiguous()


class RecurrenceWhole(torch.autograd.Function):
    """Traced into the graph around it. (Autograd of associative_scan itself takes memory of T x T.)"""

    @staticmethod
    def forward(ctx, f, k, v):
        hk, hv = recurrence_forward(scan_whole, f, k, v)
        ctx.save_for_backward(f, k, v, hk, hv)
        return hk, hv

    @staticmethod
    def backward(ctx, ek, ev):
        return recurrence_backward(scan_whole, *ctx.saved_tensors, ek, ev)


class RecurrenceBlocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f, k, v):
        hk, hv = recurrence_forward(scan_blocked, f, k, v)
        ctx.save_for_backward(f, k, v, hk, hv)
        return hk, hv

    @staticmethod
    def backward(ctx, ek, ev):
        return recurrence_backward(scan_blocked, *ctx.saved_tensors, ek, ev)


# Functions, since torch.compile (2.11) does not follow a stored `RecurrenceWhole.apply`.
def recurrence_whole(f, k, v):
    return RecurrenceWhole.apply(f, k, v)


def recurrence_blocked(f, k, v):
    return RecurrenceBlocked.apply(f, k, v)


def make_opaque_recurrence():
    """The same as a custom operator, compiled by itself: for a compiler that cannot trace the scan in a function."""
    forward = torch.compile(recurrence_forward, fullgraph=True, dynamic=False)
    backward = torch.compile(recurrence_backward, fullgraph=True, dynamic=False)

    @torch.library.custom_op("ratplus_gpu_rival::recurrence", mutates_args=())
    def operator(f: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return forward(scan_whole, f, k, v)

    @operator.register_fake
    def _(f, k, v):
        return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (k, v))

    @torch.library.custom_op("ratplus_gpu_rival::recurrence_backward", mutates_args=())
    def backward_operator(
        f: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hk: torch.Tensor, hv: torch.Tensor,
        ek: torch.Tensor, ev: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return backward(scan_whole, f, k, v, hk, hv, ek, ev)

    @backward_operator.register_fake
    def _(f, k, v, hk, hv, ek, ev):
        return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (f, k, v))

    operator.register_autograd(lambda ctx, ek, ev: backward_operator(*ctx.saved_tensors, ek, ev),
                               setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs, *output))
    return operator


def recurrence_loop(f, k, v):
    """One step a token: slow, and plain enough to check the others against."""
    g = torch.sigmoid(f.float())
    x = torch.stack([k.float(), v.float()])
    state, states = torch.zeros_like(x[:, :, 0]), []
    for t in range(f.shape[1]):
        state = torch.lerp(x[:, :, t], state, g[:, t].expand_as(state))
        states.append(state)
    h = torch.stack(states, dim=2).to(k.dtype)
    return h[0], h[1]


RECURRENCES = {
    "associative scan": recurrence_whole,
    "associative scan, blocked": recurrence_blocked,
    "associative scan, own operator": make_opaque_recurrence(),
    "loop": recurrence_loop,
}

# --- attention, q, k, v [B, H, T, P]; a form is a function of them ---------------------------------------------


@dataclass(frozen=True)
class Pattern:
    """(D, W, I) of the paper; D = 1 is dense."""

    dilation: int
    window: int
    sinks: int

    def allows(self, t, s):
        near = (t - s <= self.window) | (s < self.sinks)
        return (s <= t) & (((s + 1) % self.dilation == 0) | near)

    def mask(self, tokens, device):
        position = torch.arange(tokens, device=device)
        return self.allows(position[:, None], position[None, :])

    def pairs(self, tokens):
        """(query, key) pairs of a head."""
        return self.mask(tokens, "cpu").sum().item()

    def __str__(self):
        return "dense" if self.dilation == 1 else f"{self.dilation},{self.window},{self.sinks}"


def attention_dense(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def make_masked(pattern, tokens, device):
    """The pattern as a mask of T x T: for checks."""
    mask = pattern.mask(tokens, device)
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def make_flex(pattern, tokens, device):
    """FlexAttention with the pattern as its block mask. A dilation below the block's 128 keys leaves no block out."""
    mask = create_block_mask(lambda b, h, t, s: pattern.allows(t, s), None, None, tokens, tokens, device=device)
    return lambda q, k, v: flex_attention(q, k, v, block_mask=mask)


class GatheredKeys:
    """The sinks and the dilated keys in a dense tensor of their own."""

    def __init__(self, pattern, tokens):
        if pattern.sinks >= pattern.dilation:
            raise ValueError("a sink that is also dilated would count twice")
        self.pattern, self.tokens = pattern, tokens
        self.count = pattern.sinks + tokens // pattern.dilation

    def gather(self, x):
        dilated = x[:, :, self.pattern.dilation - 1 :: self.pattern.dilation]
        return torch.cat([x[:, :, : self.pattern.sinks], dilated], dim=2) if self.pattern.sinks else dilated

    def position(self, column):
        sinks, dilation = self.pattern.sinks, self.pattern.dilation
        return torch.where(column < sinks, column, (column - sinks + 1) * dilation - 1)

    def elsewhere(self, s):
        """Keys that the gathered ones do not have."""
        return ((s + 1) % self.pattern.dilation != 0) & (s >= self.pattern.sinks)


def make_flex_gathered(pattern, tokens, device):
    """FlexAttention over the gathered keys, filled up to whole blocks, and after them all keys for the window."""
    keys = GatheredKeys(pattern, tokens)
    filled = -(-keys.count // 128) * 128

    def allows(b, h, t, column):
        gathered = (column < keys.count) & (keys.position(column) <= t)
        s = column - filled
        near = (s >= 0) & (s <= t) & (t - s <= pattern.window) & keys.elsewhere(s)
        return torch.where(column < filled, gathered, near)

    mask = create_block_mask(allows, None, None, tokens, filled + tokens, device=device)

    def both(x):
        filling = x.new_zeros(*x.shape[:2], filled - keys.count, x.shape[3])
        return torch.cat([keys.gather(x), filling, x], dim=2)

    return lambda q, k, v: flex_attention(q, both(k), both(v), block_mask=mask)


def make_gathered(pattern, tokens, device):
    """Two matrix products with the gathered keys, and the query's own key beside them; no window."""
    if pattern.window:
        raise ValueError("only patterns without a window")
    keys = GatheredKeys(pattern, tokens)
    t, column = torch.arange(tokens, device=device), torch.arange(keys.count, device=device)
    allowed = torch.cat([keys.position(column)[None, :] <= t[:, None], keys.elsewhere(t)[:, None]], dim=1)
    bias = torch.zeros(allowed.shape, device=device).masked_fill(~allowed, -math.inf)

    def attention(q, k, v):
        own = (q.float() * k.float()).sum(-1, keepdim=True)
        scores = torch.cat([(q @ keys.gather(k).transpose(2, 3)).float(), own], dim=-1)
        weights = (scores / math.sqrt(q.shape[-1]) + bias).softmax(-1).to(v.dtype)
        return weights[..., :-1] @ keys.gather(v) + weights[..., -1:] * v

    return attention


SPARSE_ATTENTIONS = {
    "FlexAttention": make_flex,
    "FlexAttention, gathered keys": make_flex_gathered,
    "products with gathered keys": make_gathered,
}

# --- parts of a layer ------------------------------------------------------------------------------------------


class Rope:
    """RoPE's cos and sin [T, 1, P / 2], for x [B, T, H, P]."""

    def __init__(self, tokens, head_dim, device):
        half = head_dim // 2
        angle = torch.arange(tokens)[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        self.cos, self.sin = (part.float()[:, None].to(device) for part in (angle.cos(), angle.sin()))

    def __call__(self, x):
        lower, upper = x.float().chunk(2, dim=-1)
        turned = [lower * self.cos - upper * self.sin, upper * self.cos + lower * self.sin]
        return torch.cat(turned, dim=-1).to(x.dtype)


def gate_recurrence_rope(recurrence, rope, heads, q, k, v, f):
    """q', k', v~ [B, T, H, P] of q, k, v and gate logits f [B, T, d]."""
    k, v = recurrence(f, k, v)
    q, k, v = (x.unflatten(2, (heads, -1)) for x in (q, k, v))
    return rope(q), rope(k), v


def output_gate(a, o):
    return a * torch.sigmoid(o.float()).to(a.dtype)


# --- model -----------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width, head_dim, recurrence):
        super().__init__()
        self.heads, self.recurrence = width // head_dim, recurrence
        self.input_norm = nn.RMSNorm(width, eps=1e-6)
        self.in_proj = nn.Linear(width, 5 * width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.ln = nn.RMSNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width, bias=False)
        self.fc2 = nn.Linear(4 * width, width, bias=False)

    def forward(self, x, attention, rope):
        o, q, k, v, f = self.in_proj(self.input_norm(x)).chunk(5, dim=-1)
        q, k, v = gate_recurrence_rope(self.recurrence, rope, self.heads, q, k, v, f)
        a = attention(*(part.transpose(1, 2) for part in (q, k, v))).transpose(1, 2).flatten(2)
        x = x + self.out_proj(output_gate(a, o))
        return x + self.fc2(F.gelu(self.fc1(self.ln(x))))


class RatPlus(nn.Module):
    def __init__(self, sizes, recurrence):
        super().__init__()
        self.embedding = nn.Embedding(sizes.vocab, sizes.width)
        self.blocks = nn.ModuleList(Block(sizes.width, sizes.head_dim, recurrence) for _ in range(sizes.layers))
        self.ln = nn.RMSNorm(sizes.width, eps=1e-6)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, inputs, labels, counted, attention, rope):
        """The summed cross-entropy over `counted`, the number of counted positions of the whole batch."""
        x = self.embedding(inputs)
        for block in self.blocks:
            x = block(x, attention, rope)
        return self.head(x, labels, counted)

    def head(self, x, labels, counted):
        logits = F.linear(self.ln(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="sum") / counted


class JointTrainer:
    """The joint step: an update with the dilated pattern, then one with dense attention, on the same batch.

    sizes has layers, width, head_dim, vocab, tokens and micro_batch. compiled: "model", the whole as the authors do;
    "blocks", one graph for all blocks, much sooner ready; or "" for eager.
    """

    HALVES = (Pattern(64, 0, 0), Pattern(1, 0, 0))

    def __init__(self, sizes, recurrence, sparse_attention, device, compiled="model", mode="default", autocast=True):
        torch.manual_seed(1)
        self.sizes, self.device, self.autocast = sizes, device, autocast
        with torch.device(device):
            self.model = RatPlus(sizes, RECURRENCES[recurrence])
        self.attentions = [SPARSE_ATTENTIONS[sparse_attention](self.HALVES[0], sizes.tokens, device), attention_dense]
        self.rope = Rope(sizes.tokens, sizes.head_dim, device)
        self.losses = [self.make_loss(attention) for attention in self.attentions]
        how = dict(fullgraph=True, dynamic=False, mode=None if mode == "default" else mode)
        if compiled == "model":
            self.losses = [torch.compile(loss, **how) for loss in self.losses]
        elif compiled == "blocks":
            for block in self.model.blocks:
                block.compile(**how)
            self.model.head = torch.compile(self.model.head, **how)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=8e-4, betas=(0.9, 0.95), eps=1e-8,
                                           weight_decay=0.1, fused=True)

    def make_loss(self, attention):
        return lambda inputs, labels, counted: self.model(inputs, labels, counted, attention, self.rope)

    def parameters(self):
        return sum(parameter.numel() for parameter in self.model.parameters())

    def loss(self, inputs, labels, counted, half):
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.autocast):
            return self.losses[half](inputs, labels, counted)

    def half(self, inputs, labels, half):
        """One update; half 0 is the sparse one. Returns the loss before it, which stays on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        counted, total = (labels >= 0).sum(), torch.zeros((), device=self.device)
        for i, l in zip(inputs.split(self.sizes.micro_batch), labels.split(self.sizes.micro_batch)):
            loss = self.loss(i, l, counted, half)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        return total


def inputs_and_labels(tokens, end_of_text):
    """Of tokens [batch, T + 1]; -1 labels what is left out."""
    inputs = tokens[:, :-1].contiguous()
    return inputs, tokens[:, 1:].masked_fill(inputs == end_of_text, -1)
