"""A GPU's times of the operations and of the joint training step: PyTorch against ratplus, same work, one run.

    python compare_gpu.py --ratplus ../../build/ratplus --json gpu.json

ratplus times itself first (`ratplus bench ops` and `ratplus bench step`), alone on the GPU; then PyTorch does the same
work in several forms (torch_gpu_rival.py), each checked against plain code before it counts; the fastest counts. What
fails is reported, and the rest goes on. --self-test checks the forms against ratplus_reference.py on the CPU.
"""

import argparse
import contextlib
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from argparse import Namespace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import torch_gpu_rival as rival

DEVICE = "cuda"
PEAK = 989e12  # operations a second of an H100 SXM: dense bfloat16, as its maker states it
END_OF_TEXT = 2
REPEATS = 20  # at least
PATTERNS = [rival.Pattern(1, 0, 0), rival.Pattern(64, 0, 0), rival.Pattern(16, 0, 4), rival.Pattern(16, 256, 4)]
REFERENCE_RATE = 17400  # tokens/s of the authors' code in this joint step of 1b, as measured elsewhere
BEGAN = time.perf_counter()


def parse_options():
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratplus", type=Path, help="the ratplus program; without it only PyTorch is timed")
    parser.add_argument("--part", default="ops,step", help="ops, step or both; default ops,step")
    parser.add_argument("--job", type=Path, default=root / "configs/pretrain/1b.toml", help="default: the 1b model")
    parser.add_argument("--batch", type=int, default=2, help="sequences of an operation and a micro-batch; default 2")
    parser.add_argument("--tokens", type=int, default=4096, help="a sequence; default 4096")
    parser.add_argument("--micro-batches", type=int, default=4, help="of a step; default 4")
    parser.add_argument("--loss-rows", type=int, default=1024, help="rows of the cross-entropy's chunk; default 1024")
    parser.add_argument("--steps", type=int, help="timed steps; default 5, with --quick 3")
    parser.add_argument("--compile", choices=["model", "blocks"],
                        help="one graph for the model, or one for all blocks; default model, with --quick blocks")
    parser.add_argument("--step-mode", default="default", help="mode of torch.compile for the step")
    parser.add_argument("--recurrence", choices=rival.RECURRENCES, help="of the step; default: the fastest")
    parser.add_argument("--sparse-attention", choices=rival.SPARSE_ATTENTIONS, help="likewise")
    parser.add_argument("--dense-attention", choices=DENSE_BACKENDS, help="likewise")
    parser.add_argument("--try-batch", type=int, help="then time PyTorch's step with this micro-batch, too")
    parser.add_argument("--profile", action="store_true", help="also list the longest kernels of PyTorch's step")
    parser.add_argument("--quick", action="store_true", help="one mode of torch.compile, fewer forms, under 5 minutes")
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument("--self-test", action="store_true", help="only check the forms, on the CPU")
    options = parser.parse_args()
    options.parts = options.part.split(",")
    if not set(options.parts) <= {"ops", "step"}:
        parser.error("--part is ops, step or ops,step")
    job = tomllib.loads(options.job.read_text())
    options.job_sequence_length = job["data"]["sequence_length"]
    options.layers, options.width, options.head_dim, options.vocab = (
        job["model"][key] for key in ("layers", "width", "head_dim", "vocab_size"))
    options.steps = options.steps or (3 if options.quick else 5)
    options.compile = options.compile or ("blocks" if options.quick else "model")
    return options


def say(text):
    print(f"[{time.perf_counter() - BEGAN:5.0f} s] {text}", file=sys.stderr, flush=True)


