"""Makes data/rat_family.h5: models of the RAT family, and grouped-query attention, for the C++ tests.

    python make_rat_family.py           compute, check and write the file
    python make_rat_family.py --check   compute, check and compare with the stored file

Everything is computed in float64 from float32 weights, on the CPU; gradients are autograd's. Each case is computed in
three ways that must agree to 1e-10: whole sequences at once (stored), loops over tokens and heads (logits, loss and
gradients), and token by token from the caches that inference holds (logits). README.md describes the file.

Symbols as in ratplus_reference.py, and: L tokens a chunk, c(t) = floor(t / L) the chunk of t, G groups of shared
queries and keys, W tokens before the query in a window, K heads of keys and values (kv_heads).
Source: Wei, Yadav, Pascanu and Gulcehre, "RAT", arXiv 2507.04416; Ainslie et al., "GQA", arXiv 2305.13245.
"""

import argparse
import math
import sys
import tomllib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

import make_references
import ratplus_reference as ref
from self_test import check

FILE = make_references.DATA / "rat_family.h5"
LOGIT_STRIDE = make_references.LOGIT_STRIDE
TOLERANCE = 1e-10

# The settings that a job file gives to a mixer of each kind.
SETTINGS = {
    "rat": ("chunk", "groups"),
    "rnn": (),
    "attention": (),
    "local_attention": ("window",),
    "gated_attention": (),
    "ratplus": (),
}


@dataclass(frozen=True)
class Mixer:
    kind: str
    chunk: int = 0  # L
    groups: int = 0  # G
    window: int = 0  # W

    def job_value(self):
        """The TOML value of a job file's model.mixer."""
        settings = "".join(f", {key} = {getattr(self, key)}" for key in SETTINGS[self.kind])
        return f'{{ kind = "{self.kind}"{settings} }}' if settings else f'"{self.kind}"'


def parse_mixers(text):
    """The mixers of a TOML value: one for all layers, or one a layer."""
    value = tomllib.loads("mixer = " + text)["mixer"]
    values = value if isinstance(value, list) else [value]
    return tuple(Mixer(kind=item) if isinstance(item, str) else Mixer(**item) for item in values)


@dataclass(frozen=True)
class Config:
    mixers: tuple  # one for all layers, or one a layer
    kv_heads: int = 4  # K; below H in attention, local attention, gated attention and RAT+ alone
    layers: int = 2
    width: int = 32
    head_dim: int = 8
    vocab_size: int = 60
    end_of_text: int = 2
    rope_base: float = 10000.0
    norm_eps: float = 1e-6

    @property
    def heads(self):
        return self.width // self.head_dim

    def mixer(self, layer):
        return self.mixers[layer if len(self.mixers) > 1 else 0]

    def job_value(self):
        values = [mixer.job_value() for mixer in self.mixers]
        return values[0] if len(values) == 1 else "[" + ", ".join(values) + "]"


def interleaved(mixer, local, layers, step=2):
    """Layer i holds the global mixer where step divides i, else local attention."""
    return tuple(local if i % step else mixer for i in range(layers))


# --- weights ----------------------------------------------------------------------------------------------------


def row_parts(config, mixer):
    """Name and width of the parts of in_proj's rows, in order."""
    d, keys = config.width, config.kv_heads * config.head_dim
    if mixer.kind == "rat":
        shared = mixer.groups * config.head_dim
        return {"z": d, "v": d, "f": d, "q": shared, "k": shared}
    return {
        "rnn": {"z": d, "v": d, "f": d},
        "attention": {"v": keys, "q": d, "k": keys},
        "local_attention": {"v": keys, "q": d, "k": keys},
        "gated_attention": {"z": d, "q": d, "k": keys, "v": keys},
        "ratplus": {"z": d, "q": d, "k": keys, "v": keys, "f": keys},
    }[mixer.kind]


