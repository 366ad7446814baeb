#!/usr/bin/env python3
"""MB/s and tokens/s a core of `ratplus prepare` beside SentencePiece's own command and Hugging Face's `tokenizers`.

    compare_tokenizers.py RATPLUS TEXT.jsonl [--sentencepiece tokenizer.model] [--huggingface tokenizer.json] [--rounds N]

TEXT.jsonl has its texts under "text"; some tens of MB give steady figures. spm_encode comes with Debian's package
`sentencepiece`, the rest with `pip install tokenizers`. The contenders take turns, round after round. Each uses one
thread, and what is compared is the CPU time of all its threads and of the kernel for it (getrusage), so that other
work on the machine does not count: of prepare and spm_encode that of the whole process, from its start to its end; of
the tokenizers alone that of encoding. What prepare takes for a single document (MPI, reading the
tokenizer) is told beside it, since it is the same for any input. The median over the rounds is shown, and counts of
tokens are compared.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import tempfile

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def cpu(usage):
    return usage.ru_utime + usage.ru_stime


def run(command, stdin=None):
    """CPU seconds of a process and of those that it waited for, and what it printed."""
    before = cpu(resource.getrusage(resource.RUSAGE_CHILDREN))
    out = subprocess.run(command, stdin=stdin, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return cpu(resource.getrusage(resource.RUSAGE_CHILDREN)) - before, out


class Alone:
    """This program's tokenizer, without reading and writing."""

    def __init__(self, args, tokenizer):
        self.command = [args.ratplus, "data-bench", args.text, "--tokenizer", tokenizer]

    def __call__(self):
        words = run(self.command)[1].decode().split()
        return float(words[words.index("of") - 2].lstrip("(")), int(words[words.index("tokens") - 1])


class Prepare:
    def __init__(self, args, tokenizer, text=None):
        self.command = [args.ratplus, "prepare", text or args.text, "--tokenizer", tokenizer, "--threads", "1"]
        self.command += ["--validation-fraction", "0", *(["--end-of-text", args.end] if args.end else []), "--output"]

    def __call__(self):
        with tempfile.TemporaryDirectory() as scratch:
            seconds = run([*self.command, scratch + "/d"])[0]
            shards = json.loads((pathlib.Path(scratch) / "d/dataset.json").read_text())["train"]
        return seconds, sum(s["tokens"] - s["documents"] for s in shards)


class SpmEncode:
    """A line is a text to this command: newlines are no tokens, and each line begins with a blank."""

    def __init__(self, args, texts):
        self.command = ["spm_encode", f"--model={args.sentencepiece}", "--output_format=id"]
        self.plain = tempfile.NamedTemporaryFile("w+")
        self.plain.write("\n".join(texts))
        self.plain.flush()

    def __call__(self):
        with open(self.plain.name) as stdin:
            seconds, out = run(self.command, stdin)
        return seconds, len(out.split())


class Tokenizers:
    def __init__(self, args, texts):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(args.huggingface)
        self.texts = texts

    def __call__(self):
        before = cpu(resource.getrusage(resource.RUSAGE_SELF))
        tokens = sum(len(self.tokenizer.encode(t, add_special_tokens=False).ids) for t in self.texts)
        return cpu(resource.getrusage(resource.RUSAGE_SELF)) - before, tokens


def compare(title, contenders, start, rounds, size, same_counts):
    """`contenders`: {name: function of (CPU seconds, tokens)}, the first the tokenizer alone, the second prepare; `start`
    is prepare on one document."""
    seconds = {name: [] for name in contenders}
    tokens = {}
    starts = []
    for _ in range(rounds):
        starts.append(start()[0])
        for name, contender in contenders.items():
            spent, tokens[name] = contender()
            seconds[name].append(spent)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    print(f"\n{title}")
    for name, s in median.items():
        print(f"  {name:<34}{s:8.2f} s {size / s / 1e6:8.2f} MB/s {tokens[name] / s / 1e6:8.3f} M tokens/s")
    alone, prepare, *others = contenders
    started = statistics.median(starts)
    print(f"  prepare takes {started:.2f} s to start", end=", ")
    print(f"and has {median[alone] / median[prepare]:.0%} of the rate of the tokenizer alone", end=" ")
    print(f"({median[alone] / (median[prepare] - started):.0%} once it has started)", end="")
    print("".join(f", {median[o] / median[prepare]:.1f} times that of {o}" for o in others))
    if same_counts and len(set(tokens.values())) > 1:
        raise SystemExit(f"the counts of tokens differ: {tokens}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratplus")
    parser.add_argument("text")
    parser.add_argument("--sentencepiece")
    parser.add_argument("--huggingface")
    parser.add_argument("--end", help="the token that ends a text, where the tokenizer does not tell")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with open(args.text) as lines:
        texts = [json.loads(line)["text"] for line in lines]
    size = sum(len(t.encode()) for t in texts)
    one = tempfile.NamedTemporaryFile("w", suffix=".jsonl")
    one.write(json.dumps({"text": texts[0]}) + "\n")
    one.flush()
    print(f"{len(texts)} documents, {size / 1e6:.1f} MB of text; CPU time of one thread, median of {args.rounds} rounds")
    if args.sentencepiece:
        contenders = {"tokenizing alone": Alone(args, args.sentencepiece)}
        contenders["prepare, end to end"] = Prepare(args, args.sentencepiece)
        if shutil.which("spm_encode"):
            contenders["spm_encode"] = SpmEncode(args, texts)
        compare(args.sentencepiece, contenders, Prepare(args, args.sentencepiece, one.name), args.rounds, size, same_counts=False)
    if args.huggingface:
        contenders = {"tokenizing alone": Alone(args, args.huggingface)}
        contenders["prepare, end to end"] = Prepare(args, args.huggingface)
        contenders["tokenizers"] = Tokenizers(args, texts)
        compare(args.huggingface, contenders, Prepare(args, args.huggingface, one.name), args.rounds, size, same_counts=True)


if __name__ == "__main__":
    main()
