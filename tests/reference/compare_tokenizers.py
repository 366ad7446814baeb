#!/usr/bin/env python3
"""Tokens/s a core of `ratplus prepare` beside SentencePiece's own command and Hugging Face's `tokenizers`, in one run.

    compare_tokenizers.py RATPLUS TEXT.jsonl [--sentencepiece tokenizer.model] [--huggingface tokenizer.json]

TEXT.jsonl has its texts under "text"; some tens of MB give steady figures. spm_encode comes with Debian's package
`sentencepiece`, the rest with `pip install tokenizers`. Every line is one thread's. Ids are compared, too.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def report(name, seconds, size, tokens):
    print(f"{name:<44}{size / seconds / 1e6:8.2f} MB/s {tokens / seconds / 1e6:8.3f} M tokens/s  ({tokens} tokens)")


def ratplus(program, text, tokenizer, size):
    out = subprocess.run(
        [program, "data-bench", text, "--tokenizer", tokenizer], check=True, capture_output=True, text=True
    ).stdout
    words = out.split()
    tokens = int(words[words.index("tokens") - 1])
    report("ratplus, tokenizing alone", float(words[words.index("s:") - 1]), size, tokens)
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        command = [program, "prepare", text, "--output", scratch + "/d", "--tokenizer", tokenizer, "--threads", "1"]
        subprocess.run(command, check=True, capture_output=True)
        report("ratplus prepare, end to end", time.perf_counter() - begin, size, tokens)
    return tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratplus")
    parser.add_argument("text")
    parser.add_argument("--sentencepiece")
    parser.add_argument("--huggingface")
    args = parser.parse_args()
    with open(args.text) as lines:
        texts = [json.loads(line)["text"] for line in lines]
    size = sum(len(t.encode()) for t in texts)
    print(f"{len(texts)} documents, {size / 1e6:.1f} MB")
    if args.sentencepiece:
        ours = ratplus(args.ratplus, args.text, args.sentencepiece, size)
        if shutil.which("spm_encode"):
            with tempfile.TemporaryDirectory() as scratch:
                plain = pathlib.Path(scratch) / "plain.txt"
                plain.write_text("\n".join(texts))
                with open(plain) as stdin:
                    begin = time.perf_counter()
                    command = ["spm_encode", f"--model={args.sentencepiece}", "--output_format=id"]
                    out = subprocess.run(command, stdin=stdin, check=True, capture_output=True).stdout
                    seconds = time.perf_counter() - begin
                # A line is a text to this command: newlines are no tokens, and each line begins with a blank.
                report("spm_encode, line by line", seconds, size, len(out.split()))
    if args.huggingface:
        from tokenizers import Tokenizer

        ours = ratplus(args.ratplus, args.text, args.huggingface, size)
        tokenizer = Tokenizer.from_file(args.huggingface)
        begin = time.perf_counter()
        tokens = sum(len(tokenizer.encode(t, add_special_tokens=False).ids) for t in texts)
        report("tokenizers, encode", time.perf_counter() - begin, size, tokens)
        if tokens != ours:
            raise SystemExit(f"the counts differ: {ours} and {tokens}")


if __name__ == "__main__":
    main()
