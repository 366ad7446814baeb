#!/usr/bin/env python3
"""Makes data/tokenizers: small tokenizer.json files of the kinds that are in use, and what the library `tokenizers` makes
of hard text with them. Needs `pip install tokenizers`.

    make_tokenizers.py [KIND...]      all, or these alone: training text comes from the repository's own pages

    KIND.json         a tokenizer
    references.json   {"texts": [...], "kinds": {KIND: {"ids": [...], "decoded": [...], "blocks": "..."}}}

"ids" are lists, or for long ones the SHA-256 of the ids with commas between; "decoded" is null where it is the text.
"blocks" has, for each block of 1024 code points, the first 8 digits of the SHA-256 of the ids (comma between) of the text
made by block_text(): a test makes the same text and finds the code points that are treated otherwise.
"""
import hashlib
import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
OUT = HERE / "data" / "tokenizers"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def training_text():
    words = (HERE.parent.parent / "docs" / "job-files.md").read_text() + (HERE.parent.parent / "README.md").read_text()
    other = (
        "Größe über Straße naïve café façade Ελληνικά γλώσσα русский язык и слово 日本語 の テキスト 中文 文本 한국어 العربية हिन्दी "
        "I'm you're they've she'll he'd it's don't 2048 1234567 x = y + z; for (int i = 0; i < n; ++i) {\n\treturn;\n}\n"
    )
    return [*words.splitlines(), *(other * 20).splitlines()]


def byte_level(pre_tokenizer, special, normalizer=None, whole_words=False, left_out=""):
    """`left_out`: bytes, as the alphabet's characters, that get no piece."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole_words))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=special,
        initial_alphabet=[c for c in pre_tokenizers.ByteLevel.alphabet() if c not in left_out],
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    return tokenizer


def byte_fallback(metaspace):
    """As LLaMA-2's and Mistral's: SentencePiece models converted."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False)
    trained.train_from_iterator(training_text(), trainer)
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    names += [n for n in sorted(model["vocab"], key=model["vocab"].get) if n not in names]
    blanks = ["▁" * 2, "▁" * 4]
    merges = [tuple(m) for m in model["merges"]] + [("▁", "▁"), ("▁▁", "▁▁")]
    names += [b for b in blanks if b not in names]
    vocab = {n: i for i, n in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def kinds():
    split = lambda r: pre_tokenizers.Split(Regex(r), "isolated")  # noqa: E731
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    mixed = byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]),
        ["<|endoftext|>"],
    )
    mixed.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<fim>", rstrip=True)])
    mixed.add_tokens(["user", "userland", AddedToken("Ärger", normalized=True)])
    return {
        "gpt2": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"]),
        "llama3": byte_level(
            pre_tokenizers.Sequence([split(LLAMA3), bytes_alone]),
            ["<|begin_of_text|>", "<|end_of_text|>"],
            whole_words=True,
        ),
        "qwen": byte_level(
            pre_tokenizers.Sequence([split(QWEN), bytes_alone]), ["<|endoftext|>", "<|im_end|>"], normalizers.NFC()
        ),
        "mixed": mixed,
        # As GPT-NeoX's and Pythia's: the bytes that no UTF-8 has, and some more, have no piece.
        "neox": byte_level(
            pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"], normalizers.NFC(), left_out="ÀÁõö÷øùúûüýþÿòó"
        ),
        # As Claude 2's.
        "nfkc": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<EOT>"], normalizers.NFKC()),
        "nfd": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<EOT>"], normalizers.NFD()),
        "llama2": byte_fallback(metaspace=False),
        "mistral": byte_fallback(metaspace=True),
    }


def texts():
    draw = random.Random(1)
    planes = lambda n: "".join(  # noqa: E731
        chr(draw.choice([c for c in (draw.randrange(0x110000),) if not 0xD800 <= c < 0xE000] or [65])) for _ in range(n)
    )
    near = "aZé9 \t\n\r'sS.,▁ \u00a0\u2003\u3000ßſK\u0301\u200d日한\U0001F680"
    return [
        "", " ", "  ", "a", " a", "a ", "Hello, world!", "  two  blanks\n\n\tand lines\r\n ", "I'm, you'RE, they'VE 'S 'ſ",
        "x" * 3000, "ab" * 2000, " " * 1000, "\n" * 100, "the cat " * 200, "1234567890 12 ١٢٣ ⅷ ² ½",
        "".join(chr(c) for c in range(128)), "".join(chr(c) for c in range(128, 0x250)),
        "e\u0301 \u0301 \u1100\u1161\u11a8 \u212b \ufb01 \u0344", "\ufeffmark", "\u180e\u0085\u00a0\u2028\u2029 \u200b\u2060",
        "🚀👩‍🚀👨‍👩‍👧‍👦🏳️‍🌈", "\ufffd\U0010ffff\U000e0001", "▁a▁▁b ▁ c▁", "<0x0A> <s> </s> <unk>",
        "<|endoftext|>a<|endoftext|><|end_of_text|> <|im_end|>", "a  <mask>  b  <fim>  c<mask><fim>", "userlands users user",
        "Ärger A\u0308rger", "日本語のテキスト、中文文本。한국어 العربية हिन्दी ไทย", "if (x) {\n    return\ty;\n}\r\n\r\n",
        *(planes(200) for _ in range(10)), *("".join(draw.choice(near) for _ in range(200)) for _ in range(20)),
        *("".join(draw.choice("the data window user job ") for _ in range(300)) for _ in range(3)),
    ]


def block_text(block):
    points = (c for c in range(block * 1024, block * 1024 + 1024) if not 0xD800 <= c < 0xE000)
    return "".join(f"a{chr(c)}1{chr(c)} " for c in points)


def digest(ids):
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    hard = texts()
    wanted = sys.argv[1:]
    references = json.loads((OUT / "references.json").read_text())["kinds"] if wanted else {}
    for name, tokenizer in kinds().items():
        if wanted and name not in wanted:
            continue
        text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
        (OUT / f"{name}.json").write_text(text + "\n")
        tokenizer = Tokenizer.from_file(str(OUT / f"{name}.json"))
        ids = [tokenizer.encode(t, add_special_tokens=False).ids for t in hard]
        decoded = [tokenizer.decode(i, skip_special_tokens=False) for i in ids]
        blocks = []
        if name in ("llama3", "llama2", "qwen", "nfkc", "nfd"):
            for block in range(0x110000 // 1024):
                of_block = tokenizer.encode(block_text(block), add_special_tokens=False).ids
                blocks.append(digest(of_block)[:8])
        references[name] = {
            "ids": [i if len(i) <= 100 else digest(i) for i in ids],
            "decoded": [None if d == t else d for d, t in zip(decoded, hard)],
            "blocks": "".join(blocks),
        }
        print(name, tokenizer.get_vocab_size(), "pieces")
    (OUT / "references.json").write_text(
        json.dumps({"texts": hard, "kinds": references}, separators=(",", ":")) + "\n"
    )


if __name__ == "__main__":
    main()
