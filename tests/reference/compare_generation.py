"""Prompts and steps of generation: PyTorch against ratplus, same model, one run.

    python compare_generation.py --ratplus ../../build/ratplus --threads 2
    python compare_generation.py --ratplus ../../build/ratplus --device cuda --layers 24 --width 2048 --head-dim 128 \
        --vocab 32000 --length 4096 --batches 1 64

ratplus runs first, alone; then PyTorch, eager and compiled (on a GPU with CUDA graphs), with caches of the pattern's own size
that are allocated once; its fastest form counts. On the CPU both compute in float32, on a GPU in bfloat16, with the
recurrence of a prompt as an associative scan. A step of either side ends with the largest logit of each sequence. Every result
is printed as soon as it is there; what fails is reported, and the rest goes on. Without --ratplus PyTorch alone is timed.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import torch_gpu_rival as gpu_rival
import torch_rival as rival


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratplus", type=Path, help="the ratplus program")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    for name, value in dict(layers=4, width=192, head_dim=64, vocab=2048, length=512).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value, help=f"default {value}")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="default 1 16")
    parser.add_argument("--patterns", nargs="+", default=["dense", "16,0,4"], help='default: dense 16,0,4')
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side; default: all")
    parser.add_argument("--steps", type=int, default=16, help="timed steps; default 16")
    parser.add_argument("--rounds", type=int, default=3, help="default 3; the best counts")
    parser.add_argument("--only", default="", help="PyTorch forms whose name contains this, e.g. eager")
    parser.add_argument("--mode", help="of torch.compile for steps; default: default, on a GPU reduce-overhead (CUDA graphs)")
    parser.add_argument("--json", type=Path, help="write all results here")
    return parser.parse_args()


class Pattern:
    """(D, W, I), and which entries of a cache a step at t reads and writes. Entries: sinks, ring of the window, dilated."""

    def __init__(self, text):
        self.text = text
        self.dilation, self.window, self.sinks = (1, 0, 0) if text == "dense" else map(int, text.split(","))
        if self.dilation == 1:
            self.window = self.sinks = 0

    def places(self, length):
        return self.sinks + self.window + self.dilated(length)

    def dilated(self, n):
        return 0 if n <= self.sinks else n // self.dilation - self.sinks // self.dilation

    def read(self, t):
        """Entries that the query at t reads beside its own key."""
        ring = [self.sinks + (s - self.sinks) % self.window for s in range(max(self.sinks, t - self.window), t)] if self.window else []
        behind = self.sinks + self.window
        return [*range(min(self.sinks, t)), *range(behind, behind + self.dilated(max(t - self.window, 0))), *ring]

    def write(self, t):
        entries = [t] if t < self.sinks else [self.sinks + (t - self.sinks) % self.window] if self.window else []
        if t >= self.sinks and (t + 1) % self.dilation == 0:
            entries.append(self.sinks + self.window + self.dilated(t))
        return entries


class Generator(torch.nn.Module):
    """Steps of one token a sequence over a rival.RatPlus, all sequences at one position."""

    def __init__(self, model, batch, length, pattern, head_dim):
        super().__init__()
        self.model, self.pattern, self.head_dim = model, pattern, head_dim
        weight = model.embedding.weight
        self.heads = weight.shape[1] // head_dim
        places = pattern.places(length) + 1  # the last one for the token itself
        # Buffers, one a layer: torch.compile writes them in place, in CUDA graphs too.
        for i in range(len(model.blocks)):
            for name in "kv":
                cache = torch.empty(batch, self.heads, places, head_dim, dtype=weight.dtype, device=weight.device)
                self.register_buffer(f"{name}{i}", cache.normal_(), persistent=False)
            states = torch.zeros(2, batch, weight.shape[1], device=weight.device)
            self.register_buffer(f"states{i}", states, persistent=False)
        half = head_dim // 2
        angle = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        self.cos, self.sin = angle.cos().float().to(weight.device), angle.sin().float().to(weight.device)

    def rotate(self, x, cos, sin):
        lower, upper = x.float().chunk(2, dim=-1)
        return torch.cat([lower * cos - upper * sin, upper * cos + lower * sin], dim=-1).to(x.dtype)

    def forward(self, tokens, cos, sin, read, write):
        """tokens [B] -> the largest logit of each; read, write: entries."""
        x = F.embedding(tokens, self.model.embedding.weight).float()
        dtype = self.model.embedding.weight.dtype
        for i, block in enumerate(self.model.blocks):
            u = block.input_norm(x).to(dtype)
            o, q, k, v, f = block.in_proj(u).chunk(5, dim=-1)
            g = torch.sigmoid(f.float())
            states, cached_k, cached_v = (getattr(self, f"{name}{i}") for name in ("states", "k", "v"))
            states.copy_(torch.lerp(torch.stack([k, v]).float(), states, g))
            k, v = states.to(dtype)
            q, k, v = (part.view(len(tokens), self.heads, 1, self.head_dim) for part in (q, k, v))
            q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
            if read is None:  # all places, the last one the token's own
                cached_k[:, :, -1:], cached_v[:, :, -1:] = k, v
                keys, values = cached_k, cached_v
            else:
                keys, values = torch.cat([cached_k[:, :, read], k], 2), torch.cat([cached_v[:, :, read], v], 2)
            a = F.scaled_dot_product_attention(q, keys, values).reshape(len(tokens), -1)
            for entry in write:
                cached_k[:, :, entry : entry + 1], cached_v[:, :, entry : entry + 1] = k, v
            x = x + block.out_proj(a * torch.sigmoid(o)).float()
            x = x + block.fc2(F.gelu(block.fc1(block.ln(x).to(dtype)))).float()
        logits = F.linear(self.model.ln(x).to(dtype), self.model.embedding.weight).float()
        return logits.argmax(-1), logits

    def place(self, t):
        return self.cos[t], self.sin[t]


def verify():
    """Steps must give the logits of the rival's own forward."""
    length, head_dim = 96, 16
    torch.manual_seed(1)
    model = rival.RatPlus(2, 32, head_dim, 40, rival.SCANS["loop"])
    tokens = torch.randint(0, 40, (2, length))
    for text in ("dense", "16,0,0"):
        pattern = Pattern(text)
        tables = rival.Tables(length, head_dim, pattern.dilation)
        attention = rival.attention_dense if text == "dense" else rival.attention_masked
        x = model.embedding(tokens)
        for block in model.blocks:
            x = block(x, attention, tables)
        expected = F.linear(model.ln(x), model.embedding.weight)
        generator = Generator(model, 2, length, pattern, head_dim)
        for t in range(length):
            logits = generator(tokens[:, t], *generator.place(t), pattern.read(t), pattern.write(t))[1]
            error = (logits - expected[:, t]).norm() / expected[:, t].norm()
            if error > 1e-5:
                sys.exit(f"the PyTorch rival is wrong: {text}, position {t}, error {error:.1e}")


