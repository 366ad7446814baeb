"""Writes data/*.pth: small checkpoints as PyTorch itself saves them, with the odd cases that a reader must take; and
checks written.pth, which ratplus wrote, with PyTorch's own loading.

    python make_checkpoints.py            # writes the files again
    python make_checkpoints.py --check    # loads written.pth as the reference would

The model: 2 layers, width 8, heads of 4, vocabulary 10. Element i of the n-th tensor is ((7 i + 13 n) mod 61 - 30) / 8,
which float32, float16 and bfloat16 all hold exactly; tests/weights computes the same.
"""

import argparse
import collections
import sys
import zipfile
from pathlib import Path

import torch

DATA = Path(__file__).parent / "data"
LAYERS, WIDTH, VOCAB = 2, 8, 10


class Mixer(torch.nn.Module):
    def __init__(self, d, gates):
        super().__init__()
        self.input_norm = torch.nn.RMSNorm(d, eps=1e-6)
        self.in_proj = torch.nn.Linear(d, gates * d, bias=False)
        self.out_proj = torch.nn.Linear(d, d, bias=False)


class FeedForward(torch.nn.Module):
    def __init__(self, d):
        super().__init__()
        self.ln = torch.nn.RMSNorm(d, eps=1e-6)
        self.fc1 = torch.nn.Linear(d, 4 * d, bias=False)
        self.fc2 = torch.nn.Linear(4 * d, d, bias=False)


class Block(torch.nn.Module):
    def __init__(self, d, gates):
        super().__init__()
        self.seq_layer = Mixer(d, gates)
        self.hidden_layer = FeedForward(d)


class Holder(torch.nn.Module):
    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def model(recurrence=True):
    """Modules with the names of the reference's parameters, the head tied to the embedding."""
    layers = torch.nn.ModuleList(Block(WIDTH, 5 if recurrence else 4) for _ in range(LAYERS))
    whole = Holder(
        embedding=Holder(wte=torch.nn.Embedding(VOCAB, WIDTH)),
        backbone=Holder(layers=layers, ln=torch.nn.RMSNorm(WIDTH, eps=1e-6)),
        head=Holder(lm_head=torch.nn.Linear(WIDTH, VOCAB, bias=False)),
    )
    whole.head.lm_head.weight = whole.embedding.wte.weight
    return whole


def values(n, shape):
    count = int(torch.Size(shape).numel())
    return (((7 * torch.arange(count) + 13 * n) % 61 - 30) / 8).reshape(shape)


def fill(whole):
    with torch.no_grad():
        for n, parameter in enumerate(whole.parameters()):
            parameter.copy_(values(n, parameter.shape))
    return whole


def task_bfloat16():
    """A compiled model in training: prefixed names, optimizer, scheduler, config, large and negative numbers."""
    whole = fill(model()).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(whole.parameters(), lr=1e-3)
    for parameter in whole.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state = collections.OrderedDict(("_orig_mod." + k, v.clone()) for k, v in whole.state_dict().items())
    state["_orig_mod.head.lm_head.weight"] = state["_orig_mod.embedding.wte.weight"]
    optimizer.step()
    return {
        "task": state,
        "config": {"lr": 1e-3, "betas": (0.9, 0.95), "names": ["a", None, True], "seed": 2**70, "raw": b"\x00\xff"},
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"last_epoch": -5},
        "step": 2**40,
        "shape": torch.Size([1, 2]),
        "type": torch.bfloat16,
    }


def odd_views():
    """Tensors that are views: transposed, every second column, a part of a larger storage, expanded; a Parameter."""
    state = fill(model()).state_dict()
    second = "backbone.layers.1.seq_layer."
    state[second + "out_proj.weight"] = state[second + "out_proj.weight"].t().contiguous().t()
    wide = torch.zeros(5 * WIDTH, 2 * WIDTH)
    wide[:, ::2] = state[second + "in_proj.weight"]
    state[second + "in_proj.weight"] = wide[:, ::2]
    flat = torch.full((1000,), 7.0)
    fc1 = state["backbone.layers.0.hidden_layer.fc1.weight"]
    flat[77 : 77 + fc1.numel()] = fc1.reshape(-1)
    state["backbone.layers.0.hidden_layer.fc1.weight"] = flat[77 : 77 + fc1.numel()].view(fc1.shape)
    state["backbone.ln.weight"] = torch.full((1,), 0.375).expand(WIDTH)
    fc2 = "backbone.layers.0.hidden_layer.fc2.weight"
    state[fc2] = torch.nn.Parameter(state[fc2])
    return {"task": state}


def deflated(source, target):
    """The same records, compressed: a file that someone packed again."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for record in old.infolist():
            new.writestr(zipfile.ZipInfo(record.filename), old.read(record), zipfile.ZIP_DEFLATED)


def check_written():
    whole = model()
    state = torch.load(DATA / "written.pth", weights_only=True)["task"]
    whole.load_state_dict(state, strict=True)
    assert state["head.lm_head.weight"].data_ptr() == state["embedding.wte.weight"].data_ptr()
    for n, (name, parameter) in enumerate(whole.named_parameters()):
        assert torch.equal(parameter.detach(), values(n, parameter.shape)), name
    with zipfile.ZipFile(DATA / "written.pth") as archive:
        assert archive.testzip() is None
    torch.load(DATA / "written.pth", weights_only=True, mmap=True)
    print("written.pth: taken by torch.load(weights_only=True) and load_state_dict, every element right")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="check written.pth instead")
    if parser.parse_args().check:
        return check_written()
    torch.save(task_bfloat16(), DATA / "task_bfloat16.pth")
    torch.save(fill(model(recurrence=False)).to(torch.float16).state_dict(), DATA / "bare_float16.pth")
    torch.save(odd_views(), DATA / "odd_views.pth", pickle_protocol=4)
    deflated(DATA / "odd_views.pth", DATA / "deflated.pth")
    return 0


if __name__ == "__main__":
    sys.exit(main())