def brief(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # torch.compile says what happened in a line of its own.
    told = next((line for line in lines if line.startswith("Developer debug context")), "")
    return f"{type(error).__name__}: {lines[0] if lines else ''} {told}"[:400].strip()


# --- ratplus ----------------------------------------------------------------------------------------------------


def run_ratplus(options, arguments):
    """The JSON of `ratplus bench ...`, or {"error": ...}."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.json"
        command = [str(options.ratplus.resolve()), "bench", *map(str, arguments), "--json", str(path)]
        say(" ".join(command))
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=400)
            if run.returncode:
                raise RuntimeError(f"exit status {run.returncode}: {(run.stdout + run.stderr).strip()[-2000:]}")
            return json.loads(path.read_text())
        except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
            say(f"ratplus failed: {error}")
            return {"error": str(error)}


def time_ratplus(options):
    results = {}
    if "ops" in options.parts:
        sizes = {"batch": options.batch, "sequence-length": options.tokens, "width": options.width,
                 "head-dim": options.head_dim, "vocab": options.vocab}
        results["ops"] = run_ratplus(
            options, ["ops", "--device", "cuda", *(word for k, v in sizes.items() for word in (f"--{k}", v))])
    if "step" in options.parts:
        overrides = ["--set", f"data.micro_batch={options.batch}"]
        if options.tokens != options.job_sequence_length:
            overrides += ["--set", f"data.sequence_length={options.tokens}"]
        results["step"] = run_ratplus(options, ["step", options.job, "--device", "cuda", *overrides,
                                                "--micro-batches", options.micro_batches])
    return results


# --- PyTorch: timing a call -------------------------------------------------------------------------------------


def synchronize():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def time_calls(call, count):
    """Median seconds of call(i), i = 0 ... count - 1 in turn. The GPU first waits, so that no launch is late."""
    for i in range(max(3, count)):
        call(i % count)
    synchronize()
    began = time.perf_counter()
    for i in range(3):
        call(i % count)
    launched = (time.perf_counter() - began) / 3
    synchronize()
    whole = (time.perf_counter() - began) / 3
    chunk = 20
    wait = int(min(0.2, 1.5 * chunk * launched) * 2e9)  # cycles
    seconds = []
    while len(seconds) < max(REPEATS, min(200, 0.15 / whole)):
        if DEVICE != "cuda":
            began = time.perf_counter()
            call(len(seconds) % count)
            seconds.append(time.perf_counter() - began)
            continue
        events = [torch.cuda.Event(enable_timing=True) for _ in range(chunk + 1)]
        torch.cuda._sleep(wait)
        events[0].record()
        for i, event in enumerate(events[1:]):
            call((len(seconds) + i) % count)
            event.record()
        synchronize()
        seconds += [a.elapsed_time(b) * 1e-3 for a, b in zip(events, events[1:])]
    return statistics.median(seconds)


def normal(*shape, dtype=torch.bfloat16, std=1.0):
    return torch.randn(*shape, dtype=torch.float32, device=DEVICE).mul_(std).to(dtype)


def bytes_of(tensors):
    return sum(x.numel() * x.element_size() for x in tensors)


def difference(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


class Operation:
    """Something to time: its inputs, the gradients that come in, and the forms that compute it."""

    def __init__(self, inputs, gradients, forms, check=None):
        self.forms, self.check = forms, check
        self.inputs, self.gradients = inputs, gradients  # functions that make a fresh set

    def sets(self):
        """Enough sets of tensors that none waits in the L2 cache for its turn."""
        sets = []
        while not sets or len(sets) < 4 and bytes_of([x for a, g in sets for x in (*a, *g)]) < 200e6:
            leaves = [x.requires_grad_() if x.is_floating_point() else x for x in self.inputs()]
            sets.append((leaves, self.gradients()))
        return sets


class Form:
    """One way to compute an operation. compiled: in each of the modes; together: only forward and backward at once."""

    def __init__(self, function, compiled=True, backend=None, together=False):
        self.function, self.compiled, self.together = function, compiled, together
        self.context = (lambda: sdpa_kernel(backend)) if backend else contextlib.nullcontext


def time_form(operation, form, sets, mode):
    """(forward, backward) in seconds."""
    function = form.function
    if form.compiled:
        torch._dynamo.reset()
        function = torch.compile(function, fullgraph=True, dynamic=False, mode=None if mode == "default" else mode)

    def gradient(outputs, i):
        wanted = [x for x in sets[i][0] if x.requires_grad]
        return torch.autograd.grad(outputs, wanted, sets[i][1], retain_graph=True)

    def forward(i):
        outputs = function(*sets[i][0])
        return outputs if isinstance(outputs, tuple) else (outputs,)

    with form.context():
        if operation.check:
            outputs = forward(0)
            operation.check(sets[0][0], outputs, sets[0][1], gradient(outputs, 0))
            del outputs
        if form.together:
            return time_calls(lambda i: gradient(forward(i), i), len(sets)), 0.0
        seconds = time_calls(forward, len(sets))
        outputs = [forward(i) for i in range(len(sets))]
        return seconds, time_calls(lambda i: gradient(outputs[i], i), len(sets))


def time_operation(name, operation, modes):
    """Results of all forms, and which is the fastest; errors are kept and the rest goes on."""
    result = {"name": name, "forms": []}
    sets = operation.sets()
    for variant, form in operation.forms.items():
        for mode in modes if form.compiled else [""]:
            entry = {"form": variant + (f", {mode}" if len(modes) > 1 and mode else ""), "name": variant}
            try:
                entry["forward_seconds"], entry["backward_seconds"] = time_form(operation, form, sets, mode)
                say(f"{name}: {entry['form']}: forward {entry['forward_seconds'] * 1e3:.3f} ms, "
                    f"backward {entry['backward_seconds'] * 1e3:.3f} ms")
            except Exception as error:
                entry["error"] = brief(error)
                say(f"{name}: {entry['form']}: {entry['error']}")
            result["forms"].append(entry)
            free_memory()
    timed = [entry for entry in result["forms"] if "error" not in entry]
    if timed:
        result["best"] = min(timed, key=lambda entry: entry["forward_seconds"] + entry["backward_seconds"])
    return result


def free_memory():
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


# --- PyTorch: the operations ------------------------------------------------------------------------------------

DENSE_BACKENDS = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def check_close(what, got, expected, most=2e-2):
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        error = difference(a, b)
        if not error <= most:  # NaN, too
            raise ArithmeticError(f"wrong: {what} {i} is off by {error:.1e}")


def make_recurrence(options):
    """On [B, T, d] each: q, k, v and the gate's logits."""
    heads, rope = options.width // options.head_dim, rival.Rope(options.tokens, options.head_dim, DEVICE)

    def inputs():
        return [normal(options.batch, options.tokens, options.width) for _ in range(4)]

    def gradients():
        return [normal(options.batch, options.tokens, heads, options.head_dim) for _ in range(3)]

    def form(recurrence):
        return Form(lambda q, k, v, f: rival.gate_recurrence_rope(recurrence, rope, heads, q, k, v, f))

    def check(leaves, outputs, incoming, computed):
        """Against the loop over time, on one head of one sequence."""
        some = [x.detach()[:1, :, : options.head_dim].float().requires_grad_() for x in leaves]
        expected = rival.gate_recurrence_rope(rival.recurrence_loop, rope, 1, *some)
        check_close("output", [x[:1, :, :1] for x in outputs], expected)
        expected = torch.autograd.grad(expected, some, [x[:1, :, :1].float() for x in incoming])
        check_close("gradient", [x[:1, :, : options.head_dim] for x in computed], expected)

    forms = {name: form(f) for name, f in rival.RECURRENCES.items() if name != "loop"}
    return Operation(inputs, gradients, forms, check)


def make_attention(options, pattern):
    """On [B, T, H, P], as the model has it."""
    shape = (options.batch, options.tokens, options.width // options.head_dim, options.head_dim)

    def form(attention, **how):
        def function(q, k, v):
            return attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

        return Form(function, **how)

    def check(leaves, outputs, incoming, computed):
        """Against masked scores of T x T in float32, on one head of one sequence."""
        some = [x.detach()[:1, :, :1].float().requires_grad_() for x in leaves]
        q, k, v = (x[0, :, 0] for x in some)
        scores = (q @ k.T / math.sqrt(options.head_dim)).masked_fill(~pattern.mask(options.tokens, DEVICE), -math.inf)
        expected = scores.softmax(-1) @ v
        check_close("output", [x[0, :, 0] for x in outputs], [expected])
        expected = torch.autograd.grad(expected, some, incoming[0][0, :, 0].float())
        check_close("gradient", [x[:1, :, :1] for x in computed], expected)

    if pattern.dilation == 1:
        forms = {name: form(rival.attention_dense, compiled=False, backend=backend)
                 for name, backend in DENSE_BACKENDS.items()}
    else:
        forms = {}
        for name, make in rival.SPARSE_ATTENTIONS.items():
            if make is rival.make_gathered and pattern.window:
                continue
            forms[name] = form(make(pattern, options.tokens, DEVICE))
    return Operation(lambda: [normal(*shape) for _ in range(3)], lambda: [normal(*shape)], forms, check)


def make_norm(options):
    shape = (options.batch * options.tokens, options.width)

    def function(x, delta, weight):
        y = x + delta
        return y, F.rms_norm(y, y.shape[-1:], weight, 1e-6).to(delta.dtype)

    return Operation(
        lambda: [normal(*shape, dtype=torch.float32), normal(*shape), normal(options.width, dtype=torch.float32)],
        lambda: [normal(*shape, dtype=torch.float32), normal(*shape)], {"compiled": Form(function)})


def make_product(options):
    rows, d = options.batch * options.tokens, options.width
    forms = {"eager": Form(F.linear, compiled=False), "compiled": Form(lambda u, weight: F.linear(u, weight))}
    return Operation(lambda: [normal(rows, d), normal(5 * d, d, std=0.02)], lambda: [normal(rows, 5 * d)], forms)


def make_pointwise(options, columns, count, function):
    shape = (options.batch * options.tokens, columns)
    return Operation(lambda: [normal(*shape) for _ in range(count)], lambda: [normal(*shape)],
                     {"compiled": Form(function)})


def make_loss(options):
    rows = min(options.loss_rows, options.batch * options.tokens)

    def function(logits, labels):
        return F.cross_entropy(logits.float(), labels, reduction="sum") * 1e-3

    return Operation(
        lambda: [normal(rows, options.vocab), torch.randint(0, options.vocab, (rows,), device=DEVICE)],
        lambda: [torch.ones((), device=DEVICE)], {"compiled": Form(function, together=True)})


def time_adamw(options):
    """On one matrix [5d, d]; no gradients come in, so it is no Operation."""
    weight = normal(5 * options.width, options.width, dtype=torch.float32, std=0.02).requires_grad_()
    weight.grad = normal(*weight.shape, dtype=torch.float32)
    optimizer = torch.optim.AdamW([weight], lr=1e-6, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    entry = {"form": "fused", "name": "fused", "backward_seconds": 0.0}
    entry["forward_seconds"] = time_calls(lambda i: optimizer.step(), 1)
    say(f"AdamW: {entry['forward_seconds'] * 1e3:.3f} ms")
    return {"name": "AdamW", "forms": [entry], "best": entry}


def time_ops(options):
    torch._functorch.config.donated_buffer = False  # a backward pass is run many times on the same forward pass
    modes = ["default"] if options.quick else ["default", "max-autotune-no-cudagraphs"]
    d = options.width
    operations = {
        "residual + RMSNorm": make_norm,
        "product [N,d] x [d,5d]": make_product,
        "gate, recurrence, RoPE": make_recurrence,
        **{f"attention {pattern}": lambda options, pattern=pattern: make_attention(options, pattern)
           for pattern in PATTERNS},
        "output gate": lambda options: make_pointwise(options, d, 2, rival.output_gate),
        "GELU": lambda options: make_pointwise(options, 4 * d, 1, lambda h: F.gelu(h)),
        "cross-entropy and gradient": make_loss,
    }
    results = []
    for name, make in operations.items():
        results.append(attempt(name, lambda: time_operation(name, make(options), modes)))
        free_memory()
    results.append(attempt("AdamW", lambda: time_adamw(options)))
    free_memory()
    return results


def attempt(name, call):
    try:
        return call()
    except Exception as error:
        say(f"{name}: {brief(error)}")
        return {"name": name, "forms": [], "error": brief(error)}


# --- PyTorch: the step ------------------------------------------------------------------------------------------


def choose_forms(options, ops):
    """The fastest forms of the recurrence, the sparse and the dense attention; timed now where ops were not."""
    torch._functorch.config.donated_buffer = False
    wanted = {"recurrence": lambda: make_recurrence(options),
              "sparse_attention": lambda: make_attention(options, PATTERNS[1]),
              "dense_attention": lambda: make_attention(options, PATTERNS[0])}
    names = dict(zip(wanted, ["gate, recurrence, RoPE", "attention 64,0,0", "attention dense"]))
    defaults = {"recurrence": "associative scan, own operator", "sparse_attention": "products with gathered keys",
                "dense_attention": "flash"}
    chosen = {}
    for part, make in wanted.items():
        given = getattr(options, part)
        if given:
            chosen[part] = given
            continue
        result = next((result for result in ops if result["name"] == names[part]), None)
        result = result or attempt(names[part], lambda: time_operation(names[part], make(), ["default"]))
        chosen[part] = result["best"]["name"] if "best" in result else defaults[part]
    say("the step takes " + ", ".join(f"{part}: {name}" for part, name in chosen.items()))
    torch._functorch.config.donated_buffer = True
    torch._dynamo.reset()
    free_memory()
    return Namespace(**chosen)


def make_batch(options, micro_batch, n):
    generator = torch.Generator().manual_seed(n)
    tokens = torch.randint(0, options.vocab, (micro_batch * options.micro_batches, options.tokens + 1),
                           generator=generator)
    return rival.inputs_and_labels(tokens.to(DEVICE), END_OF_TEXT)


def check_step(options, trainer, inputs, labels):
    """The compiled losses of a micro-batch must be those of the same model, eager, with a loop over time."""
    counted = (labels >= 0).sum()
    attentions = [rival.make_masked(PATTERNS[1], options.tokens, DEVICE), rival.attention_dense]
    with torch.device(DEVICE):
        plain = rival.RatPlus(trainer.sizes, rival.RECURRENCES["loop"])
    plain.load_state_dict(trainer.model.state_dict())
    for half, attention in enumerate(attentions):
        # A whole forward and backward pass, as it will be timed.
        trainer.optimizer.zero_grad(set_to_none=True)
        loss = trainer.loss(inputs, labels, counted, half)
        loss.backward()
        any_backend = sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
        with torch.no_grad(), torch.autocast(DEVICE, dtype=torch.bfloat16), any_backend:
            expected = plain(inputs, labels, counted, attention, trainer.rope).item()
        say(f"step, loss {trainer.HALVES[half]}: {loss.item():.5f}; eager {expected:.5f}")
        if not abs(loss.item() - expected) <= 1e-3 * expected:
            raise ArithmeticError(f"wrong: the loss of the step is {loss.item()}, eager {expected}")
    trainer.optimizer.zero_grad(set_to_none=True)


def operations_a_token(options, parameters, pattern):
    """6 N, and of attention 12 d a layer and attended pair: 6 layers d T where dense, half of T^2 being pairs."""
    pairs = options.tokens / 2 if pattern.dilation == 1 else pattern.pairs(options.tokens) / options.tokens
    return 6 * parameters + 12 * options.layers * options.width * pairs


def time_step(options, forms, micro_batch):
    sizes = Namespace(layers=options.layers, width=options.width, head_dim=options.head_dim, vocab=options.vocab,
                      tokens=options.tokens, micro_batch=micro_batch)
    result = {"micro_batch": micro_batch, "micro_batches": options.micro_batches, "forms": vars(forms),
              "compiled": options.compile, "mode": options.step_mode}
    trainer = None
    try:
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer = rival.JointTrainer(sizes, forms.recurrence, forms.sparse_attention, DEVICE, options.compile,
                                     options.step_mode)
        backend = DENSE_BACKENDS[forms.dense_attention]
        inputs, labels = make_batch(options, micro_batch, 0)
        with sdpa_kernel(backend):
            say(f"step, {micro_batch} x {options.tokens}: compiling")
            if micro_batch == options.batch:
                check_step(options, trainer, inputs[:micro_batch], labels[:micro_batch])
                free_memory()
            for half in (0, 1):
                trainer.half(inputs, labels, half)
                synchronize()
                say(f"step, half {trainer.HALVES[half]}: has run")
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds, losses = [], []
            for n in range(-1, options.steps):  # one more to warm up
                inputs, labels = make_batch(options, micro_batch, n + 2)
                synchronize()
                times = [time.perf_counter()]
                for half in (0, 1):
                    loss = trainer.half(inputs, labels, half)
                    synchronize()
                    times.append(time.perf_counter())
                    losses.append(loss.item())
                if n >= 0:
                    seconds.append([b - a for a, b in zip(times, times[1:])])
            if options.profile and DEVICE == "cuda":
                result["kernels"] = longest_kernels(lambda: [trainer.half(inputs, labels, half) for half in (0, 1)])
        tokens = inputs.numel()
        result.update(parameters=trainer.parameters(), tokens=tokens, losses=losses, updates=[])
        for pattern, times in zip(trainer.HALVES, zip(*seconds)):
            half, operations = statistics.median(times), operations_a_token(options, trainer.parameters(), pattern)
            result["updates"].append({"pattern": str(pattern), "seconds": half, "tokens_per_second": tokens / half,
                                     "share_of_peak": operations * tokens / half / PEAK})
        result["step_seconds"] = statistics.median(map(sum, seconds))
        result["tokens_per_second"] = tokens / result["step_seconds"]
        if DEVICE == "cuda":
            result["memory_bytes"] = torch.cuda.max_memory_allocated()
        say(f"step, {micro_batch} x {options.tokens}: {result['tokens_per_second']:.0f} tokens/s")
    except torch.OutOfMemoryError as error:
        result["error"] = f"out of memory: {brief(error)}"
        say(f"step, {micro_batch} x {options.tokens}: {result['error']}")
    except Exception as error:
        result["error"] = brief(error)
        say(f"step, {micro_batch} x {options.tokens}: {result['error']}")
    del trainer
    torch._dynamo.reset()
    free_memory()
    return result


def longest_kernels(call):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        synchronize()
    rows = [{"kernel": event.key[:100], "seconds": event.self_device_time_total * 1e-6, "calls": event.count}
            for event in profile.key_averages() if event.self_device_time_total > 0]
    return sorted(rows, key=lambda row: -row["seconds"])[:25]


def time_steps(options, ops):
    forms = choose_forms(options, ops)
    result = time_step(options, forms, options.batch)
    safe = "associative scan, own operator"
    if "error" in result and not options.recurrence and forms.recurrence != safe:
        say(f"once more with the recurrence as {safe}")
        forms.recurrence = safe
        result = time_step(options, forms, options.batch)
    if options.try_batch:
        result["other_micro_batch"] = time_step(options, forms, options.try_batch)
    return result


# --- both -------------------------------------------------------------------------------------------------------


def same_name(name):
    """Names as ratplus and this script may spell them differently."""
    return "".join(character for character in name.lower() if character.isalnum()).replace("itsgradient", "gradient")


def show_ops(options, ratplus, pytorch):
    theirs = {same_name(row["name"]): row for row in (ratplus or {}).get("operations", [])}
    print(f"\noperations, bfloat16, {options.batch} x {options.tokens} tokens, width {options.width}, "
          f"{options.width // options.head_dim} heads; times in ms; cross-entropy on {options.loss_rows} rows")
    print(f"{'':28} {'PyTorch':>19} {'ratplus':>19} {'floor':>7} {'PyTorch/ratplus':>15}  PyTorch's form")
    print(f"{'':28} {'forward':>9} {'backward':>9} {'forward':>9} {'backward':>9} {'':7} {'both':>15}")
    ratios = {}

    def pair(row):
        keys = ("forward_seconds", "backward_seconds")
        return "".join(f" {row[key] * 1e3:9.3f}" for key in keys) if row else 20 * " "

    for result in pytorch:
        best, mine = result.get("best"), theirs.get(same_name(result["name"]))
        ratio = ""
        if best and mine:
            both = [row["forward_seconds"] + row["backward_seconds"] for row in (best, mine)]
            ratios[result["name"]] = both[0] / both[1]
            ratio = f"{both[0] / both[1]:.2f}"
        floor = f"{mine['floor_seconds'] * 1e3:.3f}" if mine else ""
        form = best["form"] if best else result.get("error") or "all forms failed"
        print(f"{result['name']:28}{pair(best)}{pair(mine)} {floor:>7} {ratio:>15}  {form}")
    unmatched = set(theirs) - {same_name(result["name"]) for result in pytorch}
    if unmatched:
        print("of ratplus alone:", ", ".join(theirs[name]["name"] for name in sorted(unmatched)))
    return ratios


def show_step(options, ratplus, pytorch):
    sides = {"PyTorch": pytorch, "ratplus": ratplus}
    sides = {name: side for name, side in sides.items() if side and "error" not in side}
    if not sides:
        return {}
    print(f"\njoint step, {options.job.name}: {options.layers} layers, width {options.width}, "
          f"{options.micro_batches} micro-batches of {options.batch} x {options.tokens}")
    print(f"{'':28}" + "".join(f" {name:>12}" for name in sides) + (f" {'ratio':>8}" if len(sides) == 2 else ""))
    ratios = {}

    def row(name, values, form, ratio=True):
        line = f"{name:28}" + "".join(f" {form.format(value):>12}" for value in values)
        if ratio and len(values) == 2:
            ratios[name] = values[1] / values[0]
            line += f" {ratios[name]:8.2f}"
        print(line)

    halves = list(rival.JointTrainer.HALVES)
    row("tokens/s", [side["tokens_per_second"] for side in sides.values()], "{:.0f}")
    row("step, s", [side["step_seconds"] for side in sides.values()], "{:.3f}", ratio=False)
    for i, pattern in enumerate(halves):
        rates = [side["updates"][i]["tokens_per_second"] for side in sides.values()]
        row(f"update {pattern}, tokens/s", rates, "{:.0f}")
        # Counted here for both sides, by the same formula.
        counts = [operations_a_token(options, side["parameters"], pattern) for side in sides.values()]
        shares = [100 * a * b / PEAK for a, b in zip(rates, counts)]
        row(f"update {pattern}, of 989 T/s", shares, "{:.1f} %", ratio=False)
    row("memory, GB", [side.get("memory_bytes", 0) / 1e9 for side in sides.values()], "{:.1f}", ratio=False)
    if "PyTorch" in sides:
        forms = ", ".join(f"{part.replace('_', ' ')}: {name}" for part, name in pytorch["forms"].items())
        print(f"PyTorch's forms: {forms}; compiled by {pytorch['compiled']}")
    print(f"(The authors' code reached {REFERENCE_RATE} tokens/s with the 1b model, measured elsewhere.)")
    for kernel in (pytorch or {}).get("kernels", []):
        print(f"  {kernel['seconds'] * 1e3:9.1f} ms {kernel['calls']:6} calls  {kernel['kernel']}")
    return ratios


def self_test():
    """Every form's joint step on the CPU, eager and in float32, must be the reference's: both losses, all weights."""
    import ratplus_reference as ref

    sizes = Namespace(layers=2, width=32, head_dim=16, vocab=40, tokens=128, micro_batch=1)
    tokens = torch.randint(0, sizes.vocab, (2, sizes.tokens + 1), generator=torch.Generator().manual_seed(1))
    inputs, labels = rival.inputs_and_labels(tokens, END_OF_TEXT)
    config = ref.Config(sizes.layers, sizes.width, sizes.head_dim, sizes.vocab, end_of_text=END_OF_TEXT)
    # The scan as an operator of its own is compiled, which needs a GPU.
    cases = [(name, "products with gathered keys") for name in rival.RECURRENCES if "own" not in name]
    cases += [("loop", "FlexAttention"), ("loop", "FlexAttention, gathered keys")]
    for recurrence, attention in cases:
        flex = "Flex" in attention  # has no gradient on a CPU: only the first loss
        trainer = rival.JointTrainer(sizes, recurrence, attention, "cpu", compiled="", autocast=False)
        theirs = {}
        for name in ref.parameter_shapes(config):
            words = name.split(".")
            path = "embedding.weight" if words[0] == "embedding" else "ln.weight"
            if words[1] == "layers":
                path = f"blocks.{words[2]}.{words[4]}.weight"
            theirs[name] = trainer.model.get_parameter(path)
        weights = {name: weight.detach().double().requires_grad_() for name, weight in theirs.items()}
        optimizer = ref.AdamW(ref.Training(steps=1, peak_lr=8e-4, warmup=0.0), weights)
        plans = [ref.parse_plan("64,0,0"), ref.parse_plan("dense")]
        _, updates = ref.train_step(config, optimizer, tokens, plans, 0)
        if flex:
            with torch.no_grad():
                losses = [trainer.loss(inputs, labels, (labels >= 0).sum(), 0).item()]
            error = 0
        else:
            losses = [trainer.half(inputs, labels, half).item() for half in (0, 1)]
            error = max(difference(theirs[name], weights[name]) for name in weights)
        off = max(abs(loss / expected - 1) for loss, (expected, _) in zip(losses, updates))
        print(f"{recurrence}; {attention}: losses off by {off:.1e}, weights by {error:.1e}")
        if off > 1e-5 or error > 1e-5:
            sys.exit("the PyTorch rival is wrong")


def main():
    options = parse_options()
    if options.self_test:
        return self_test()
    results = {"command": sys.argv[1:], "ratplus": time_ratplus(options) if options.ratplus else {}, "pytorch": {}}
    if DEVICE == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA device")
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    # A form that quietly fell back to eager mode would not be a compiled one.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    results["machine"] = {"device": torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE, "torch": torch.__version__,
                          "cuda": torch.version.cuda, "threads": os.cpu_count()}
    results["ratios"] = {}
    print(", ".join(f"{name}: {value}" for name, value in results["machine"].items()), flush=True)

    def save():
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))

    ops = []
    if "ops" in options.parts:
        ops = results["pytorch"]["ops"] = time_ops(options)
        results["ratios"]["ops"] = show_ops(options, results["ratplus"].get("ops"), ops)
        save()
    if "step" in options.parts:
        step = results["pytorch"]["step"] = time_steps(options, ops)
        results["ratios"]["step"] = show_step(options, results["ratplus"].get("step"), step)
        if "error" in step:
            print(f"PyTorch's step failed: {step['error']}")
        if "other_micro_batch" in step:
            other = step["other_micro_batch"]
            rate = other.get("error") or f"{other['tokens_per_second']:.0f} tokens/s"
            print(f"PyTorch with micro-batches of {options.try_batch}: {rate}")
    for part, result in results["ratplus"].items():
        if "error" in result:
            print(f"ratplus bench {part} failed: {result['error']}")
    results["seconds"] = time.perf_counter() - BEGAN
    save()
    say("done")


if __name__ == "__main__":
    main()