def best(options, run):
    """Median seconds of a step, in the best of the rounds."""
    times = []
    for _ in range(options.rounds):
        run(2)
        seconds = []
        for _ in range(options.steps):
            start = time.perf_counter()
            run(1)
            seconds.append(time.perf_counter() - start)
        times.append(statistics.median(seconds))
    return min(times)


@torch.inference_mode()
def time_steps(options, model, pattern, batch, compiled):
    generator = Generator(model, batch, options.length, pattern, options.head_dim)
    step = generator
    if compiled:
        mode = options.mode or ("reduce-overhead" if options.device == "cuda" else "default")
        step = torch.compile(generator, fullgraph=True, dynamic=False, mode=None if mode == "default" else mode)
    tokens = torch.zeros(batch, dtype=torch.long, device=options.device)
    place = generator.place(options.length - 1)

    def run(count):
        for _ in range(count):
            step(tokens, *place, None, [])[0].cpu()

    run(3)
    return best(options, run)


def prompt_block(block, x, rope):
    """A block of a GPU's model on the stream x f32 [1, T, d]; its products in the weights' type."""
    dtype = block.in_proj.weight.dtype
    o, q, k, v, f = block.in_proj(block.input_norm(x).to(dtype)).chunk(5, dim=-1)
    q, k, v = gpu_rival.gate_recurrence_rope(block.recurrence, rope, block.heads, q, k, v, f)
    a = gpu_rival.attention_dense(*(part.transpose(1, 2) for part in (q, k, v))).transpose(1, 2).flatten(2)
    x = x + block.out_proj(gpu_rival.output_gate(a, o)).float()
    return x + block.fc2(F.gelu(block.fc1(block.ln(x).to(dtype)))).float()