def parameter_shapes(config):
    """Name and shape of every parameter. The head shares the embedding's weight and has no entry."""
    d = config.width
    shapes = {"embedding.wte.weight": (config.vocab_size, d)}
    for i in range(config.layers):
        mixer, layer = config.mixer(i), f"backbone.layers.{i}."
        shapes[layer + "seq_layer.input_norm.weight"] = (d,)
        shapes[layer + "seq_layer.in_proj.weight"] = (sum(row_parts(config, mixer).values()), d)
        if mixer.kind in ("rat", "rnn"):
            shapes[layer + "seq_layer.gate_bias"] = (d,)
        shapes[layer + "seq_layer.out_proj.weight"] = (d, d)
        shapes[layer + "hidden_layer.ln.weight"] = (d,)
        shapes[layer + "hidden_layer.fc1.weight"] = (4 * d, d)
        shapes[layer + "hidden_layer.fc2.weight"] = (d, 4 * d)
    shapes["backbone.ln.weight"] = (d,)
    return shapes


class Pool:
    """Random float32 weights. Parameters of one name and shape are the same array in all models: the file has it once.

    Larger than initial weights, so that attention is peaked, gates reach from forgetting to keeping, and norm weights
    differ from 1.
    """

    STD = {"in_proj": 0.25, "out_proj": 0.15, "fc1": 0.2, "fc2": 0.1, "wte": 0.5}

    def __init__(self, rng):
        self.rng = rng
        self.arrays = {}

    def array(self, name, shape, initial_bias):
        key = (name, shape, initial_bias)
        if key not in self.arrays:
            if initial_bias:
                values = np.log(self.rng.uniform(1, initial_bias - 1, shape))
            else:
                values = self.rng.standard_normal(shape)
                kind = name.split(".")[-2]
                if kind in self.STD:
                    values *= self.STD[kind]
                elif not name.endswith("gate_bias"):
                    values = 1 + 0.2 * values
            self.arrays[key] = values.astype(np.float32)
        return self.arrays[key]

    def weights(self, config, initial_bias=False):
        """Arrays by name. initial_bias: gate biases as at the start of a training, log r with r ~ U(1, L - 1)."""
        return {
            name: self.array(name, shape, config.mixers[0].chunk if initial_bias and "gate_bias" in name else 0)
            for name, shape in parameter_shapes(config).items()
        }


def tensors_of(arrays, dtype=torch.float64):
    return {name: torch.from_numpy(array).to(dtype).requires_grad_() for name, array in arrays.items()}


# --- whole sequences at once ------------------------------------------------------------------------------------


