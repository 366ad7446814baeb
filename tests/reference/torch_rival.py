"""RAT+ as an expert would write it in PyTorch for speed on CPUs: the other side of compare_cpu.py.

Only what the joint training step needs: dense causal attention, and dilation with neither window nor sinks. The
recurrence and the dilated attention each come in several forms, since which one is fastest depends on the machine.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

# --- recurrence: h_t = g_t h_{t-1} + (1 - g_t) x_t, g [B, T, 1, d], x [B, T, 2, d] (k and v) --------------------


def scan_loop_forward(g, x):
    """One fused lerp a time step: h_t = x_t + g_t (h_{t-1} - x_t)."""
    h = torch.empty_like(x, memory_format=torch.contiguous_format)
    state = torch.zeros_like(h[:, 0])
    for out, g_t, x_t in zip(h.unbind(1), g.unbind(1), x.unbind(1)):
        state = torch.lerp(x_t, state, g_t, out=out)
    return h


def scan_loop_reversed(g, e):
    """s_t = e_t + g_{t+1} s_{t+1}."""
    s = torch.empty_like(e, memory_format=torch.contiguous_format)
    e_t, g_t, s_t = e.unbind(1), g.unbind(1), s.unbind(1)
    s_t[-1].copy_(e_t[-1])
    for t in range(len(s_t) - 2, -1, -1):
        torch.addcmul(e_t[t], g_t[t + 1], s_t[t + 1], out=s_t[t])
    return s


def scan_blocked(g, x, block=32):
    """h_t = g_t h_{t-1} + x_t: all blocks of time step by step side by side, then the carry from block to block."""
    shape = x.shape
    g = g.reshape(shape[0], -1, block, *g.shape[2:])
    h = x.reshape(shape[0], -1, block, *shape[2:]).clone()
    h_t, g_t = h.unbind(2), g.unbind(2)
    for t in range(1, block):
        h_t[t].addcmul_(g_t[t], h_t[t - 1])
    decay = g.cumprod(2)
    for c in range(1, h.shape[1]):
        h[:, c].addcmul_(decay[:, c], h[:, c - 1, -1:])
    return h.view(shape)


def scan_blocked_forward(g, x):
    return scan_blocked(g, (1 - g) * x)


def scan_blocked_reversed(g, e):
    after = torch.cat([g[:, 1:], torch.zeros_like(g[:, :1])], dim=1)
    return scan_blocked(after.flip(1), e.flip(1)).flip(1)


def make_scan_operator(name, forward, reversed_scan):
    """A custom operator with the gradient of the recurrence: opaque to the compiler, the same code in eager mode."""
    operator = torch.library.custom_op(f"ratplus_rival::{name}", forward, mutates_args=(),
                                       schema="(Tensor g, Tensor x) -> Tensor")
    operator.register_fake(lambda g, x: torch.empty_like(x, memory_format=torch.contiguous_format))
    reversed_operator = torch.library.custom_op(f"ratplus_rival::{name}_reversed", reversed_scan, mutates_args=(),
                                                schema="(Tensor g, Tensor e) -> Tensor")
    reversed_operator.register_fake(lambda g, e: torch.empty_like(e, memory_format=torch.contiguous_format))

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output)

    def backward(ctx, e):
        g, x, h = ctx.saved_tensors
        s = reversed_operator(g, e)
        before = F.pad(h[:, :-1], (0, 0, 0, 0, 1, 0))
        return (s * (before - x)).sum(2, keepdim=True), (1 - g) * s

    operator.register_autograd(backward, setup_context=setup_context)
    return operator


def scan_log_depth(g, x):
    """Hillis and Steele: after the pass with distance n, each h_t covers the 2 n positions up to t."""
    h, decay, distance = (1 - g) * x, g, 1
    while distance < x.shape[1]:
        h = torch.cat([h[:, :distance], h[:, distance:] + decay[:, distance:] * h[:, :-distance]], dim=1)
        decay = torch.cat([decay[:, :distance], decay[:, distance:] * decay[:, :-distance]], dim=1)
        distance *= 2
    return h


def scan_associative(g, x):
    """torch's own associative scan."""
    from torch._higher_order_ops.associative_scan import associative_scan

    def combine(a, b):
        return a[0] * b[0], b[0] * a[1] + b[1]

    return associative_scan(combine, (g.expand_as(x), (1 - g) * x), dim=1, combine_mode="generic")[1]


SCANS = {
    "loop": make_scan_operator("scan_loop", scan_loop_forward, scan_loop_reversed),
    "blocked": make_scan_operator("scan_blocked", scan_blocked_forward, scan_blocked_reversed),
    "log_depth": scan_log_depth,
    "associative": scan_associative,
}

# --- attention, q, k, v [B, H, T, P] ----------------------------------------------------------------------------