@torch.inference_mode()
def time_prompt(options, model, compiled):
    """A dense prompt."""
    tokens = torch.zeros(1, options.length, dtype=torch.long, device=options.device)
    if options.device == "cuda":
        rope = gpu_rival.Rope(options.length, options.head_dim, options.device)
        one_block = torch.compile(prompt_block, fullgraph=True, dynamic=False) if compiled else prompt_block

        def step(tokens):
            weight = model.embedding.weight
            x = F.embedding(tokens, weight).float()
            for block in model.blocks:
                x = one_block(block, x, rope)
            return F.linear(model.ln(x[:, -1]).to(weight.dtype), weight).argmax(-1)
    else:
        tables = rival.Tables(options.length, options.head_dim, 1)

        def forward(tokens):
            x = model.embedding(tokens)
            for block in model.blocks:
                x = block(x, rival.attention_dense, tables)
            return F.linear(model.ln(x[:, -1]), model.embedding.weight).argmax(-1)

        step = torch.compile(forward) if compiled else forward

    def run(count):
        for _ in range(count):
            step(tokens).cpu()

    run(2)
    options_of_prompt = argparse.Namespace(**{**vars(options), "steps": 3})
    return best(options_of_prompt, run)


def make_model(options):
    if options.device == "cpu":
        return rival.RatPlus(options.layers, options.width, options.head_dim, options.vocab, rival.SCANS["blocked"])
    with torch.device(options.device):
        model = gpu_rival.RatPlus(options, gpu_rival.RECURRENCES["associative scan, own operator"])
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            module.to(torch.bfloat16)
    return model


def time_ratplus(options):
    job = f"""
[job]
kind = "pretrain"
directory = "none"
device = "{options.device}"
[model]
layers = {options.layers}
width = {options.width}
head_dim = {options.head_dim}
vocab_size = {options.vocab}
[data]
directory = "none"
sequence_length = {options.length}
[schedule]
steps = 1
"""
    with tempfile.TemporaryDirectory() as directory:
        file, result = Path(directory) / "job.toml", Path(directory) / "times.json"
        file.write_text(job)
        command = [options.ratplus, "bench", "generate", file, "--threads", options.threads, "--lengths", options.length,
                   "--steps", options.steps, "--json", result, "--pattern", *options.patterns, "--batches", *options.batches]
        found = {}
        for _ in range(options.rounds):
            subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for time_of in json.loads(result.read_text())["times"]:
                key = (time_of["kind"], time_of["pattern"], time_of["sequences"])
                found[key] = min(found.get(key, 1e9), time_of["seconds"])
        return found


def attempt(name, call):
    """Milliseconds for print, and seconds or None."""
    try:
        seconds = call()
        print(f"PyTorch, {name}: {1e3 * seconds:.2f} ms", flush=True)
        return seconds
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        print(f"PyTorch, {name}: failed: {type(error).__name__}: {' '.join(lines)[:400]}", flush=True)
        return None
    finally:
        torch._dynamo.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def title(key):
    kind, pattern, batch = key
    return f"{kind}, {pattern}, batch {batch}"


def main():
    options = parse_options()
    torch.set_num_threads(options.threads)
    verify()
    try:
        ours = time_ratplus(options) if options.ratplus else {}
    except subprocess.CalledProcessError as error:
        ours = {}
        print(f"ratplus failed: {error}: {error.stderr[-2000:]}", flush=True)
    for key, seconds in ours.items():
        print(f"ratplus, {title(key)}: {1e3 * seconds:.2f} ms", flush=True)
    torch.manual_seed(1)
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    model = make_model(options).requires_grad_(False)
    theirs = {}
    # Eager first: its results are there soon.
    for form in [form for form in ("eager", "compiled") if options.only in form]:
        compiled = form == "compiled"
        calls = {("prompt", "dense", 1): lambda: time_prompt(options, model, compiled)}
        for text in options.patterns:
            for batch in options.batches:
                calls["step", text, batch] = lambda text=text, batch=batch: time_steps(
                    options, model, Pattern(text), batch, compiled)
        for key, call in calls.items():
            theirs.setdefault(key, {})[form] = attempt(f"{title(key)}, {form}", call)
    print(f"\n{'':32} {'PyTorch ms':>12} {'ratplus ms':>12} {'ratio':>8}  fastest form")
    rows = []
    for key, times in theirs.items():
        times = {form: seconds for form, seconds in times.items() if seconds}
        form = min(times, key=times.get, default=None)
        seconds, mine = times.get(form), ours.get(key)
        cells = [f"{1e3 * value:12.2f}" if value else f"{'-':>12}" for value in (seconds, mine)]
        ratio = f"{seconds / mine:8.2f}" if seconds and mine else f"{'':8}"
        print(f"{title(key):32} {cells[0]} {cells[1]} {ratio}  {form or 'failed'}")
        rows.append({"kind": key[0], "pattern": key[1], "sequences": key[2], "pytorch_seconds": times, "ratplus_seconds": mine})
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "times": rows}, indent=1))


if __name__ == "__main__":
    main()
