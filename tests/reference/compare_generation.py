"""Prompts and steps of generation: PyTorch against ratplus, same model, one run.

    python compare_generation.py --ratplus ../../build/ratplus --threads 2
    python compare_generation.py --ratplus ../../build/ratplus --threads 1 --model medium --weights bf16
    python compare_generation.py --ratplus ../../build/ratplus --device cuda --layers 24 --width 2048 --head-dim 128 \
        --vocab 32000 --length 4096 --batches 1 64

PyTorch runs eager and compiled (on a GPU with CUDA graphs), with caches of the pattern's own size that are allocated once; its
fastest form counts. On the CPU both compute in float32, in turn in every round (with --weights bf16 ratplus keeps its matrices in
bfloat16, and PyTorch is timed with float32 and with bfloat16 throughout), and seconds on processors are compared, too: other
work on the machine hardly changes them, but with several threads they hold the waiting of one for another. On a GPU both compute
in bfloat16, ratplus first, alone, with the recurrence of a prompt as an associative scan. A step of either side ends with the
largest logit of each sequence. A failure is reported, and the rest continues. Without --ratplus PyTorch alone is timed.
"""

import argparse
import gc
import itertools
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


# Sizes by name: those of configs/quickstart/pretrain.toml and of configs/reproduce/medium.toml (112M parameters) at T = 512.
MODELS = {
    "quickstart": dict(layers=4, width=192, head_dim=64, vocab=2048, length=512),
    "medium": dict(layers=12, width=768, head_dim=64, vocab=16384, length=512),
}


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratplus", type=Path, help="the ratplus program")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--weights", default="f32", choices=["f32", "bf16"], help="on the CPU; default f32")
    parser.add_argument("--model", default="quickstart", choices=MODELS, help="sizes that no option names; default quickstart")
    for name in MODELS["quickstart"]:
        parser.add_argument("--" + name.replace("_", "-"), type=int, help="default: the model's")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="default 1 16")
    parser.add_argument("--patterns", nargs="+", default=["dense", "16,0,4"], help='default: dense 16,0,4')
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side; default: all")
    parser.add_argument("--steps", type=int, default=16, help="timed steps; default 16")
    parser.add_argument("--rounds", type=int, default=3, help="default 3; the best counts")
    parser.add_argument("--only", default="", help="PyTorch forms whose name contains this, e.g. eager")
    parser.add_argument("--mode", help="of torch.compile for steps; default: default, on a GPU reduce-overhead (CUDA graphs)")
    parser.add_argument("--json", type=Path, help="write all results here")
    options = parser.parse_args()
    for name, value in MODELS[options.model].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


class Times:
    """Best seconds of a step so far, by the clock and on processors: of the medians of rounds."""

    def __init__(self):
        self.seconds = self.processor = float("inf")

    def add(self, seconds, processor):
        self.seconds, self.processor = min(self.seconds, seconds), min(self.processor, processor)

    def __str__(self):
        return f"{1e3 * self.seconds:.2f} ms, {1e3 * self.processor:.2f} ms on processors"


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


@torch.inference_mode()
def time_round(times, run, steps):
    """Adds the medians of one round's steps."""
    run(2)
    seconds, processor = [], []
    for _ in range(steps):
        on_processor, start = time.process_time(), time.perf_counter()
        run(1)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - on_processor)
    times.add(statistics.median(seconds), statistics.median(processor))


@torch.inference_mode()
def prepare_steps(options, model, pattern, batch, compiled):
    """run(count): so many steps."""
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
    return run


def prompt_block(block, x, rope):
    """A block of a GPU's model on the stream x f32 [1, T, d]; its products in the weights' type."""
    dtype = block.in_proj.weight.dtype
    o, q, k, v, f = block.in_proj(block.input_norm(x).to(dtype)).chunk(5, dim=-1)
    q, k, v = gpu_rival.gate_recurrence_rope(block.recurrence, rope, block.heads, q, k, v, f)
    a = gpu_rival.attention_dense(*(part.transpose(1, 2) for part in (q, k, v))).transpose(1, 2).flatten(2)
    x = x + block.out_proj(gpu_rival.output_gate(a, o)).float()
    return x + block.fc2(F.gelu(block.fc1(block.ln(x).to(dtype)))).float()


@torch.inference_mode()
def prepare_prompt(options, model, compiled):
    """run(count): a dense prompt so many times."""
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
            weight = model.embedding.weight
            with torch.autocast("cpu", torch.bfloat16, enabled=weight.dtype == torch.bfloat16):
                x = F.embedding(tokens, weight).float()
                for block in model.blocks:
                    x = block(x, rival.attention_dense, tables)
                return F.linear(model.ln(x[:, -1]), weight).argmax(-1)

        step = torch.compile(forward) if compiled else forward

    def run(count):
        for _ in range(count):
            step(tokens).cpu()

    run(2)
    return run


def make_model(options, weights):
    """On a GPU in bfloat16; on the CPU in `weights`."""
    if options.device == "cpu":
        model = rival.RatPlus(options.layers, options.width, options.head_dim, options.vocab, rival.SCANS["blocked"])
        if weights == "f32":
            return model
    else:
        with torch.device(options.device):
            model = gpu_rival.RatPlus(options, gpu_rival.RECURRENCES["associative scan, own operator"])
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            module.to(torch.bfloat16)
    return model


