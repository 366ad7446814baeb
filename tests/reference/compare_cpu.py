"""Tokens per second of the joint training step on CPUs: PyTorch against ratplus, same model, same batch, one run.

    python compare_cpu.py --ratplus ../../build/ratplus --threads 2
    python compare_cpu.py --ratplus before=/tmp/before/build/ratplus --ratplus now=../../build/ratplus --alone --rounds 8

Both sides do the joint step in float32: an update with dilation 64, then one with dense attention, on the same batch,
each with clipping and AdamW. PyTorch runs in several forms (torch_rival.py), eager and compiled; its fastest counts.
Every contender runs in each of the rounds, in turn, so that a busy moment of the machine does not hit only one of
them; the best round's median step counts. Several programs, each with a name, are compared with the first of them, too: by
the best and the median of the rounds, and by seconds on processors of whole runs, which other work on the machine hardly
changes. Without --ratplus only PyTorch is timed, with --alone only ratplus.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import h5py
import numpy as np
import torch

import ratplus_reference as ref
import torch_rival as rival

END_OF_TEXT = 2
DILATION = 64
# Scan, attention of the sparse half, compiled. Further forms (masked or log_depth, compiled) never came near.
CONTENDERS = {
    "eager, loop": ("loop", "gathered", False),
    "eager, blocked": ("blocked", "gathered", False),
    "eager, loop, masked": ("loop", "masked", False),
    "compiled, loop": ("loop", "gathered", True),
    "compiled, associative": ("associative", "gathered", True),
}


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratplus", action="append", default=[], metavar="[NAME=]PROGRAM", help="a ratplus program; repeatable")
    parser.add_argument("--alone", action="store_true", help="leave PyTorch out")
    for name, value in dict(layers=4, width=256, head_dim=64, vocab=4096, sequence_length=512, batch=16, micro_batch=4).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value, help=f"default {value}")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side; default: all")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a round; default 5")
    parser.add_argument("--rounds", type=int, default=2, help="default 2")
    parser.add_argument("--only", default="", help="PyTorch contenders whose name contains this, e.g. eager")
    parser.add_argument("--split", action="store_true", help="also show where PyTorch's time goes")
    options = parser.parse_args()
    if options.batch % options.micro_batch or options.width % options.head_dim or options.sequence_length % 64:
        parser.error("micro-batch must divide batch, head-dim divide width, and 64 divide sequence-length")
    options.dilation = DILATION
    named = [text.rpartition("=") for text in options.ratplus]
    options.ratplus = {name or "ratplus": Path(program).resolve() for name, _, program in named}
    if len(options.ratplus) < len(named):
        parser.error("--ratplus: several programs need names: --ratplus before=A --ratplus now=B")
    if options.alone and not options.ratplus:
        parser.error("--alone needs --ratplus")
    return options


def make_tokens(options, steps):
    """One stream of random tokens: what `steps` ordered batches read. Documents of about 400 tokens."""
    rng = np.random.default_rng(1)
    stream = rng.integers(0, options.vocab, steps * options.batch * options.sequence_length + 1, dtype=np.int32)
    stream[rng.random(len(stream)) < 1 / 400] = END_OF_TEXT
    stream[-1] = END_OF_TEXT
    return stream


def batch_of(stream, options, n):
    tokens = options.batch * options.sequence_length
    sequences = [stream[at : at + options.sequence_length + 1] for at in range(n * tokens, (n + 1) * tokens, options.sequence_length)]
    return torch.from_numpy(np.stack(sequences).astype(np.int64))


# --- PyTorch ----------------------------------------------------------------------------------------------------


def verify_rival(scan, sparse_attention):
    """The rival's joint step must be the reference's: both losses, the second after an update."""
    sizes = Namespace(layers=2, width=32, head_dim=16, vocab=40, sequence_length=128, micro_batch=1, dilation=DILATION)
    tokens = torch.randint(0, sizes.vocab, (2, sizes.sequence_length + 1), generator=torch.Generator().manual_seed(1))
    trainer = rival.JointTrainer(sizes, scan, sparse_attention)
    config = ref.Config(sizes.layers, sizes.width, sizes.head_dim, sizes.vocab, end_of_text=END_OF_TEXT)
    # Both models list their parameters in the same order, but for the order within a block.
    order = ["input_norm", "in_proj", "out_proj", "ln", "fc1", "fc2"]
    theirs = {"embedding.wte.weight": trainer.model.embedding.weight}
    for i, block in enumerate(trainer.model.blocks):
        for name in order:
            layer = "seq_layer" if order.index(name) < 3 else "hidden_layer"
            theirs[f"backbone.layers.{i}.{layer}.{name}.weight"] = getattr(block, name).weight
    theirs["backbone.ln.weight"] = trainer.model.ln.weight
    weights = {name: theirs[name].detach().double().requires_grad_() for name in ref.parameter_shapes(config)}
    optimizer = ref.AdamW(ref.Training(steps=1, peak_lr=8e-4, warmup=0.0), weights)
    plans = [ref.parse_plan(f"{DILATION},0,0"), ref.parse_plan("dense")]
    _, updates = ref.train_step(config, optimizer, tokens, plans, 0)
    for loss, (expected, _) in zip(trainer.step(tokens, END_OF_TEXT), updates):
        if abs(loss - expected) > 1e-5 * expected:
            sys.exit(f"the PyTorch rival ({scan}, {sparse_attention}) is wrong: loss {loss}, reference {expected}")


def prepare_rivals(options, stream):
    """Trainers by name, each verified and, with two steps, compiled and warm."""
    torch.set_num_threads(options.threads)
    # A contender that quietly fell back to eager mode would not be a compiled one.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    trainers = {}
    for name, (scan, sparse_attention, compiled) in CONTENDERS.items():
        if options.alone or options.only not in name:
            continue
        start = time.perf_counter()
        verify_rival(scan, sparse_attention)
        trainers[name] = rival.JointTrainer(options, scan, sparse_attention, compiled)
        for n in range(2):
            trainers[name].step(batch_of(stream, options, n), END_OF_TEXT)
        print(f"PyTorch, {name}: ready after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return trainers


def time_rival(trainer, options, stream):
    """Tokens per second of the median step."""
    seconds = []
    for n in range(options.steps):
        batch = batch_of(stream, options, n)
        start = time.perf_counter()
        trainer.step(batch, END_OF_TEXT)
        seconds.append(time.perf_counter() - start)
    return options.batch * options.sequence_length / statistics.median(seconds)


# Parts of a PyTorch step by words in the names of its operators; the first that matches counts.
PARTS = {
    "recurrence": ["scan", "lerp", "addcmul", "cumprod"],
    "attention": ["scaled_dot_product", "bmm", "softmax_", "aten::_softmax", "aten::softmax"],
    "products": ["aten::mm", "addmm"],
    "loss": ["log_softmax", "nll_loss"],
    "optimizer": ["adamw", "foreach", "vector_norm"],
}


def show_split(trainer, options, stream):
    """Share of the operators' own time by part. Python and the dispatcher between operators are not in it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        trainer.step(batch_of(stream, options, 0), END_OF_TEXT)
    totals = dict.fromkeys([*PARTS, "rest (norms, RoPE, GELU, gates, copies)"], 0.0)
    for event in profile.key_averages():
        key = event.key.lower()
        part = next((part for part, words in PARTS.items() if any(word in key for word in words)), list(totals)[-1])
        totals[part] += event.self_cpu_time_total
    for part, microseconds in totals.items():
        print(f"  {part:42} {100 * microseconds / sum(totals.values()):5.1f} %")


