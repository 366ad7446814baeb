"""RAT+ in PyTorch, written to be read beside the paper: the model, its loss, and its training steps.

It makes the references that the C++ system is tested against (make_references.py). Clarity and exactness come before
speed: the recurrence is a plain loop over time, attention holds T x T scores, gradients are autograd's, and every
number is in the type of the weights, float64 for references.

Symbols: B sequences of T tokens, width d, H heads of P channels (d = H P), vocabulary V.
Source: Wei and Gulcehre, "RAT+: Train Dense, Infer Sparse", arXiv 2602.18196.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from parameter_shapes import parameter_shapes


@dataclass(frozen=True)
class Config:
    """The sizes that define a model; recurrence=False is the attention baseline."""

    layers: int
    width: int
    head_dim: int
    vocab_size: int
    recurrence: bool = True
    end_of_text: int = 2
    rope_base: float = 10000.0
    norm_eps: float = 1e-6

    @property
    def heads(self):
        return self.width // self.head_dim


# --- sparsity patterns ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    """(D, W, I): dilation, window and sinks. dilation None has only the window and the sinks; 1 is dense."""

    dilation: int | None = 1
    window: int = 0
    sinks: int = 0

    def mask(self, tokens):
        """Boolean [T, T]: whether the query of a row attends to the key of a column."""
        t = torch.arange(tokens)[:, None]
        s = torch.arange(tokens)[None, :]
        dilated = torch.zeros_like(s, dtype=torch.bool) if self.dilation is None else (s + 1) % self.dilation == 0
        return (s <= t) & (dilated | (t - s <= self.window) | (s < self.sinks))


def parse_plan(text):
    """Patterns of a model: "D,W,I", "none,W,I" or "dense"; '|' between the heads of a layer, ';' between layers."""

    def parse_pattern(word):
        if word == "dense":
            return Pattern()
        dilation, window, sinks = word.split(",")
        return Pattern(None if dilation == "none" else int(dilation), int(window), int(sinks))

    return [[parse_pattern(word) for word in layer.split("|")] for layer in text.split(";")]


def layer_mask(plan, layer, tokens):
    """Boolean [1 or H, T, T]. A single entry in the plan stands for all layers, in a layer for all heads."""
    patterns = plan[0] if len(plan) == 1 else plan[layer]
    return torch.stack([pattern.mask(tokens) for pattern in patterns])


# --- weights ----------------------------------------------------------------------------------------------------


def parameter_count(config):
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


# --- forward pass -----------------------------------------------------------------------------------------------


def rms_norm(x, weight, eps):
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def recurrence(gate, x):
    """h_t = g_t h_{t-1} + (1 - g_t) x_t over dimension 1, from h_{-1} = 0. gate, x [B, T, ...]."""
    h, states = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        h = gate[:, t] * h + (1 - gate[:, t]) * x[:, t]
        states.append(h)
    return torch.stack(states, dim=1)


def rope(x, base):
    """Rotates channels (i, i + P/2) of x [B, T, H, P] by the angle t base^(-2i/P)."""
    tokens, half = x.shape[1], x.shape[3] // 2
    frequency = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype)[:, None, :], angle.sin().to(x.dtype)[:, None, :]
    lower, upper = x[..., :half], x[..., half:]
    return torch.cat([lower * cos - upper * sin, upper * cos + lower * sin], dim=-1)


def attention(q, k, v, mask):
    """q, k, v [B, T, H, P], mask [1 or H, T, T]; returns [B, T, H, P]."""
    scores = torch.einsum("bthp,bshp->bhts", q, k) / math.sqrt(q.shape[-1])
    probabilities = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    return torch.einsum("bhts,bshp->bthp", probabilities, v)


def mixer(config, weights, prefix, x, mask):
    """The RAT+ mixer with its residual, or the attention baseline's. x [B, T, d]."""
    batch, tokens, d = x.shape
    u = rms_norm(x, weights[prefix + "input_norm.weight"], config.norm_eps)
    parts = (u @ weights[prefix + "in_proj.weight"].T).split(d, dim=-1)
    output_gate, q, k, v = parts[:4]
    if config.recurrence:
        gate = torch.sigmoid(parts[4])
        k, v = recurrence(gate, k), recurrence(gate, v)
    q, k, v = (part.reshape(batch, tokens, config.heads, config.head_dim) for part in (q, k, v))
    a = attention(rope(q, config.rope_base), rope(k, config.rope_base), v, mask).reshape(batch, tokens, d)
    return x + (a * torch.sigmoid(output_gate)) @ weights[prefix + "out_proj.weight"].T


