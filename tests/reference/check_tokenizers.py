#!/usr/bin/env python3
"""Compares the tokens that `ratplus prepare` writes with those of the tokenizer's own library, id for id.

    check_tokenizers.py RATPLUS TOKENIZER... [--text TEXT.jsonl]

A TOKENIZER is a tokenizer.json (against `tokenizers`) or a SentencePiece model (against `sentencepiece`). The documents
are the hard texts of make_tokenizers.py, one for each block of 1024 code points of Unicode, random mixtures, and those
under "text" in TEXT.jsonl. Needs `pip install tokenizers sentencepiece h5py numpy`.
"""
import argparse
import json
import pathlib
import random
import subprocess
import tempfile

import h5py
import make_tokenizers


def documents(added, file):
    """`added`: the tokenizer's added tokens, which texts spell out now and then."""
    draw = random.Random(2)
    yield from make_tokenizers.texts()
    for block in range(0x110000 // 1024):
        yield make_tokenizers.block_text(block)
    letters = "aZé9 \t\n\r'sS.,▁_-<>|#\u00a0\u2003\u3000ßſK\u0301\u200d日한\U0001F680"
    for _ in range(300):
        parts = draw.choices([*letters, "  ", "\n\n", "'ll ", "ing", "12345", " the", *added], k=150)
        yield "".join(parts)
    if file:
        for line in open(file):
            yield json.loads(line)["text"]


class HuggingFace:
    def __init__(self, file):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(file)
        self.added = [t["content"] for t in json.load(open(file))["added_tokens"]][:40]
        self.end = self.added[0]

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def options(self):
        return ["--end-of-text", self.end]


class SentencePiece:
    added = []

    def __init__(self, file):
        from sentencepiece import SentencePieceProcessor

        self.encode = SentencePieceProcessor(model_file=file).encode

    def options(self):
        return []


def prepared(program, tokenizer, options, texts):
    """Of each text, the tokens in the shards."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        with open(scratch / "t.jsonl", "w") as out:
            for text in texts:
                out.write(json.dumps({"text": text}) + "\n")
        command = [program, "prepare", scratch / "t.jsonl", "--output", scratch / "d", "--tokenizer", tokenizer]
        done = subprocess.run([*command, "--validation-fraction", "0", *options], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{tokenizer}: {done.stderr.strip().splitlines()[-1]}")
        for shard in sorted((scratch / "d").glob("train-*.h5")):
            with h5py.File(shard) as file:
                tokens, offsets = file["tokens"][:], file["document_offsets"][:]
                for begin, end in zip(offsets, offsets[1:]):
                    yield tokens[begin : end - 1].tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratplus")
    parser.add_argument("tokenizer", nargs="+")
    parser.add_argument("--text")
    args = parser.parse_args()
    failed = False
    for file in args.tokenizer:
        library = (HuggingFace if open(file, "rb").read(1) == b"{" else SentencePiece)(file)
        texts = [t for t in documents(library.added, args.text) if t]
        different = count = tokens = 0
        for text, ours in zip(texts, prepared(args.ratplus, file, library.options(), texts), strict=True):
            theirs = library.encode(text)
            count, tokens = count + 1, tokens + len(theirs)
            if ours == theirs:
                continue
            different += 1
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
            if different <= 3:
                print(f"  {text[:60]!r}: token {at} is {ours[at:at + 4]}, not {theirs[at:at + 4]}")
        print(f"{file}: {count} texts, {tokens} tokens, {different} texts differ")
        failed |= different > 0
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