# --- ratplus ----------------------------------------------------------------------------------------------------


def write_shard(path, tokens, vocab):
    """A token shard as data/README.md describes it."""
    ends = np.flatnonzero(tokens == END_OF_TEXT) + 1
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        stored = tokens.astype(np.uint16 if vocab <= 65536 else np.uint32)
        file.create_dataset("tokens", data=stored, chunks=(min(len(tokens), 65536),), fletcher32=True)
        file.create_dataset("document_offsets", data=np.concatenate([[0], ends]).astype(np.int64))
        counts = {"tokens": len(tokens), "documents": len(ends)}
        file.attrs.update({"version": 1, "vocab_size": vocab, "end_of_text": END_OF_TEXT, "tokenizer": "random"})
        file.attrs.update(counts)
    return {"file": path.name, **counts}


def write_dataset(directory, options, stream):
    directory.mkdir()
    held_out = stream[-options.sequence_length - 1 :]
    manifest = {
        "format": "ratplus dataset",
        "version": 1,
        "vocab_size": options.vocab,
        "end_of_text": END_OF_TEXT,
        "tokenizer": "random",
        "tokenizer_file": "",
        "source": "random tokens of tests/reference/compare_cpu.py",
        "train": [write_shard(directory / "train-0.h5", stream, options.vocab)],
        "validation": [write_shard(directory / "validation-0.h5", held_out, options.vocab)],
    }
    (directory / "dataset.json").write_text(json.dumps(manifest, indent=2))


