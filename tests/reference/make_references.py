"""Makes the stored references in data/ that the C++ tests compare with: gradients.h5 and trajectory.h5.

    python make_references.py              compute and write both files
    python make_references.py --check      compute again and compare with the stored files
    python make_references.py --self-test  check the reference model itself

Everything is computed in float64 from float32 weights, on the CPU. README.md describes the files.
"""

import argparse
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch

import ratplus_reference as ref
import self_test

DATA = Path(__file__).parent / "data"

# Results are stored as float32, and float64 sums may be ordered otherwise on another machine.
CHECK_TOLERANCE = 1e-6

# Name of a case and its pattern plan. T = 96 and D = 64: queries before and after the first dilated key.
PLANS = {
    "dense": "dense",
    "dilated": "64,0,0",
    "dilated_window_sinks": "16,32,4",
    "window": "none,24,0",
    "window_sinks": "none,16,4",
    "per_layer": "64,0,0;dense",
    "per_head": "16,32,4|none,24,2;dense|8,0,1",
}
WINDOW = 96
SMALL = ref.Config(layers=2, width=16, head_dim=8, vocab_size=31)
SMALL_ATTENTION = ref.Config(layers=2, width=16, head_dim=8, vocab_size=31, recurrence=False)
# Channels that fill a SIMD register.
WIDER = ref.Config(layers=1, width=32, head_dim=16, vocab_size=47)
WIDER_PLAN = "16,32,4|none,24,2"

# To keep the file small, logits are stored for the last sequence, at positions 3, 7, ..., T - 1.
LOGIT_STRIDE = 4


@dataclass
class File:
    """The content of an HDF5 file: arrays by path, row-major in one dimension; attributes by path of their group."""

    arrays: dict = field(default_factory=dict)
    attributes: dict = field(default_factory=dict)

    def add_tensors(self, group, tensors):
        for name, tensor in tensors.items():
            self.arrays[f"{group}/{name}"] = tensor.detach().to(torch.float32).numpy().reshape(-1)

    def write(self, path):
        path.parent.mkdir(exist_ok=True)
        # Compact groups of HDF5 1.10, and no filters: random floats hardly compress, and chunks cost an index each.
        with h5py.File(path, "w", libver=("v110", "v110")) as file:
            first_name = {}
            for name, array in self.arrays.items():
                if id(array) in first_name:
                    file[name] = file[first_name[id(array)]]  # a hard link: the array is stored once
                else:
                    file.create_dataset(name, data=array.reshape(-1))
                    first_name[id(array)] = name
            for group, attributes in self.attributes.items():
                for name, value in attributes.items():
                    # Fixed-length strings: the C interface reads them without ownership of each string.
                    file[group].attrs[name] = np.bytes_(value) if isinstance(value, str) else value
        print(f"{path.name}: {len(self.arrays)} arrays, {path.stat().st_size / 1024:.0f} KiB")


def random_weights(config, rng, scale=1.0):
    """Float64 weights with float32 values, by name.

    Larger than the recipe's N(0, 0.02^2), so that attention is peaked, gates reach from forgetting to keeping, and
    norm weights differ from 1: a wrong term then shows in the gradients.
    """
    std = {"in_proj": 0.35, "out_proj": 0.2, "fc1": 0.3, "fc2": 0.15, "wte": 0.5}
    weights = {}
    for name, shape in ref.parameter_shapes(config).items():
        values = rng.standard_normal(shape)
        kind = name.split(".")[-2]
        values = scale * std[kind] * values if kind in std else 1 + 0.2 * values
        weights[name] = torch.from_numpy(values.astype(np.float32)).double().requires_grad_()
    return weights


def random_tokens(config, rng, shape):
    """Token ids, about one in twelve of them end-of-text."""
    tokens = rng.integers(0, config.vocab_size, shape)
    tokens[rng.random(shape) < 1 / 12] = config.end_of_text
    return torch.from_numpy(tokens)


def config_attributes(config, batch):
    sizes = asdict(config)
    return {**sizes, "recurrence": int(config.recurrence), "batch": batch, "window": WINDOW}


# --- gradients.h5 -----------------------------------------------------------------------------------------------


def add_gradient_case(file, name, config, weights_group, weights, tokens_path, tokens, plan):
    loss, gradients, logits = ref.loss_and_gradients(config, weights, tokens, ref.parse_plan(plan))
    group = f"cases/{name}"
    file.add_tensors(f"{group}/gradients", gradients)
    file.add_tensors(group, {"logits": logits[-1, LOGIT_STRIDE - 1 :: LOGIT_STRIDE]})
    file.attributes[group] = {
        **config_attributes(config, len(tokens)),
        "patterns": plan,
        "weights": weights_group,
        "tokens": tokens_path,
        "loss": loss.item(),
        "logit_stride": LOGIT_STRIDE,
    }