def feed_forward(config, weights, prefix, x):
    """The feed-forward layer with its residual; GELU is the exact one, by erf."""
    u = rms_norm(x, weights[prefix + "ln.weight"], config.norm_eps)
    hidden = F.gelu(u @ weights[prefix + "fc1.weight"].T, approximate="none")
    return x + hidden @ weights[prefix + "fc2.weight"].T


def forward(config, weights, inputs, plan):
    """Logits [B, T, V] of inputs [B, T]."""
    embedding = weights["embedding.wte.weight"]
    x = embedding[inputs]
    for i in range(config.layers):
        mask = layer_mask(plan, i, inputs.shape[1])
        x = mixer(config, weights, f"backbone.layers.{i}.seq_layer.", x, mask)
        x = feed_forward(config, weights, f"backbone.layers.{i}.hidden_layer.", x)
    return rms_norm(x, weights["backbone.ln.weight"], config.norm_eps) @ embedding.T


def loss_of_logits(config, logits, tokens):
    """Mean next-token cross-entropy of tokens [B, T + 1] over the positions whose input is not end-of-text."""
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    counted = inputs != config.end_of_text
    return F.cross_entropy(logits[counted], labels[counted], reduction="sum") / counted.sum()


# --- training ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """AdamW, clipping, and the schedule: linear warm-up over a share of the steps, then a cosine to the floor."""

    steps: int
    peak_lr: float
    floor_lr: float = 1e-6
    warmup: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0

    def learning_rate(self, n):
        warmup_steps = math.floor(self.warmup * self.steps)
        if n < warmup_steps:
            return (n + 1) / warmup_steps * self.peak_lr
        progress = (n - warmup_steps) / (self.steps - warmup_steps)
        return self.floor_lr + (self.peak_lr - self.floor_lr) * (1 + math.cos(math.pi * progress)) / 2


class AdamW:
    """Adam with decoupled weight decay on every parameter (Loshchilov and Hutter, 2019)."""

    def __init__(self, training, weights):
        self.training = training
        self.weights = weights
        self.m = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.v = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.updates = 0

    @torch.no_grad()
    def update(self, gradients, lr):
        hyper = self.training
        self.updates += 1
        for name, weight in self.weights.items():
            g = gradients[name]
            self.m[name] = hyper.beta1 * self.m[name] + (1 - hyper.beta1) * g
            self.v[name] = hyper.beta2 * self.v[name] + (1 - hyper.beta2) * g.square()
            m_hat = self.m[name] / (1 - hyper.beta1**self.updates)
            v_hat = self.v[name] / (1 - hyper.beta2**self.updates)
            weight -= lr * (m_hat / (v_hat.sqrt() + hyper.eps) + hyper.weight_decay * weight)


def loss_and_gradients(config, weights, tokens, plan):
    """Loss, gradients by name, and logits [B, T, V] of tokens [B, T + 1]."""
    logits = forward(config, weights, tokens[:, :-1], plan)
    loss = loss_of_logits(config, logits, tokens)
    gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values()))))
    return loss.detach(), gradients, logits.detach()


def training_update(config, optimizer, tokens, plan, lr):
    """One optimizer update. Returns the loss before it and the gradient's global norm before clipping."""
    loss, gradients, _ = loss_and_gradients(config, optimizer.weights, tokens, plan)
    norm = torch.sqrt(sum(g.square().sum() for g in gradients.values()))
    factor = min(1.0, optimizer.training.clip / (norm.item() + 1e-6))
    optimizer.update({name: g * factor for name, g in gradients.items()}, lr)
    return loss.item(), norm.item()


def train_step(config, optimizer, tokens, plans, n):
    """Schedule step n: one update for each of the plans in turn, all on the same batch with the same rate.

    Joint pretraining has two plans, the sparse one first; plain training has one.
    """
    lr = optimizer.training.learning_rate(n)
    return lr, [training_update(config, optimizer, tokens, plan, lr) for plan in plans]