def job_file(options, directory):
    return f"""
[job]
kind = "pretrain"
recipe = "joint"
directory = "{directory / 'run'}"
threads = {options.threads}
pattern = "dense"
joint_pattern = "{DILATION},0,0"

[model]
layers = {options.layers}
width = {options.width}
head_dim = {options.head_dim}
vocab_size = {options.vocab}

[data]
directory = "{directory / 'data'}"
sequence_length = {options.sequence_length}
batch = {options.batch}
micro_batch = {options.micro_batch}

[schedule]
steps = {options.steps + 2}
warmup = 0.0

[log]
every = 1
validation_sequences = 1
"""


def children_seconds():
    """Of finished children on processors, over all threads."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def time_ratplus(program, options, stream):
    """Tokens per second of the median step, from the run's metrics, whose first two steps warm up; the run's seconds on processors;
    and its losses."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_dataset(directory / "data", options, stream)
        job = directory / "job.toml"
        job.write_text(job_file(options, directory))
        before = children_seconds()
        run = subprocess.run([program, "train", job], capture_output=True, text=True)
        if "unknown key data.sequence_length" in run.stderr:  # a program of before that key's name
            job.write_text(job.read_text().replace("sequence_length =", "window ="))
            before = children_seconds()
            run = subprocess.run([program, "train", job], capture_output=True, text=True)
        on_processors = children_seconds() - before
        if run.returncode:
            sys.exit(f"{program} train failed ({run.returncode}):\n{run.stdout}{run.stderr}")
        lines = [json.loads(line) for line in (directory / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line.get("kind") == "step"]
    rate = statistics.median(line["tokens_per_second"] for line in steps[2:])
    return rate, on_processors, [[update["loss"] for update in line.get("updates") or line["halves"]] for line in steps]


def compare_programs(options, rates, on_processors, losses):
    """Each program beside the first."""
    first = next(iter(options.ratplus))
    print(f"\n{'tokens/s of ' + str(options.rounds) + ' round(s)':32} {'best':>8} {'of ' + first:>12} {'median':>8} {'of ' + first:>12} "
          f"{'lowest':>8} {'processor s of a run: best':>28} {'median':>8} {'of ' + first:>12}")
    for name in options.ratplus:
        best, median, seconds = max(rates[name]), statistics.median(rates[name]), on_processors[name]
        middle = statistics.median(seconds)
        print(f"{name:32} {best:8.0f} {best / max(rates[first]):12.3f} {median:8.0f} {median / statistics.median(rates[first]):12.3f} "
              f"{min(rates[name]):8.0f} {min(seconds):28.2f} {middle:8.2f} {middle / statistics.median(on_processors[first]):12.3f}")
        if losses[name] != losses[first]:
            print(f"  its losses differ from those of {first}: {losses[name]} and {losses[first]}")


# --- both -------------------------------------------------------------------------------------------------------


def main():
    options = parse_options()
    stream = make_tokens(options, options.steps + 2)
    trainers = prepare_rivals(options, stream)
    rates = {name: [] for name in [*trainers, *options.ratplus]}
    on_processors, losses = {name: [] for name in options.ratplus}, {}
    for _ in range(options.rounds):
        for name, trainer in trainers.items():
            rates[name].append(time_rival(trainer, options, stream))
        for name, program in options.ratplus.items():
            rate, seconds, losses[name] = time_ratplus(program, options, stream)
            rates[name].append(rate)
            on_processors[name].append(seconds)
    print(
        f"joint step, float32, {options.threads} thread(s): {options.layers} layers, width {options.width}, "
        f"head_dim {options.head_dim}, vocabulary {options.vocab}, batch {options.batch} x {options.sequence_length} "
        f"in micro-batches of {options.micro_batch}; torch {torch.__version__}"
    )
    best = {name: max(of_rounds) for name, of_rounds in rates.items()}
    if trainers:
        fastest = max(trainers, key=best.get)
        print(f"{'':32} {'tokens/s':>10} {'of the fastest PyTorch':>24}")
        for name, rate in best.items():
            who = f"PyTorch, {name}" if name in trainers else name
            print(f"{who:32} {rate:10.0f} {rate / best[fastest]:24.2f}")
    if options.alone or len(options.ratplus) > 1:
        compare_programs(options, rates, on_processors, losses)
    eager = [name for name in trainers if not CONTENDERS[name][2]]
    if options.split and eager:
        shown = max(eager, key=best.get)
        print(f"PyTorch, {shown}: where the operators' time goes")
        show_split(trainers[shown], options, stream)


if __name__ == "__main__":
    main()
