"""Texts that tokenizers get wrong, shared by make_golden_tokenizer.py and compare_tokenizer.py."""
import random

PIECES = [
    "<", ">", "<bos>", "<eos>", "<unk>", "<pad>", "<start_of_turn", "<start_of_turn>",
    "<end_of_turn>", "end_of_turn>", "<<end_of_turn>>", "<unused", "<unused1", "<unused10>",
    "[@BOS@]", "[@BOS", "</h1>", "<h1", "<0x0A>", "<0x", "\n", "\n\n", "\n" * 31, "\t", "\t\t",
    " ", "  ", " " * 33, "\r", "\r\n", "\0", "\x01", "\x1c", "\x7f", "\x85", "\u00a0", "\u2028",
    "\u3000", "\ufeff", "\ufffd", "\ufffe", "▁", "▁▁", "a▁b", "e", "é", "e\u0301", "\u0301",
    "a\u0300\u0301\u0302\u0303", "ß", "İ", "ı", "ﬁ", "Ⅷ", "x²", "½", "日本語", "中文", "한국어",
    "ไทย", "हिन्दी", "العربية", "עברית", "\u200f\u202e", "ру́сский", "ελληνικά", "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f1e9\U0001f1ea",
    "\U0001f44d\U0001f3fd", "\u200d", "\ufe0f", "\U00010348", "\U000e0001", "\U0010ffff",
    "the", "ing", " the", "I'm", "don't", "1234567890", "3.14e-10", "if (x) {\n\treturn;\n}",
    "https://example.org/?q=a%20b#c", "....", "!!!!", "=====", "_____", "----",
]


def mixes(count, longest, seed=7, more=()):
    """Random sequences of the pieces above and of `more`."""
    rng = random.Random(seed)
    pieces = PIECES + list(more)
    return ["".join(rng.choice(pieces) for _ in range(rng.randrange(longest + 1)))
            for _ in range(count)]


def sentences():
    """Fixed short texts: each piece alone and doubled, every one-byte and two-byte lead."""
    texts = [""] + PIECES + [p + p for p in PIECES] + ["x" + p + "x" for p in PIECES]
    texts += ["".join(map(chr, range(256))), "".join(map(chr, range(255, -1, -1)))]
    texts += [chr(c) for c in range(256)]
    texts += [f"<unused{i}>" for i in (0, 9, 98, 99)]
    texts += [" " * n + "x" + "\n" * n + "\t" * n for n in range(1, 40)]
    return texts


def planes():
    """Every character of Unicode, in texts of 4,096, with and without spaces between."""
    texts = []
    for start in range(0, 0x110000, 4096):
        chars = [chr(c) for c in range(start, start + 4096) if not 0xd800 <= c < 0xe000]
        texts += ["".join(chars), " ".join(chars)]
    return texts


def long_texts(n=100_000):
    """Lines of n characters: runs of one piece, a run without any space, and a mix."""
    rng = random.Random(11)
    texts = [(p * (n // len(p) + 1))[:n] for p in PIECES]
    texts += ["".join(rng.choice("abcdefghij") for _ in range(n)),
              "".join(rng.choice("ab ") for _ in range(n)),
              "".join(rng.choice(PIECES) for _ in range(n // 4))]
    return texts