def gradients_file():
    file, rng = File(), np.random.default_rng(1)
    tokens = random_tokens(SMALL, rng, (2, WINDOW + 1))
    file.arrays["tokens/small"] = tokens.numpy().astype(np.int32).reshape(-1)
    for kind, config in (("recurrence", SMALL), ("attention", SMALL_ATTENTION)):
        weights = random_weights(config, rng)
        file.add_tensors(f"weights/{kind}", weights)
        for name, plan in PLANS.items():
            add_gradient_case(file, f"{kind}_{name}", config, f"weights/{kind}", weights, "tokens/small", tokens, plan)
    tokens = random_tokens(WIDER, rng, (2, WINDOW + 1))
    weights = random_weights(WIDER, rng, scale=0.6)
    file.arrays["tokens/wider"] = tokens.numpy().astype(np.int32).reshape(-1)
    file.add_tensors("weights/wider", weights)
    add_gradient_case(file, "wider_per_head", WIDER, "weights/wider", weights, "tokens/wider", tokens, WIDER_PLAN)
    return file


# --- trajectory.h5 ----------------------------------------------------------------------------------------------


def add_trajectory(file, name, config, training, weights, stream, batch, plans):
    """stream [steps batch T + 1]: windows in order, overlapping in one token; plans: one a step's update, in order.

    The weights are left as trained.
    """
    tokens = stream.unfold(0, WINDOW + 1, WINDOW).reshape(training.steps, batch, WINDOW + 1)
    file.add_tensors(f"{name}/initial", weights)
    optimizer = ref.AdamW(training, weights)
    steps = [
        ref.train_step(config, optimizer, windows, [ref.parse_plan(plan) for plan in plans], n)
        for n, windows in enumerate(tokens)
    ]
    file.arrays[f"{name}/stream"] = stream.numpy().astype(np.int32)
    file.arrays[f"{name}/lr"] = np.array([lr for lr, _ in steps])
    file.arrays[f"{name}/loss"] = np.array([[loss for loss, _ in updates] for _, updates in steps]).reshape(-1)
    file.arrays[f"{name}/grad_norm"] = np.array([[norm for _, norm in updates] for _, updates in steps]).reshape(-1)
    file.add_tensors(f"{name}/final", weights)
    file.attributes[name] = {
        **config_attributes(config, batch),
        **asdict(training),
        "recipe": "joint" if len(plans) == 2 else "plain",
        "pattern": plans[-1],
        **({"joint_pattern": plans[0]} if len(plans) == 2 else {}),
    }
    norms = file.arrays[f"{name}/grad_norm"]
    if not (norms > training.clip).any() or (norms > training.clip).all():
        raise SystemExit(f"{name}: the trajectory must have updates that clip and updates that do not: {norms}")


def trajectory_file():
    file, rng = File(), np.random.default_rng(2)
    weights = random_weights(SMALL, rng, scale=0.7)
    stream = random_tokens(SMALL, rng, (12 * 4 * WINDOW + 1,))
    joint = ref.Training(steps=12, peak_lr=3e-3, warmup=0.25)
    add_trajectory(file, "joint", SMALL, joint, weights, stream, 4, ["64,0,0", "dense"])
    weights = random_weights(SMALL, rng, scale=0.7)
    stream = random_tokens(SMALL, rng, (8 * 4 * WINDOW + 1,))
    adapt = ref.Training(steps=8, peak_lr=3e-3, warmup=0.0, clip=1.5)
    add_trajectory(file, "adapt", SMALL, adapt, weights, stream, 4, ["16,0,4"])
    return file


# --- comparison with the stored files ---------------------------------------------------------------------------


def relative_difference(a, b):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return np.inf if a.shape != b.shape else np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-300)


def same_attribute(found, value):
    if isinstance(value, str):
        return found == value.encode()
    return found is not None and relative_difference(found, value) <= CHECK_TOLERANCE


def check(computed, path):
    """Whether the stored file holds what was computed, all of it and nothing else."""
    problems, worst = [], 0.0
    with h5py.File(path) as file:
        stored = []
        file.visititems(lambda name, node: stored.append(name) if isinstance(node, h5py.Dataset) else None)
        problems += [f"{name}: stored, but not computed" for name in stored if name not in computed.arrays]
        for name, array in computed.arrays.items():
            difference = relative_difference(file[name], array) if name in file else np.inf
            worst = max(worst, difference)
            if difference > CHECK_TOLERANCE:
                problems.append(f"{name}: relative difference {difference:.2g}")
        for group, attributes in computed.attributes.items():
            for name, value in attributes.items():
                found = file[group].attrs.get(name) if group in file else None
                if not same_attribute(found, value):
                    problems.append(f"{group}: attribute {name} is {found}, computed {value}")
    print(f"{path.name}: {len(computed.arrays)} arrays, largest relative difference {worst:.1e}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the stored files instead of writing them")
    parser.add_argument("--self-test", action="store_true", help="check the reference model itself and stop")
    options = parser.parse_args()
    if options.self_test:
        return self_test.run()
    files = {"gradients.h5": gradients_file, "trajectory.h5": trajectory_file}
    problems = []
    for name, make in files.items():
        if options.check:
            problems += check(make(), DATA / name)
        else:
            make().write(DATA / name)
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
