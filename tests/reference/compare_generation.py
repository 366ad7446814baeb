"""Prompts and steps of generation: PyTorch against ratplus, same model, one run.

    python compare_generation.py --ratplus ../../build/ratplus --threads 2
    python compare_generation.py --ratplus ../../build/ratplus --device cuda --layers 24 --width 2048 --head-dim 128 \
        --vocab 32000 --length 4096 --batches 1 64

PyTorch runs eager and compiled (on a GPU with CUDA graphs), with caches of the pattern's own size that are allocated once;
its fastest form counts. On the CPU both compute in float32, on a GPU in bfloat16. A step of either side ends with the largest
logit of each sequence. Without --ratplus PyTorch alone is timed.
"""

import argparse
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
        shape = (len(model.blocks), batch, self.heads, places, head_dim)
        self.k, self.v = (torch.randn(shape, device=weight.device).to(weight.dtype) for _ in range(2))
        self.states = torch.zeros(len(model.blocks), 2, batch, weight.shape[1], device=weight.device)
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
            for part, new in ((0, k), (1, v)):
                self.states[i, part].copy_(torch.lerp(new.float(), self.states[i, part], g))
            k, v = self.states[i, 0].to(dtype), self.states[i, 1].to(dtype)
            q, k, v = (part.view(len(tokens), self.heads, 1, self.head_dim) for part in (q, k, v))
            q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
            if read is None:  # all places, the last one the token's own
                self.k[i, :, :, -1:], self.v[i, :, :, -1:] = k, v
                keys, values = self.k[i], self.v[i]
            else:
                keys, values = torch.cat([self.k[i][:, :, read], k], 2), torch.cat([self.v[i][:, :, read], v], 2)
            a = F.scaled_dot_product_attention(q, keys, values).reshape(len(tokens), -1)
            for entry in write:
                self.k[i, :, :, entry : entry + 1], self.v[i, :, :, entry : entry + 1] = k, v
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
    step = torch.compile(generator, mode="max-autotune" if options.device == "cuda" else "default") if compiled else generator
    tokens = torch.zeros(batch, dtype=torch.long, device=options.device)
    place = generator.place(options.length - 1)

    def run(count):
        for _ in range(count):
            step(tokens, *place, None, [])[0].cpu()

    run(3)
    return best(options, run)


@torch.inference_mode()
def time_prompt(options, model, compiled):
    """A dense prompt."""
    tables = rival.Tables(options.length, options.head_dim, 1)
    tables.cos, tables.sin = tables.cos.to(options.device), tables.sin.to(options.device)
    tokens = torch.zeros(1, options.length, dtype=torch.long, device=options.device)

    def forward(tokens):
        x = model.embedding(tokens)
        for block in model.blocks:
            x = block(x, rival.attention_dense, tables)
        return F.linear(model.ln(x[:, -1]), model.embedding.weight).argmax(-1)

    step = torch.compile(forward) if compiled else forward

    def run(count):
        for _ in range(count):
            with torch.autocast("cuda", torch.bfloat16, enabled=options.device == "cuda"):
                step(tokens).cpu()

    run(2)
    options_of_prompt = argparse.Namespace(**{**vars(options), "steps": 3})
    return best(options_of_prompt, run)


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
            subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for time_of in json.loads(result.read_text())["times"]:
                key = (time_of["kind"], time_of["pattern"], time_of["sequences"])
                found[key] = min(found.get(key, 1e9), time_of["seconds"])
        return found


def main():
    options = parse_options()
    torch.set_num_threads(options.threads)
    verify()
    torch.manual_seed(1)
    model = rival.RatPlus(options.layers, options.width, options.head_dim, options.vocab, rival.SCANS["blocked"])
    model.requires_grad_(False).to(options.device)
    forms = [form for form in ("eager", "compiled") if options.only in form]
    theirs = {("prompt", "dense", 1): min(time_prompt(options, model, form == "compiled") for form in forms)}
    if options.device == "cuda":
        for module in model.modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
                module.to(torch.bfloat16)
    for text in options.patterns:
        for batch in options.batches:
            times = {form: time_steps(options, model, Pattern(text), batch, form == "compiled") for form in forms}
            theirs["step", text, batch] = min(times.values())
            print(f"PyTorch, {text}, batch {batch}: " + ", ".join(f"{form} {1e3 * s:.2f} ms" for form, s in times.items()), file=sys.stderr)
    ours = time_ratplus(options) if options.ratplus else {}
    print(f"{'':32} {'PyTorch ms':>12} {'ratplus ms':>12} {'ratio':>8}")
    for key, seconds in theirs.items():
        kind, pattern, batch = key
        mine = f"{1e3 * ours[key]:12.2f} {seconds / ours[key]:8.2f}" if key in ours else ""
        print(f"{kind + ', ' + pattern + ', batch ' + str(batch):32} {1e3 * seconds:12.2f} {mine}")


if __name__ == "__main__":
    main()
