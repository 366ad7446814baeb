"""Training steps of the RAT family on a GPU: PyTorch against ratplus, same work, one run.

    python compare_family.py --ratplus ../../build/ratplus --json family.json

`ratplus bench step` runs first, alone on the GPU, for each job of configs/pretrain; then PyTorch takes the same steps
(torch_family_rival.py): bfloat16 autocast over float32 weights, compiled blocks, fused AdamW. The recurrence and the
attention of a model are timed by themselves in several forms first, each checked against plain code, outputs and
gradients; the step takes the fastest. What fails is reported, and the rest goes on. Where PyTorch has no memory for a
micro-batch it takes half of it, twice as often. --self-test checks all forms against make_rat_family.py on the CPU.
"""

import argparse
import json
import math
import statistics
import sys
import time
import tomllib
from argparse import Namespace
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import compare_gpu as gpu
import torch_family_rival as family
import torch_gpu_rival as rival
from compare_gpu import say

JOBS = Path(__file__).resolve().parents[2] / "configs/pretrain"


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratplus", type=Path, help="the ratplus program; without it only PyTorch is timed")
    parser.add_argument("--models", nargs="+", default=["rat-xl", "rnn-xl", "attention-xl"], help="jobs of configs/pretrain")
    parser.add_argument("--micro-batch", type=int, default=4, help="sequences; default 4")
    parser.add_argument("--micro-batches", type=int, default=4, help="of a step; default 4")
    parser.add_argument("--steps", type=int, default=3, help="timed steps; default 3")
    parser.add_argument("--form-seconds", type=int, default=170,
                        help="after so many seconds of the run no further form is tried where one is right; default 170")
    parser.add_argument("--profile", action="store_true", help="also list the longest kernels of PyTorch's steps")
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument("--self-test", action="store_true", help="only check the forms, on the CPU")
    return parser.parse_args()


def read_sizes(model):
    job = tomllib.loads((JOBS / f"{model}.toml").read_text())
    mixer = job["model"]["mixer"]
    mixer = {"kind": mixer} if isinstance(mixer, str) else mixer
    return family.Sizes(mixer["kind"], *(job["model"][key] for key in ("layers", "width", "head_dim", "vocab_size")),
                        job["data"]["sequence_length"], mixer.get("chunk", 0), mixer.get("groups", 0))


# --- the forms of a model's parts -------------------------------------------------------------------------------


def recurrence_operation(sizes, batch, form):
    """On the rows f, v and, of RAT, k [B, T, G P], which heads share; bias as at the start of a training."""
    d, shared = sizes.width, sizes.groups * sizes.head_dim
    short = sizes.kind == "rat"
    chunk = sizes.chunk if short else sizes.tokens

    def inputs():
        bias = torch.empty(d, device=gpu.DEVICE).uniform_(1, chunk - 1).log_()
        rows = [gpu.normal(batch, sizes.tokens, width) for width in ([shared, d] if short else [d])]
        return [gpu.normal(batch, sizes.tokens, d), bias, *rows]

    def gradients():
        return [gpu.normal(batch, sizes.tokens, d) for _ in range(2 if short else 1)]

    def check(leaves, outputs, incoming, computed):
        some = [x.detach().float().requires_grad_() if x.dim() == 1 else x.detach()[:1].float().requires_grad_() for x in leaves]
        expected = family.recurrence_loop(chunk, *some)
        gpu.check_close("state", [x[:1] for x in outputs], expected)
        expected = torch.autograd.grad(expected, some, [x[:1].float() for x in incoming])
        # The bias' gradient sums over all sequences, of which the check has one.
        got, wanted = zip(*((a[:1], b) for a, b in zip(computed, expected) if a.dim() > 1))
        gpu.check_close("gradient", got, wanted)

    return gpu.Operation(inputs, gradients, {"": gpu.Form(lambda *rows: form(chunk, *rows))}, check)