def time_ratplus(options, times):
    """Adds one round to times, by kind, pattern and number of sequences."""
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
        if options.device == "cpu":
            command += ["--precision", options.weights]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for time_of in json.loads(result.read_text())["times"]:
            key = (time_of["kind"], time_of["pattern"], time_of["sequences"])
            times.setdefault(key, Times()).add(time_of["seconds"], time_of["processor_seconds"])


def attempt(name, call):
    """The call's result, or None with a line that says why there is none."""
    try:
        return call()
    except Exception as error:
        lines = [line.strip() for line in (str(error) + str(getattr(error, "stderr", ""))).splitlines() if line.strip()]
        print(f"{name}: failed: {type(error).__name__}: {' '.join(lines)[:400]}", flush=True)
        return None


def free():
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def title(key):
    kind, pattern, batch = key
    return f"{kind}, {pattern}, batch {batch}"


def models(options):
    """Of PyTorch, by what a form's name says of them."""
    kinds = {"": "f32"}
    if options.device == "cpu" and options.weights == "bf16":
        kinds[", bfloat16"] = "bf16"
    return {name: make_model(options, weights).requires_grad_(False) for name, weights in kinds.items()}


def rivals(options, models):
    """How to prepare each of PyTorch's contenders, by key and form; eager first, since its results are there soon."""
    prepared = {}
    for way, (kind, model) in itertools.product(("eager", "compiled"), models.items()):
        form, compiled = way + kind, way == "compiled"
        if options.only not in form:
            continue
        prepared[("prompt", "dense", 1), form] = lambda model=model, compiled=compiled: prepare_prompt(options, model, compiled)
        for text, batch in itertools.product(options.patterns, options.batches):
            prepared[("step", text, batch), form] = lambda model=model, text=text, batch=batch, compiled=compiled: prepare_steps(
                options, model, Pattern(text), batch, compiled)
    return prepared


def steps_of(options, key):
    return 3 if key[0] == "prompt" else options.steps


def time_in_turn(options, models, ours, theirs):
    """All contenders in every round, so that a busy moment of the machine does not hit one of them alone."""
    runs = {}
    for (key, form), prepare in rivals(options, models).items():
        run = attempt(f"PyTorch, {title(key)}, {form}", prepare)
        if run:
            runs[key, form] = run
    for n in range(options.rounds):
        if options.ratplus:
            attempt("ratplus", lambda: time_ratplus(options, ours))
        for (key, form), run in runs.items():
            time_round(theirs[key].setdefault(form, Times()), run, steps_of(options, key))
        print(f"round {n + 1} of {options.rounds} measured", file=sys.stderr, flush=True)


def time_one_by_one(options, models, ours, theirs):
    """Each contender alone in memory."""
    for _ in range(options.rounds if options.ratplus else 0):
        attempt("ratplus", lambda: time_ratplus(options, ours))
    for key, times in ours.items():
        print(f"ratplus, {title(key)}: {times}", flush=True)
    for (key, form), prepare in rivals(options, models).items():
        name = f"PyTorch, {title(key)}, {form}"

        def measure():
            times, run = Times(), prepare()
            for _ in range(options.rounds):
                time_round(times, run, steps_of(options, key))
            theirs[key][form] = times
            print(f"{name}: {times}", flush=True)

        attempt(name, measure)
        free()


def print_table(heading, measure, ours, theirs):
    print(f"\n{heading:32} {'PyTorch ms':>12} {'ratplus ms':>12} {'ratio':>8}  fastest form")
    for key, times in theirs.items():
        seconds = {form: measure(time_of) for form, time_of in times.items()}
        form = min(seconds, key=seconds.get, default=None)
        theirs_best, mine = seconds.get(form), measure(ours[key]) if key in ours else None
        cells = [f"{1e3 * value:12.2f}" if value else f"{'-':>12}" for value in (theirs_best, mine)]
        ratio = f"{theirs_best / mine:8.2f}" if theirs_best and mine else f"{'':8}"
        print(f"{title(key):32} {cells[0]} {cells[1]} {ratio}  {form or 'failed'}")


def main():
    options = parse_options()
    torch.set_num_threads(options.threads)
    verify()
    torch.manual_seed(1)
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    made = models(options)
    ours, theirs = {}, {key: {} for key, _ in rivals(options, made)}
    on_cpu = options.device == "cpu"
    (time_in_turn if on_cpu else time_one_by_one)(options, made, ours, theirs)
    print(f"\n{options.layers} layers, width {options.width}, head_dim {options.head_dim}, vocabulary {options.vocab}, "
          f"T = {options.length}, {options.device}, {options.threads} thread(s), "
          f"weights {options.weights if on_cpu else 'bf16'}; torch {torch.__version__}")
    print_table("by the clock", lambda times: times.seconds, ours, theirs)
    if on_cpu:
        print_table("on processors", lambda times: times.processor, ours, theirs)
    if options.json:
        rows = []
        for key, times in theirs.items():
            row = {"kind": key[0], "pattern": key[1], "sequences": key[2]}
            for name, field in (("seconds", "seconds"), ("processor_seconds", "processor")):
                row[f"pytorch_{name}"] = {form: getattr(time_of, field) for form, time_of in times.items()}
                row[f"ratplus_{name}"] = getattr(ours[key], field) if key in ours else None
            rows.append(row)
        options.json.write_text(json.dumps({"torch": torch.__version__, "times": rows}, indent=1))


if __name__ == "__main__":
    main()
