#!/usr/bin/env python3
"""Compares sails' tokenizer and chat documents with the `tokenizers` library, transformers and TRL.

    tools/compare_tokenizer.py --tokenizer TOKENIZER.JSON [--data FILE]... [--quick]

Texts: every string of the data files (JSONL, JSON lists or CSV, plain or .gz), the texts of
hostile_texts.py, and every character of Unicode. For each: ids, the decoded text with and without
special tokens. Documents, from files of chosen/rejected pairs: ids as apply_chat_template gives them,
labels and reply marks from TRL's training template and its {% generation %} block.
Prints one line per comparison; exits 1 if anything differs.
Needs: the build target tokenize_file; tokenizers, transformers, trl.
"""
import argparse
import csv
import gzip
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import tokenizers

import hostile_texts

ROOT = pathlib.Path(__file__).resolve().parent.parent


def read(path):
    data = pathlib.Path(path).read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()


def rows(path):
    text = read(path)
    if text[0] == "[":
        return json.loads(text)
    if text[0] == "{":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    return list(csv.DictReader(io.StringIO(text)))


def run(program, tokenizer, mode, path):
    done = subprocess.run([program, tokenizer, mode, path], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    print("   ", done.stderr.decode().strip().replace("\n", "; "))
    if done.returncode:
        sys.exit(1)
    return [json.loads(line) for line in done.stdout.decode().split("\n") if line]


class Compare:
    def __init__(self, args):
        self.args = args
        self.tok = tokenizers.Tokenizer.from_file(args.tokenizer)
        self.different = 0

    def texts(self, name, texts):
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
            for text in texts:
                f.write(json.dumps({"text": text}) + "\n")
            f.flush()
            got = run(self.args.program, self.args.tokenizer, "text", f.name)
        assert len(got) == len(texts), (len(got), len(texts))
        wrong = {"ids": 0, "decoded": 0, "plain": 0}
        for text, row in zip(texts, got):
            ids = self.tok.encode(text, add_special_tokens=False).ids
            want = {"ids": ids, "decoded": self.tok.decode(ids, skip_special_tokens=False),
                    "plain": self.tok.decode(ids, skip_special_tokens=True)}
            for key, value in want.items():
                if row[key] != value:
                    wrong[key] += 1
                    if sum(wrong.values()) <= 3:
                        print("    ", key, repr(text[:60]), row[key][:20], value[:20])
        self.report(f"{name}: {len(texts)} texts, {sum(len(t.encode()) for t in texts)} bytes", wrong)

    def report(self, what, wrong):
        self.different += sum(wrong.values())
        print(what + ": differences " + ", ".join(f"{k} {v}" for k, v in wrong.items()), flush=True)

    def pairs(self, path, pairs):
        from transformers import PreTrainedTokenizerFast
        from trl import chat_template_utils as templates
        tok = PreTrainedTokenizerFast(tokenizer_file=self.args.tokenizer, bos_token="<bos>",
                                      eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
        docs = []
        for pair in pairs:
            sides = [messages(pair[side]) for side in ("chosen", "rejected")]
            if all(side[-1]["role"] == "assistant" and side[-1]["content"].strip() for side in sides):
                docs += sides
        got = run(self.args.program, self.args.tokenizer, "docs", path)
        wrong = {"documents": abs(len(got) - len(docs)), "ids": 0, "labels": 0, "reply": 0,
                 "shared": 0}
        for i, (doc, row) in enumerate(zip(docs, got)):
            plain = tok.apply_chat_template(doc, chat_template=templates.gemma_chat_template)["input_ids"]
            prompt = tok.apply_chat_template(doc[:-1], chat_template=templates.gemma_chat_template,
                                             add_generation_prompt=True)["input_ids"]
            training = tok.apply_chat_template(
                doc, chat_template=templates.gemma_training_chat_template,
                return_dict=True, return_assistant_tokens_mask=True)
            labels = [m if k >= len(prompt) else 0
                      for k, m in enumerate(training["assistant_masks"])]
            reply = labels[:-2] + [0, 0]
            wrong["ids"] += row["ids"] != plain or row["ids"] != training["input_ids"]
            wrong["labels"] += row["labels"] != labels
            wrong["reply"] += row["reply"] != reply
            if i % 2:
                other = got[i - 1]
                same = next((k for k, (a, b) in enumerate(zip(row["ids"], other["ids"])) if a != b),
                            min(len(row["ids"]), len(other["ids"])))
                starts = [d["labels"].index(1) for d in (row, other)]
                wrong["shared"] += row["shared"] != min(same, *starts)
        self.report(f"{path}: {len(docs)} documents", wrong)


def messages(text):
    """HH-RLHF text; turns of one role in a row are joined, as data/records.h says."""
    parts = re.split(r"\n\n(Human|Assistant): ?", text)[1:]
    turns = []
    for role, content in zip(parts[::2], parts[1::2]):
        role = "user" if role == "Human" else "assistant"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n\n" + content
        else:
            turns.append({"role": role, "content": content})
    return turns


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--program", default=str(ROOT / "build" / "tests" / "tokenize_file"))
    parser.add_argument("--quick", action="store_true", help="leave the long and the many texts out")
    args = parser.parse_args()
    compare = Compare(args)
    for path in args.data:
        data = rows(path)
        compare.texts(path, [v for row in data for v in row.values() if isinstance(v, str)])
        if "chosen" in data[0]:
            compare.pairs(path, data)
    compare.texts("hostile", hostile_texts.sentences())
    count = 1000 if args.quick else 20000
    compare.texts("mixed", hostile_texts.mixes(count, 40))
    added = [token.content for token in compare.tok.get_added_tokens_decoder().values()]
    compare.texts("added tokens", hostile_texts.mixes(count, 12, more=added + added[-8:] * 4))
    if not args.quick:
        compare.texts("all of Unicode", hostile_texts.planes())
        compare.texts("long lines", hostile_texts.long_texts())
    print(f"{compare.different} differences")
    sys.exit(compare.different > 0)


if __name__ == "__main__":
    main()