def attention_operation(sizes, batch, form, compiled=True, backend=None):
    """On q, k, v [B, T, H, P]; of RAT q [B, T, G, P]."""
    heads = sizes.width // sizes.head_dim
    groups = sizes.groups if sizes.kind == "rat" else heads
    pattern = rival.Pattern(sizes.chunk, 0, 0) if sizes.kind == "rat" else rival.Pattern(1, 0, 0)

    def function(q, k, v):
        q = q.repeat(1, 1, heads // groups, 1)
        return form(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    def inputs():
        return [gpu.normal(batch, sizes.tokens, count, sizes.head_dim) for count in (groups, heads, heads)]

    def check(leaves, outputs, incoming, computed):
        """Against masked scores of T x T in float32: the heads of the first group of one sequence."""
        q, k, v = (x.detach()[0, :, :: groups if i else groups].float().requires_grad_() for i, x in enumerate(leaves))
        some = [q[:, :1].detach().requires_grad_(), k.detach().requires_grad_(), v.detach().requires_grad_()]
        scores = torch.einsum("tgp,shp->hts", some[0], some[1]) / math.sqrt(sizes.head_dim)
        weights = scores.masked_fill(~pattern.mask(sizes.tokens, gpu.DEVICE), -math.inf).softmax(-1)
        expected = torch.einsum("hts,shp->thp", weights, some[2])
        gpu.check_close("output", [outputs[0][0, :, ::groups]], [expected])
        expected = torch.autograd.grad(expected, some, incoming[0][0, :, ::groups].float())
        got = [computed[0][0, :, :1], computed[1][0, :, ::groups], computed[2][0, :, ::groups]]
        gpu.check_close("gradient", got, expected)

    return gpu.Operation(inputs, lambda: [gpu.normal(batch, sizes.tokens, heads, sizes.head_dim)],
                         {"": gpu.Form(function, compiled=compiled, backend=backend)}, check)


def fastest(options, name, forms, make):
    """The name of the fastest form that is right, and the results of all that were tried."""
    results = []
    for form in forms:
        if time.perf_counter() - gpu.BEGAN > options.form_seconds and any("seconds" in result for result in results):
            say(f"{name}: {form}: left out, no time")
            continue
        result = gpu.attempt(f"{name}: {form}", lambda: gpu.time_operation(f"{name}: {form}", make(form), ["default"]))
        entry = {"form": form}
        if "best" in result:
            entry["seconds"] = result["best"]["forward_seconds"] + result["best"]["backward_seconds"]
        else:
            entry["error"] = result.get("error") or result["forms"][0]["error"]
        results.append(entry)
        torch._dynamo.reset()
        gpu.free_memory()
    right = [result for result in results if "seconds" in result]
    return (min(right, key=lambda result: result["seconds"])["form"] if right else None), results


def attention_forms(sizes):
    """Makers of the attention by name, with its compiling and its backend in a check by itself."""
    if sizes.kind == "attention":
        return {name: (lambda device: rival.attention_dense, backend) for name, backend in gpu.DENSE_BACKENDS.items()}
    pattern = rival.Pattern(sizes.chunk, 0, 0)
    return {name: (lambda device, make=make: make(pattern, sizes.tokens, device), None)
            for name, make in family.ATTENTIONS.items()}


def choose_parts(options, sizes, batch):
    """The parts of the step, their names, and the backend of its attention; throws where no form is right."""
    torch._functorch.config.donated_buffer = False  # a backward pass is run many times on the same forward pass
    tried, chosen = {}, {}
    recurrence, attention, backend = None, None, None
    if sizes.kind != "attention":
        forms = family.SHORT if sizes.kind == "rat" else family.LONG
        chosen["recurrence"], tried["recurrence"] = fastest(
            options, f"{sizes.kind}, recurrence", forms, lambda form: recurrence_operation(sizes, batch, forms[form]))
        recurrence = forms.get(chosen["recurrence"])
    if sizes.kind != "rnn":
        makers = attention_forms(sizes)

        def make(form):
            maker, backend = makers[form]
            return attention_operation(sizes, batch, maker(gpu.DEVICE), sizes.kind == "rat", backend)

        chosen["attention"], tried["attention"] = fastest(options, f"{sizes.kind}, attention", makers, make)
        if chosen["attention"]:
            maker, backend = makers[chosen["attention"]]
            attention = maker(gpu.DEVICE)
    torch._functorch.config.donated_buffer = True
    missing = [part for part, form in chosen.items() if form is None]
    if missing:
        errors = "; ".join(f"{entry['form']}: {entry['error']}" for part in missing for entry in tried[part])
        raise RuntimeError(f"no form of its {' and '.join(missing)} is right: {errors}")
    return family.Parts(sizes, recurrence, attention, gpu.DEVICE), chosen, tried, backend


# --- the step ---------------------------------------------------------------------------------------------------


def plain_parts(sizes, device):
    pattern = rival.Pattern(sizes.chunk, 0, 0) if sizes.kind == "rat" else rival.Pattern(1, 0, 0)
    attention = rival.attention_dense if sizes.kind == "attention" else rival.make_masked(pattern, sizes.tokens, device)
    return family.Parts(sizes, family.recurrence_loop, attention, device)


def check_step(sizes, trainer, inputs, labels):
    """The compiled loss of a micro-batch must be that of the same model, eager, by plain parts."""
    counted = (labels >= 0).sum()
    trainer.optimizer.zero_grad(set_to_none=True)
    loss = trainer.loss(inputs, labels, counted)  # a whole forward and backward pass, as it will be timed
    loss.backward()
    trainer.optimizer.zero_grad(set_to_none=True)
    with torch.device(gpu.DEVICE):
        plain = family.Family(sizes)
    plain.load_state_dict(trainer.model.state_dict())
    parts = plain_parts(sizes, gpu.DEVICE)
    expected = 0.0
    any_backend = sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    with torch.no_grad(), torch.autocast(gpu.DEVICE, dtype=torch.bfloat16), any_backend:
        for i, l in zip(inputs.split(1), labels.split(1)):
            expected += plain(i, l, counted, parts).item()
    say(f"loss {loss.item():.5f}; eager, by plain parts, {expected:.5f}")
    if not abs(loss.item() - expected) <= 1e-3 * expected:
        raise ArithmeticError(f"wrong: the loss is {loss.item()}, eager {expected}")


def make_batch(options, sizes, n):
    generator = torch.Generator().manual_seed(n)
    shape = (options.micro_batch * options.micro_batches, sizes.tokens + 1)
    tokens = torch.randint(0, sizes.vocab, shape, generator=generator)
    return rival.inputs_and_labels(tokens.to(gpu.DEVICE), gpu.END_OF_TEXT)


def time_model(options, name, sizes, parts, backend, micro_batch):
    torch._dynamo.reset()
    gpu.free_memory()
    if gpu.DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer = family.Trainer(sizes, parts, gpu.DEVICE)
    inputs, labels = make_batch(options, sizes, 0)
    attention = sdpa_kernel(backend) if backend else sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
    result = {"micro_batch": micro_batch, "parameters": trainer.parameters(), "tokens": inputs.numel()}
    with attention:
        say(f"{name}, {micro_batch} x {sizes.tokens}: compiling")
        check_step(sizes, trainer, inputs[:micro_batch], labels[:micro_batch])
        gpu.free_memory()
        if gpu.DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds, losses = [], []
        for n in range(-1, options.steps):  # one more to warm up
            inputs, labels = make_batch(options, sizes, n + 2)
            gpu.synchronize()
            began = time.perf_counter()
            loss = trainer.step(inputs, labels, micro_batch)
            gpu.synchronize()
            if n >= 0:
                seconds.append(time.perf_counter() - began)
            losses.append(loss.item())
        if options.profile and gpu.DEVICE == "cuda":
            result["kernels"] = gpu.longest_kernels(lambda: trainer.step(inputs, labels, micro_batch))
    result.update(losses=losses, step_seconds=statistics.median(seconds))
    result["tokens_per_second"] = result["tokens"] / result["step_seconds"]
    if gpu.DEVICE == "cuda":
        result["memory_bytes"] = torch.cuda.max_memory_allocated()
    return result


def time_pytorch(options, name):
    """The result of a model, or {"error": ...}."""
    result = {}
    try:
        sizes = read_sizes(name)
        parts, result["forms"], result["tried"], backend = choose_parts(options, sizes, options.micro_batch)
        say(f"{name} takes " + ", ".join(f"{part}: {form}" for part, form in result["forms"].items()))
        micro_batch = options.micro_batch
        while True:
            try:
                result.update(time_model(options, name, sizes, parts, backend, micro_batch))
                break
            except torch.OutOfMemoryError:
                say(f"{name}: out of memory with micro-batches of {micro_batch}")
                result.setdefault("out_of_memory", []).append(micro_batch)
                if micro_batch == 1:
                    raise
            # Here the exception, which holds the tensors of the call, is gone.
            micro_batch //= 2
            gpu.free_memory()
    except Exception as error:
        result["error"] = gpu.brief(error)
        say(f"{name}: {result['error']}")
    torch._dynamo.reset()
    gpu.free_memory()
    return result


# --- both -------------------------------------------------------------------------------------------------------


def time_ratplus(options, name):
    return gpu.run_ratplus(options, ["step", JOBS / f"{name}.toml", "--device", "cuda", "--set",
                                     f"data.micro_batch={options.micro_batch}", "--micro-batches", options.micro_batches])


def show(results):
    print(f"\ntraining steps, tokens/s\n{'':14} {'PyTorch':>9} {'ratplus':>9} {'ratplus/PyTorch':>16} {'GB':>6} {'GB':>6}  "
          "PyTorch's forms")
    for name in results["models"]:
        mine, theirs = results["ratplus"].get(name, {}), results["pytorch"].get(name, {})
        rates = [side.get("tokens_per_second") for side in (theirs, mine)]
        memory = [side.get("memory_bytes", 0) / 1e9 for side in (theirs, mine)]
        cells = [f"{rate:9.0f}" if rate else f"{'failed':>9}" for rate in rates]
        ratio = results["ratios"].get(name)
        forms = ", ".join(f"{part}: {form}" for part, form in theirs.get("forms", {}).items())
        if "out_of_memory" in theirs:
            forms += f"; micro-batch {theirs.get('micro_batch')}, out of memory with {theirs['out_of_memory']}"
        print(f"{name:14} {cells[0]} {cells[1]} {f'{ratio:.2f}' if ratio else '':>16} {memory[0]:6.1f} {memory[1]:6.1f}  {forms}")
        for side, result in (("PyTorch", theirs), ("ratplus", mine)):
            if "error" in result:
                print(f"  {side} failed: {result['error']}")
        for kernel in theirs.get("kernels", []):
            print(f"  {kernel['seconds'] * 1e3:9.1f} ms {kernel['calls']:6} calls  {kernel['kernel']}")
    sys.stdout.flush()


def self_test():
    """Every form's loss and gradients on the CPU, eager and in float32, must be those of make_rat_family.py."""
    import make_rat_family as reference
    import numpy as np
    import ratplus_reference as ref

    cases = [("rat", form, "products with gathered keys") for form in family.SHORT if "own" not in form]
    cases += [("rat", "loop", attention) for attention in family.ATTENTIONS]
    cases += [("rnn", form, None) for form in family.LONG if "own" not in form]
    cases += [("rnn", "loop", None), ("attention", None, "dense")]
    for kind, recurrence, attention in cases:
        chunk, groups = (16, 2) if kind == "rat" else (0, 0)
        sizes = family.Sizes(kind, layers=2, width=64, head_dim=16, vocab=40, tokens=128, chunk=chunk, groups=groups)
        config = reference.Config(mixers=(reference.Mixer(kind, chunk, groups),), layers=2, width=64, head_dim=16,
                                  vocab_size=40, end_of_text=gpu.END_OF_TEXT)
        arrays = reference.Pool(np.random.default_rng(1)).weights(config)
        tokens = torch.randint(0, sizes.vocab, (2, sizes.tokens + 1), generator=torch.Generator().manual_seed(1))
        loss, gradients, _ = reference.loss_and_gradients(config, reference.tensors_of(arrays), tokens, ref.parse_plan("dense"))
        forms = {"loop": family.recurrence_loop, **(family.SHORT if kind == "rat" else family.LONG)}
        flex = attention is not None and "Flex" in attention  # has no gradient on a CPU: only the loss
        if attention == "dense":
            made = rival.attention_dense
        elif attention:
            made = family.ATTENTIONS[attention](rival.Pattern(chunk, 0, 0), sizes.tokens, "cpu")
        else:
            made = None
        trainer = family.Trainer(sizes, family.Parts(sizes, forms.get(recurrence), made, "cpu"), "cpu", compiled=False,
                                 autocast=False)
        theirs = {}
        for name in arrays:
            words = name.split(".")
            path = "embedding.weight" if words[0] == "embedding" else "ln.weight"
            if words[1] == "layers":
                path = f"blocks.{words[2]}.{words[4]}" + ("" if words[4] == "gate_bias" else ".weight")
            theirs[name] = trainer.model.get_parameter(path)
            with torch.no_grad():
                theirs[name].copy_(torch.from_numpy(arrays[name]))
        inputs, labels = rival.inputs_and_labels(tokens, gpu.END_OF_TEXT)
        counted = (labels >= 0).sum()
        with torch.set_grad_enabled(not flex):
            mine = trainer.loss(inputs, labels, counted)
        off, error = abs(mine.item() / loss.item() - 1), 0.0
        if not flex:
            mine.backward()
            error = max(gpu.difference(theirs[name].grad, gradients[name]) for name in theirs)
        form = "; ".join(part for part in (recurrence, attention) if part)
        print(f"{kind}: {form}: loss off by {off:.1e}" + ("" if flex else f", gradients by {error:.1e}"))
        if not (off <= 1e-5 and error <= 1e-5):
            sys.exit("the PyTorch rival is wrong")


def main():
    options = parse_options()
    if options.self_test:
        return self_test()
    results = {"command": sys.argv[1:], "models": options.models, "ratplus": {}, "pytorch": {}, "ratios": {}}

    def save():
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))

    for name in options.models if options.ratplus else []:
        results["ratplus"][name] = time_ratplus(options, name)
        rate = results["ratplus"][name].get("tokens_per_second")
        print(f"ratplus, {name}: " + (f"{rate:.0f} tokens/s" if rate else "failed"), flush=True)
        save()
    if gpu.DEVICE == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA device")
    torch.set_float32_matmul_precision("high")
    # A form that quietly fell back to eager mode would not be a compiled one.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    device = torch.cuda.get_device_name() if gpu.DEVICE == "cuda" else gpu.DEVICE
    results["machine"] = {"device": device, "torch": torch.__version__, "cuda": torch.version.cuda}
    print(", ".join(f"{name}: {value}" for name, value in results["machine"].items()), flush=True)
    for name in options.models:
        theirs = results["pytorch"][name] = time_pytorch(options, name)
        mine = results["ratplus"].get(name, {})
        if "tokens_per_second" in theirs:
            say(f"{name}: {theirs['tokens_per_second']:.0f} tokens/s")
            if "tokens_per_second" in mine:
                results["ratios"][name] = mine["tokens_per_second"] / theirs["tokens_per_second"]
        save()
        show(results)
    results["seconds"] = time.perf_counter() - gpu.BEGAN
    save()
    say("done")


if __name__ == "__main__":
    main()