def attention_dense(q, k, v, tables):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def attention_masked(q, k, v, tables):
    """The dilated pattern as a mask of T x T."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=tables.mask)


def attention_gathered(q, k, v, tables):
    """The dilated pattern over the keys that it has: T / D gathered ones, and the query's own."""
    dilation = tables.dilation
    k_dilated, v_dilated = k[:, :, dilation - 1 :: dilation], v[:, :, dilation - 1 :: dilation]
    scores = torch.cat([q @ k_dilated.transpose(2, 3), (q * k).sum(-1, keepdim=True)], dim=-1)
    weights = (scores / math.sqrt(q.shape[-1]) + tables.gathered_bias).softmax(-1)
    return weights[..., :-1] @ v_dilated + weights[..., -1:] * v


SPARSE_ATTENTIONS = {"gathered": attention_gathered, "masked": attention_masked}


class Tables:
    """What every step reuses: RoPE's cos and sin, and the masks of the dilated pattern."""

    def __init__(self, window, head_dim, dilation):
        half = head_dim // 2
        angle = torch.arange(window)[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        self.cos, self.sin = angle.cos().float(), angle.sin().float()
        t, s = torch.arange(window)[:, None], torch.arange(window)[None, :]
        self.dilation = dilation
        self.mask = (s <= t) & (((s + 1) % dilation == 0) | (s == t))
        # Columns: the dilated keys, then the query itself, which must not count twice where it is dilated.
        allowed = torch.cat([s[:, dilation - 1 :: dilation] <= t, (t + 1) % dilation != 0], dim=1)
        self.gathered_bias = torch.zeros(allowed.shape).masked_fill(~allowed, -math.inf)


# --- model ------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width, head_dim, scan):
        super().__init__()
        self.head_dim, self.scan = head_dim, scan
        self.input_norm = nn.RMSNorm(width, eps=1e-6)
        self.in_proj = nn.Linear(width, 5 * width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.ln = nn.RMSNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width, bias=False)
        self.fc2 = nn.Linear(4 * width, width, bias=False)

    def rope(self, x, tables):
        lower, upper = x.chunk(2, dim=-1)
        return torch.cat([lower * tables.cos - upper * tables.sin, upper * tables.cos + lower * tables.sin], dim=-1)

    def forward(self, x, attention, tables):
        batch, tokens, width = x.shape
        parts = self.in_proj(self.input_norm(x)).view(batch, tokens, 5, width)
        kv = self.scan(torch.sigmoid(parts[:, :, 4:]), parts[:, :, 2:4])

        def heads(part):
            return part.reshape(batch, tokens, -1, self.head_dim).transpose(1, 2)

        q, k, v = self.rope(heads(parts[:, :, 1]), tables), self.rope(heads(kv[:, :, 0]), tables), heads(kv[:, :, 1])
        a = attention(q, k, v, tables).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out_proj(a * torch.sigmoid(parts[:, :, 0]))
        return x + self.fc2(F.gelu(self.fc1(self.ln(x))))


class RatPlus(nn.Module):
    def __init__(self, layers, width, head_dim, vocab_size, scan):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList([Block(width, head_dim, scan) for _ in range(layers)])
        self.ln = nn.RMSNorm(width, eps=1e-6)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, inputs, labels, counted, attention, tables):
        """The summed cross-entropy over `counted`, the number of counted positions of the whole batch."""
        x = self.embedding(inputs)
        for block in self.blocks:
            x = block(x, attention, tables)
        return self.head(x, labels, counted)

    def head(self, x, labels, counted):
        logits = F.linear(self.ln(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="sum") / counted


class JointTrainer:
    """The joint step: an update with the dilated pattern, then one with dense attention, on the same batch."""

    def __init__(self, sizes, scan="loop", sparse_attention="gathered", compiled=False):
        torch.manual_seed(1)
        self.micro_batch = sizes.micro_batch
        self.model = RatPlus(sizes.layers, sizes.width, sizes.head_dim, sizes.vocab, SCANS[scan])
        self.attentions = (SPARSE_ATTENTIONS[sparse_attention], attention_dense)
        self.tables = Tables(sizes.sequence_length, sizes.head_dim, sizes.dilation)
        if compiled:
            # By region: the blocks share one compiled graph a pattern, so that compiling takes no longer with depth.
            for block in self.model.blocks:
                block.compile(fullgraph=True)
            self.model.head = torch.compile(self.model.head, fullgraph=True)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=8e-4, betas=(0.9, 0.95), eps=1e-8,
                                           weight_decay=0.1, fused=True)

    def half(self, inputs, labels, attention):
        self.optimizer.zero_grad(set_to_none=True)
        counted, total = (labels >= 0).sum(), 0.0
        for i, l in zip(inputs.split(self.micro_batch), labels.split(self.micro_batch)):
            loss = self.model(i, l, counted, attention, self.tables)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        return total

    def step(self, tokens, end_of_text):
        """tokens [batch, T + 1]; returns the losses of the two halves."""
        inputs = tokens[:, :-1]
        labels = tokens[:, 1:].masked_fill(inputs == end_of_text, -1)
        return [self.half(inputs, labels, attention) for attention in self.attentions]