def rotate(x, positions, base):
    """Rotates channels (i, i + P/2) of x [B, T, heads, P] by the angle positions[t] base^(-2i/P)."""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = positions.double()[:, None, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    lower, upper = x[..., :half], x[..., half:]
    return torch.cat([lower * cos - upper * sin, upper * cos + lower * sin], dim=-1)


def states(f, x, chunk):
    """The recurrence in closed form: h_t = sum over s <= t of t's chunk of (1 - g_s) x_s prod over s < r <= t of g_r.

    g = sigma(f); f, x [B, T, C].
    """
    t = torch.arange(x.shape[1])
    summed = ((t[:, None] >= t) & (t[:, None] // chunk == t // chunk))[None, :, :, None]
    log_product = F.logsigmoid(f).cumsum(1)
    product = (log_product[:, :, None] - log_product[:, None]).masked_fill(~summed, -math.inf).exp()
    return torch.einsum("btsc,bsc->btc", product, torch.sigmoid(-f) * x)


def mixer_at_once(config, mixer, weights, prefix, x, mask):
    """A mixer with its residual. x [B, T, d]; mask [1 or H, T, T] of the plan; not for mixers with their own."""
    tokens, position = x.shape[1], torch.arange(x.shape[1])
    u = ref.rms_norm(x, weights[prefix + "input_norm.weight"], config.norm_eps)
    parts = row_parts(config, mixer)
    rows = dict(zip(parts, (u @ weights[prefix + "in_proj.weight"].T).split(list(parts.values()), dim=-1)))

    def heads_of(part):
        return part.unflatten(-1, (-1, config.head_dim))

    if mixer.kind == "rnn":
        a = states(rows["f"] + weights[prefix + "gate_bias"], rows["v"], tokens)
    else:
        q, k, v = (heads_of(rows[name]) for name in "qkv")
        if mixer.kind == "rat":
            copies = config.heads // mixer.groups
            q, k = (part.repeat(1, 1, copies, 1) for part in (q, k))  # 0 1 .. G-1 0 1 ..
            f = rows["f"] + weights[prefix + "gate_bias"]
            k, v = (heads_of(states(f, part.flatten(-2), mixer.chunk)) for part in (k, v))
            position = position // mixer.chunk
            mask = ref.Pattern(mixer.chunk, 0, 0).mask(tokens)[None]
        if mixer.kind == "ratplus":
            k, v = (heads_of(states(rows["f"], part.flatten(-2), tokens)) for part in (k, v))
        if mixer.kind == "local_attention":
            mask = ref.Pattern(None, mixer.window, 0).mask(tokens)[None]
        if mixer.kind != "rat":
            k, v = (part.repeat_interleave(config.heads // config.kv_heads, dim=2) for part in (k, v))  # 0 0 .. 1 1 ..
        q, k = (rotate(part, position, config.rope_base) for part in (q, k))
        a = ref.attention(q, k, v, mask).flatten(-2)
    if "z" in rows:
        a = a * torch.sigmoid(rows["z"])
    return x + a @ weights[prefix + "out_proj.weight"].T


def forward(config, weights, inputs, plan, by_loops=False):
    """Logits [B, T, V] of inputs [B, T]."""
    embedding = weights["embedding.wte.weight"]
    x = embedding[inputs]
    for i in range(config.layers):
        mixer, prefix = config.mixer(i), f"backbone.layers.{i}.seq_layer."
        if by_loops:
            patterns = patterns_of(config, plan, i)
            x = torch.stack([mixer_by_loops(config, mixer, weights, prefix, rows, patterns) for rows in x])
        else:
            x = mixer_at_once(config, mixer, weights, prefix, x, ref.layer_mask(plan, i, inputs.shape[1]))
        x = ref.feed_forward(config, weights, f"backbone.layers.{i}.hidden_layer.", x)
    return ref.rms_norm(x, weights["backbone.ln.weight"], config.norm_eps) @ embedding.T


def loss_and_gradients(config, weights, tokens, plan, by_loops=False):
    """Loss, gradients by name, and logits [B, T, V] of tokens [B, T + 1]."""
    logits = forward(config, weights, tokens[:, :-1], plan, by_loops)
    loss = ref.loss_of_logits(config, logits, tokens)
    gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values()))))
    return loss.detach(), gradients, logits.detach()


# --- loops over tokens and heads --------------------------------------------------------------------------------


def patterns_of(config, plan, layer):
    """The pattern of each head of a layer."""
    patterns = plan[layer if len(plan) > 1 else 0]
    return patterns if len(patterns) > 1 else patterns * config.heads


def attends(mixer, pattern, t, s):
    """Whether the query of t attends to the key of s."""
    if mixer.kind == "rat":
        return s == t or ((s + 1) % mixer.chunk == 0 and s // mixer.chunk < t // mixer.chunk)
    if mixer.kind == "local_attention":
        return 0 <= t - s <= mixer.window
    dilated = pattern.dilation is not None and (s + 1) % pattern.dilation == 0
    return s <= t and (dilated or t - s <= pattern.window or s < pattern.sinks)


def rotation(config, n, dtype):
    """The matrix R(n) [P, P]."""
    P = config.head_dim
    matrix = torch.zeros(P, P, dtype=torch.float64)
    for i in range(P // 2):
        angle, j = n * config.rope_base ** (-2 * i / P), i + P // 2
        matrix[i, i] = matrix[j, j] = math.cos(angle)
        matrix[j, i], matrix[i, j] = math.sin(angle), -math.sin(angle)
    return matrix.to(dtype)


def normalize(config, weight, x):
    """RMSNorm of x [..., d]."""
    return x * weight * ((x * x).sum(-1, keepdim=True) / config.width + config.norm_eps) ** -0.5


def rows_of_token(config, mixer, weights, prefix, x):
    """The parts of in_proj's rows of tokens x [..., d], by name, the gate's bias added to f."""
    rows, start = {}, 0
    u = normalize(config, weights[prefix + "input_norm.weight"], x)
    for name, width in row_parts(config, mixer).items():
        rows[name] = u @ weights[prefix + "in_proj.weight"][start : start + width].T
        start += width
    if mixer.kind in ("rat", "rnn"):
        rows["f"] = rows["f"] + weights[prefix + "gate_bias"]
    return rows


def output_of_token(weights, prefix, x, a, rows):
    if "z" in rows:
        a = a / (1 + torch.exp(-rows["z"]))
    return x + a @ weights[prefix + "out_proj.weight"].T


def query_part(config, mixer, h):
    """The part of q that head h reads; in rat also the part of k."""
    return h % mixer.groups if mixer.kind == "rat" else h


def key_head(config, mixer, h):
    """The head of keys and values that query head h reads: in rat its own, else neighbours share."""
    return h if mixer.kind == "rat" else h // (config.heads // config.kv_heads)


def part(config, x, h):
    """Channels of head h of x [..., heads P]."""
    return x[..., h * config.head_dim : (h + 1) * config.head_dim]


def repeated_key(config, mixer, k):
    """rat's k of G parts as H heads; other mixers' as it is."""
    if mixer.kind != "rat":
        return k
    return torch.cat([part(config, k, query_part(config, mixer, h)) for h in range(config.heads)], dim=-1)


def mixer_by_loops(config, mixer, weights, prefix, x, patterns):
    """mixer_at_once for one sequence x [T, d]; patterns: one a head."""
    keys, values, outputs = [], [], []  # by position; keys of heads, after RoPE
    chunk = {"rat": mixer.chunk, "rnn": len(x), "ratplus": len(x)}.get(mixer.kind)
    for t in range(len(x)):
        rows = rows_of_token(config, mixer, weights, prefix, x[t])
        R = rotation(config, t // mixer.chunk if mixer.kind == "rat" else t, x.dtype)
        k = repeated_key(config, mixer, rows["k"]) if "k" in rows else None
        v = rows["v"]
        if chunk:
            g = 1 / (1 + torch.exp(-rows["f"]))
            restart = t % chunk == 0
            v = (1 - g) * v if restart else g * v_before + (1 - g) * v
            v_before = v
            if k is not None:
                k = (1 - g) * k if restart else g * k_before + (1 - g) * k
                k_before = k
        if mixer.kind == "rnn":
            outputs.append(output_of_token(weights, prefix, x[t], v, rows))
            continue
        keys.append([R @ part(config, k, j) for j in range(len(k) // config.head_dim)])
        values.append([part(config, v, j) for j in range(len(v) // config.head_dim)])
        heads = []
        for h in range(config.heads):
            q = R @ part(config, rows["q"], query_part(config, mixer, h))
            j = key_head(config, mixer, h)
            attended = [s for s in range(len(keys)) if attends(mixer, patterns[h], t, s)]
            e = torch.stack([torch.dot(q, keys[s][j]) for s in attended]) / math.sqrt(config.head_dim)
            e = torch.exp(e - e.max().detach())
            heads.append(sum(weight * values[s][j] for weight, s in zip(e / e.sum(), attended)))
        outputs.append(output_of_token(weights, prefix, x[t], torch.cat(heads), rows))
    return torch.stack(outputs)


# --- token by token, from caches --------------------------------------------------------------------------------
# A cache has attend(t, q, k, v, g): the mixer's a [B, d] of position t, and elements(): numbers held of a sequence.


class RnnCache:
    """The state h."""

    def __init__(self, config, mixer):
        self.h = 0

    def attend(self, t, q, k, v, g):
        self.h = g * self.h + (1 - g) * v
        return self.h

    def elements(self):
        return self.h.shape[-1]


class AttendingCache:
    def __init__(self, config, mixer):
        self.config, self.mixer = config, mixer

    def rotated(self, x, n):
        return torch.cat([p @ rotation(self.config, n, x.dtype).T for p in x.split(self.config.head_dim, -1)], -1)

    def softmax_sum(self, q, entries):
        """q, after RoPE, over entries of (k', v): each [B, heads P]."""
        heads = []
        for h in range(self.config.heads):
            j = key_head(self.config, self.mixer, h)
            own = part(self.config, q, query_part(self.config, self.mixer, h))
            scores = torch.stack([(own * part(self.config, k, j)).sum(-1) for k, _ in entries])
            weights = (scores / math.sqrt(self.config.head_dim)).softmax(0)
            heads.append((weights[:, :, None] * torch.stack([part(self.config, v, j) for _, v in entries])).sum(0))
        return torch.cat(heads, dim=-1)


class LocalCache(AttendingCache):
    """k' and v of the last W positions: a ring, s in slot s mod W."""

    def __init__(self, config, mixer):
        super().__init__(config, mixer)
        self.slots = [None] * mixer.window

    def attend(self, t, q, k, v, g):
        entry = (self.rotated(k, t), v)
        a = self.softmax_sum(self.rotated(q, t), [slot for slot in self.slots if slot is not None] + [entry])
        if self.slots:
            self.slots[t % len(self.slots)] = entry
        return a

    def elements(self):
        return sum(k.shape[-1] + v.shape[-1] for k, v in (slot for slot in self.slots if slot is not None))


class RatCache(AttendingCache):
    """A slot of k' and v~ a chunk, and the last k~ before RoPE."""

    def __init__(self, config, mixer):
        super().__init__(config, mixer)
        self.slots = []

    def attend(self, t, q, k, v, g):
        c = t // self.mixer.chunk
        if t % self.mixer.chunk == 0:
            self.slots.append(None)
            self.k, v_before = torch.zeros_like(k), torch.zeros_like(v)
        else:
            v_before = self.slots[c][1]
        self.k = g * self.k + (1 - g) * k
        self.slots[c] = (self.rotated(self.k, c), g * v_before + (1 - g) * v)
        return self.softmax_sum(self.rotated(q, c), self.slots)

    def elements(self):
        return sum(k.shape[-1] + v.shape[-1] for k, v in self.slots) + self.k.shape[-1]


class PatternCache(AttendingCache):
    """k' and v of the positions that later queries of the pattern attend to; in RAT+ also the last k~ and v~."""

    def __init__(self, config, mixer, pattern):
        super().__init__(config, mixer)
        self.pattern, self.entries, self.last = pattern, {}, (0, 0)

    def attend(self, t, q, k, v, g):
        if g is not None:
            k, v = g * self.last[0] + (1 - g) * k, g * self.last[1] + (1 - g) * v
            self.last = (k, v)
        self.entries[t] = (self.rotated(k, t), v)
        a = self.softmax_sum(self.rotated(q, t), list(self.entries.values()))
        D, W, I = self.pattern.dilation, self.pattern.window, self.pattern.sinks
        self.entries = {
            s: entry for s, entry in self.entries.items() if s < I or s > t - W or (D is not None and (s + 1) % D == 0)
        }
        return a

    def elements(self):
        held = sum(k.shape[-1] + v.shape[-1] for k, v in self.entries.values())
        return held + (sum(x.shape[-1] for x in self.last) if self.mixer.kind == "ratplus" else 0)


def expected_elements(config, mixer, pattern, t):
    """Elements that a layer holds of a sequence after t tokens."""
    d, keys = config.width, config.kv_heads * config.head_dim
    if mixer.kind == "rnn":
        return d
    if mixer.kind == "rat":
        return 2 * d * math.ceil(t / mixer.chunk) + d
    if mixer.kind == "local_attention":
        return 2 * keys * min(t, mixer.window)
    D, W, I = pattern.dilation, pattern.window, pattern.sinks
    held = [s for s in range(t) if s < I or s >= t - W or (D is not None and (s + 1) % D == 0)]
    return 2 * keys * (len(held) + (mixer.kind == "ratplus"))


@torch.no_grad()
def decoded_logits(config, weights, inputs, plan):
    """Logits [B, T, V] of inputs [B, T], one token at a time."""
    caches = []
    for i in range(config.layers):
        mixer, patterns = config.mixer(i), patterns_of(config, plan, i)
        assert len(set(patterns)) == 1, "caches by head are not written"
        kinds = {"rnn": RnnCache, "rat": RatCache, "local_attention": LocalCache}
        caches.append(
            kinds[mixer.kind](config, mixer) if mixer.kind in kinds else PatternCache(config, mixer, patterns[0])
        )
    embedding, logits = weights["embedding.wte.weight"], []
    for t in range(inputs.shape[1]):
        x = embedding[inputs[:, t]]
        for i, cache in enumerate(caches):
            mixer, prefix = config.mixer(i), f"backbone.layers.{i}.seq_layer."
            rows = rows_of_token(config, mixer, weights, prefix, x)
            k = repeated_key(config, mixer, rows["k"]) if "k" in rows else None
            g = torch.sigmoid(rows["f"]) if "f" in rows else None
            x = output_of_token(weights, prefix, x, cache.attend(t, rows.get("q"), k, rows["v"], g), rows)
            x = ref.feed_forward(config, weights, f"backbone.layers.{i}.hidden_layer.", x)
            expected = expected_elements(config, mixer, patterns_of(config, plan, i)[0], t + 1)
            assert cache.elements() == expected, (mixer, t, cache.elements(), expected)
        logits.append(normalize(config, weights["backbone.ln.weight"], x) @ embedding.T)
    return torch.stack(logits, dim=1)


# --- the file ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    weights: str
    config: Config
    tokens: str = "37"
    plan: str = "dense"
    initial_bias: bool = False


def uniform(kind, kv_heads=4, **settings):
    return Config(mixers=(Mixer(kind, **settings),), kv_heads=kv_heads)


def cases():
    local = Mixer("local_attention", window=5)
    rat = Mixer("rat", chunk=4, groups=2)
    made = {
        "attention": Case("attention", uniform("attention")),
        "local_attention_w5": Case("attention", uniform("local_attention", window=5)),
        "local_attention_w0": Case("attention", uniform("local_attention", window=0)),
        "rnn": Case("rnn", uniform("rnn")),
        "rat_l16_g2_initial_bias": Case("rat_g2_initial_bias", uniform("rat", chunk=16, groups=2), initial_bias=True),
        "attention_local_attention": Case(
            "attention_by_layer", Config(mixers=interleaved(Mixer("attention"), local, 4), layers=4)
        ),
        "rat_local_attention": Case(
            "rat_by_layer", Config(mixers=interleaved(rat, local, 4), layers=4), tokens="37_end_of_text"
        ),
    }
    # L = 4 and 16 each with a T that it divides.
    rats = ((4, 1, "37"), (4, 2, "32"), (4, 4, "37"), (16, 1, "32"), (16, 2, "37"), (16, 4, "37"))
    for chunk, groups, tokens in rats:
        config = uniform("rat", chunk=chunk, groups=groups)
        made[f"rat_l{chunk}_g{groups}"] = Case(f"rat_g{groups}", config, tokens=tokens)
    for kind in ("attention", "gated_attention", "ratplus"):
        for kv_heads, plan in ((1, "dense;4,3,1"), (2, "4,3,1;dense")):
            made[f"{kind}_kv{kv_heads}"] = Case(f"{kind}_kv{kv_heads}", uniform(kind, kv_heads), plan=plan)
    return made


def tokens_without_end(rng, window):
    """Token ids [2, T + 1] other than end-of-text."""
    tokens = rng.integers(0, Config.vocab_size - 1, (2, window + 1))
    return tokens + (tokens >= Config.end_of_text)


def largest_difference(found, expected):
    """Relative to the norm of each tensor; found and expected by name."""
    return max(((found[name] - x).norm() / x.norm()).item() for name, x in expected.items())


def add_case(file, pool, name, case):
    config, plan = case.config, ref.parse_plan(case.plan)
    assert parse_mixers(config.job_value()) == config.mixers
    arrays = pool.weights(config, case.initial_bias)
    file.arrays |= {f"weights/{case.weights}/{parameter}": array for parameter, array in arrays.items()}
    tokens = torch.from_numpy(file.arrays[f"tokens/{case.tokens}"].reshape(2, -1)).long()
    inputs, weights = tokens[:, :-1], tensors_of(arrays)

    def results(weights, by_loops=False):
        loss, gradients, logits = loss_and_gradients(config, weights, tokens, plan, by_loops)
        return {"loss": loss, "logits": logits, **gradients}

    result = results(weights)
    looped, decoded = results(weights, by_loops=True), decoded_logits(config, weights, inputs, plan)
    check(f"{name}: loops over tokens and heads", largest_difference(looped, result), TOLERANCE)
    check(f"{name}: token by token", largest_difference({"logits": decoded}, {"logits": result["logits"]}), TOLERANCE)
    # What a float32 program can reach: the tests allow it 1e-5.
    single = results(tensors_of(arrays, torch.float32), by_loops=True)
    check(f"{name}: in float32", largest_difference(single, result), 4e-6)

    group = f"cases/{name}"
    loss, logits = result.pop("loss"), result.pop("logits")
    file.add_tensors(f"{group}/gradients", result)
    file.add_tensors(group, {"logits": logits[-1, LOGIT_STRIDE - 1 :: LOGIT_STRIDE]})
    file.arrays[f"{group}/decode"] = decoded[:, -1].numpy().reshape(-1)
    file.attributes[group] = {
        "layers": config.layers,
        "width": config.width,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "mixer": config.job_value(),
        "kv_heads": config.kv_heads,
        "rope_base": config.rope_base,
        "norm_eps": config.norm_eps,
        "end_of_text": config.end_of_text,
        "batch": inputs.shape[0],
        "window": inputs.shape[1],
        "patterns": case.plan,
        "weights": f"weights/{case.weights}",
        "tokens": f"tokens/{case.tokens}",
        "loss": loss.item(),
        "logit_stride": LOGIT_STRIDE,
    }


def compare_with_ratplus_reference(pool, tokens):
    """RAT+ and its baseline with as many heads of keys as of queries are those of ratplus_reference.py."""
    for kind in ("ratplus", "gated_attention"):
        config = uniform(kind)
        sizes = {name: getattr(config, name) for name in ("layers", "width", "head_dim", "vocab_size")}
        other, plan = ref.Config(**sizes, recurrence=kind == "ratplus"), ref.parse_plan("4,3,1;dense")
        assert parameter_shapes(config) == ref.parameter_shapes(other)
        weights = tensors_of(pool.weights(config))
        _, gradients, logits = loss_and_gradients(config, weights, tokens, plan)
        _, expected, expected_logits = ref.loss_and_gradients(other, weights, tokens, plan)
        difference = largest_difference({**gradients, "logits": logits}, {**expected, "logits": expected_logits})
        check(f"{kind}, kv_heads = H, against ratplus_reference", difference, TOLERANCE)


def compare_equal_models(pool, tokens):
    """Models that are equal by definition: local attention and attention with its pattern; rat of one chunk and rnn."""

    def compare(what, config, other, plan, other_plan):
        arrays = pool.weights(config)
        rows = {name: shape[0] for name, shape in parameter_shapes(other).items()}
        logits = forward(config, tensors_of(arrays), tokens[:, :-1], ref.parse_plan(plan))
        other_weights = tensors_of({name: array[: rows[name]] for name, array in arrays.items()})
        expected = forward(other, other_weights, tokens[:, :-1], ref.parse_plan(other_plan))
        check(what, largest_difference({"logits": logits}, {"logits": expected}), TOLERANCE)

    local, one_chunk = uniform("local_attention", window=5), uniform("rat", chunk=64, groups=2)
    compare("local attention against attention's pattern", local, uniform("attention"), "dense", "none,5,0")
    compare("rat of one chunk against rnn", one_chunk, uniform("rnn"), "dense", "dense")


def make():
    file, pool = make_references.File(), Pool(np.random.default_rng(3))
    rng = np.random.default_rng(4)
    made = {"37": tokens_without_end(rng, 37), "32": tokens_without_end(rng, 32)}
    with_end = tokens_without_end(rng, 37)
    with_end[0, [0, 11, 12, 36]] = Config.end_of_text  # the first and the last input, two in a row
    with_end[1, [5, 37]] = Config.end_of_text  # the last label
    made["37_end_of_text"] = with_end
    for name, tokens in made.items():
        file.arrays[f"tokens/{name}"] = tokens.astype(np.int32).reshape(-1)
    for name, case in cases().items():
        add_case(file, pool, name, case)
    compare_with_ratplus_reference(pool, torch.from_numpy(with_end))
    compare_equal_models(pool, torch.from_numpy(with_end))
    return file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the stored file instead of writing it")
    options = parser.parse_args()
    file = make()
    if not options.check:
        return file.write(FILE)
    problems = make_references.check(file, FILE)
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
