"""Tokens per second of the joint training step on CPUs: PyTorch against ratplus, same model, same batch, one run.

    python compare_cpu.py --ratplus ../../build/ratplus --threads 2

Both sides do the joint step in float32: an update with dilation 64, then one with dense attention, on the same batch,
each with clipping and AdamW. PyTorch runs in several forms (torch_rival.py), eager and compiled; its fastest counts.
Every contender runs in each of the rounds, in turn, so that a busy moment of the machine does not hit only one of
them; the best round's median step counts. Without --ratplus only PyTorch is timed.
"""

import argparse
import json
import os
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
    parser.add_argument("--ratplus", type=Path, help="the ratplus program")
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
        if options.only not in name:
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


def time_ratplus(options, stream):
    """Tokens per second of the median step, from the run's metrics; its first two steps warm up."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_dataset(directory / "data", options, stream)
        job = directory / "job.toml"
        job.write_text(job_file(options, directory))
        run = subprocess.run([options.ratplus, "train", job], capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{options.ratplus} train failed ({run.returncode}):\n{run.stdout}{run.stderr}")
        lines = [json.loads(line) for line in (directory / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["tokens_per_second"] for line in lines if line.get("kind") == "step"]
    return statistics.median(rates[2:])


# --- both -------------------------------------------------------------------------------------------------------


def main():
    options = parse_options()
    stream = make_tokens(options, options.steps + 2)
    trainers = prepare_rivals(options, stream)
    rates = {}
    for _ in range(options.rounds):
        for name, trainer in trainers.items():
            rates[name] = max(rates.get(name, 0), time_rival(trainer, options, stream))
        if options.ratplus:
            rates["ratplus"] = max(rates.get("ratplus", 0), time_ratplus(options, stream))
    fastest = max(trainers, key=rates.get)
    print(
        f"joint step, float32, {options.threads} thread(s): {options.layers} layers, width {options.width}, "
        f"head_dim {options.head_dim}, vocabulary {options.vocab}, batch {options.batch} x {options.sequence_length} "
        f"in micro-batches of {options.micro_batch}; torch {torch.__version__}"
    )
    print(f"{'':32} {'tokens/s':>10} {'of the fastest PyTorch':>24}")
    for name, rate in rates.items():
        who = name if name == "ratplus" else f"PyTorch, {name}"
        print(f"{who:32} {rate:10.0f} {rate / rates[fastest]:24.2f}")
    eager = [name for name in trainers if not CONTENDERS[name][2]]
    if options.split and eager:
        best = max(eager, key=rates.get)
        print(f"PyTorch, {best}: where the operators' time goes")
        show_split(trainers[best], options, stream)


if __name__ == "__main__":
    main()
