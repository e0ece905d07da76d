#!/usr/bin/env python3
"""Makes tests/golden/tokenizer_{small,odd}.json, two small byte-fallback BPE tokenizers, and the
*_cases.json beside them: the ids and texts that the `tokenizers` library gives for these and, with
--gemma, for Gemma-2's own file; and chats as transformers and TRL render them.

    tools/make_golden_tokenizer.py [--gemma TOKENIZER.JSON]

small  Gemma's pipeline: added tokens for turns and for newline, space and tab runs, merges as strings.
odd    what else the reader takes: merges as pairs and across spaces, some bytes missing (so unknown
       characters occur, fused), normalised and space-eating added tokens, a Split that cuts,
       several replacements.
gemma  ids only, for texts of this file and of hostile_texts.py.
chat   conversations as transformers' apply_chat_template renders them with TRL's templates for
       Gemma, and the mask of the final turn's {% generation %} block (with tokenizer_small.json).
Needs: tokenizers, transformers, trl (made with 0.23.3, 5.23, 1.16).
"""
import argparse
import json
import pathlib
import random

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from hostile_texts import mixes, sentences

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"

SUBJECTS = ["A careful reader", "The small model", "Every token", "Our tokenizer", "A long line",
            "The user", "The assistant", "A safe answer", "An honest reply", "The question",
            "A neighbour", "My grandmother", "The engineer", "A curious child", "The old ship"]
VERBS = ["asks for", "explains", "cannot help with", "wonders about", "carefully measures",
         "gives", "writes down", "forgets", "remembers", "would rather not discuss", "compares",
         "is happy to describe", "refuses", "translates", "counts"]
OBJECTS = ["the length of a river", "a recipe with lemons", "how locks are made", "the next word",
           "what the law says", "an unsafe request", "the weather of tomorrow", "three short stories",
           "a list of numbers such as 12, 305 and 7", "the meaning of kindness", "its own mistakes",
           "a letter to a friend", "how to bake bread", "the colour of the sea", "old photographs"]
ENDS = [".", "!", "?", ", and then stops.", "; nobody minds.", " (see page 9).", ":\n\n- one\n- two",
        ".\n", " again and again.", " - I'm sorry, but I can't do that."]
OTHER = ["Ein höflicher Gruß über die Straße.", "Une réponse brève, s'il vous plaît.",
         "¿Cómo estás? Mañana será otro día.", "日本語の短い文です。", "Это короткий ответ.",
         "return x + 1; // code\n\tif (x < 3) { y = x * 2; }", "a  b   c    d", "naïve café"]


def own_text(lines=900, seed=3):
    rng = random.Random(seed)
    text = []
    for i in range(lines):
        text.append(f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}"
                    f"{rng.choice(ENDS)}")
        if i % 9 == 0:
            text.append(rng.choice(OTHER))
    return text


def learn(pieces, across_spaces):
    """BPE merges over own_text with spaces as marks."""
    tok = Tokenizer(models.BPE())
    if not across_spaces:
        tok.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=pieces, show_progress=False, min_frequency=2)
    text = [line.replace(" ", "▁") for line in own_text()]
    tok.train_from_iterator(text if across_spaces else ["▁".join(text)], trainer)
    model = json.loads(tok.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].get)
    return vocab, [tuple(m) for m in model["merges"]]


def added(token_id, content, special=False, **flags):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": special, **flags}


def tokenizer_json(vocab, merges, added_tokens, normalizer, split, decoder, unk="<unk>"):
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Split", "pattern": {"String": split},
                          "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoder},
        "model": {"type": "BPE", "dropout": None, "unk_token": unk,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False,
                  "vocab": {piece: i for i, piece in enumerate(vocab)}, "merges": merges},
    }


def replace(a, b):
    return {"type": "Replace", "pattern": {"String": a}, "content": b}


def small():
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    runs = ["\n" * n for n in range(1, 9)] + ["▁" * n for n in range(2, 9)]
    runs += ["\t" * n for n in range(2, 5)] + ["<h1>", "</h1>", "[@BOS@]"]
    head = special + runs + [f"<0x{b:02X}>" for b in range(256)]
    learned, merges = learn(420, across_spaces=False)
    run_merges = [(c * (n - k), c * k) for c, most in (("\n", 8), ("▁", 8), ("\t", 4))
                  for n in range(2, most + 1) for k in range(1, n)]
    vocab = list(dict.fromkeys(head + ["\t"] + learned))
    tokens = [added(i, p, special=i < 4 or i in (5, 6)) for i, p in enumerate(special + runs)]
    merges = [f"{a} {b}" for a, b in dict.fromkeys(run_merges + merges)]
    return tokenizer_json(vocab, merges, tokens, replace(" ", "▁"), " ",
                          [replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}])


def odd():
    special = ["<unk>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    head = special + [f"<0x{b:02X}>" for b in range(256) if b not in (0x00, 0x98, 0xa9)]
    learned, merges = learn(300, across_spaces=True)
    vocab = list(dict.fromkeys(head + learned))
    n = len(vocab)
    tokens = [added(i, p, special=True) for i, p in enumerate(special)]
    tokens += [added(n, "[left]", lstrip=True), added(n + 1, "[right]", rstrip=True),
               added(n + 2, "[both]", lstrip=True, rstrip=True),
               added(n + 3, "a b", normalized=True), added(n + 4, "né", normalized=True)]
    normalizer = {"type": "Sequence", "normalizers": [replace("``", '"'), replace(" ", "▁")]}
    return tokenizer_json(vocab, [list(m) for m in dict.fromkeys(merges)], tokens, normalizer, "er",
                          [replace("▁", " "), replace("x", "xx"), {"type": "ByteFallback"},
                           {"type": "Fuse"}])


def decoded(tok, ids, text=None):
    """What the library decodes; left out where it is the text itself, or the same without skipping."""
    row, full = {}, tok.decode(ids, skip_special_tokens=False)
    plain = tok.decode(ids, skip_special_tokens=True)
    if full != text:
        row["decoded"] = full
    if plain != full:
        row["plain"] = plain
    return row


def cases(tok, texts):
    rows = []
    for text in texts:
        ids = tok.encode(text, add_special_tokens=False).ids
        rows.append({"text": text, "ids": ids, **decoded(tok, ids, text)})
    return rows


def id_cases(tok, count=60, seed=5):
    """Ids in random order: byte pieces that form no character, unknown ids, special tokens."""
    rng = random.Random(seed)
    bytes_ = [tok.token_to_id(f"<0x{b:02X}>") for b in (0xc3, 0xa8, 0xe2, 0x82, 0xac, 0xf0, 0x41)]
    rows = []
    for _ in range(count):
        ids = [rng.choice(bytes_) if rng.random() < .7 else rng.randrange(tok.get_vocab_size() + 3)
               for _ in range(rng.randrange(12))]
        rows.append({"ids": ids, **decoded(tok, ids)})
    return rows


def conversations():
    """Alternating turns, with white space at both ends and in the middle of the texts."""
    rng = random.Random(9)
    space = ["", " ", "\n", "\n\n", "\t", "\u00a0", "\u2003", "\x1f", "\u3000 \n", "\u200b"]
    text = own_text() + ["<end_of_turn>", "<start_of_turn>model", "<h1>", "\u2581", "\0", "a"]
    for _ in range(60):
        turns = []
        for i in range(rng.choice([2, 2, 2, 4, 6])):
            parts = [rng.choice(text) for _ in range(rng.randrange(1, 3))]
            turns.append({"role": "assistant" if i % 2 else "user",
                          "content": rng.choice(space) + rng.choice(space).join(parts) +
                                     rng.choice(space)})
        yield turns
    yield [{"role": "user", "content": ""}, {"role": "assistant", "content": " \n"}]


def chat_cases(tokenizer):
    from transformers import PreTrainedTokenizerFast
    from trl import chat_template_utils as templates
    tok = PreTrainedTokenizerFast(tokenizer_file=tokenizer, bos_token="<bos>", eos_token="<eos>")
    rows = []
    for turns in conversations():
        ids = tok.apply_chat_template(turns, chat_template=templates.gemma_chat_template)["input_ids"]
        prompt = tok.apply_chat_template(turns[:-1], add_generation_prompt=True,
                                         chat_template=templates.gemma_chat_template)["input_ids"]
        mask = tok.apply_chat_template(turns, chat_template=templates.gemma_training_chat_template,
                                       return_dict=True, return_assistant_tokens_mask=True)
        assert mask["input_ids"] == ids and ids[:len(prompt)] == prompt
        rows.append({"turns": [t["content"] for t in turns], "ids": ids, "prompt": len(prompt),
                     "labels": [m * (k >= len(prompt)) for k, m in
                                enumerate(mask["assistant_masks"])]})
    return rows


def write(name, value):
    (GOLDEN / name).write_text(json.dumps(value) + "\n")


def write_cases(name, encode, decode):
    rows = [",\n".join(json.dumps(row) for row in part) for part in (encode, decode)]
    (GOLDEN / name).write_text(f'{{"encode": [\n{rows[0]}\n],\n"decode": [\n{rows[1]}\n]}}\n')


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--gemma")
    gemma = args.parse_args().gemma
    texts = own_text()[:40] + OTHER + sentences() + mixes(150, 12)
    extra = ["x [left] y[left]", " [right]  [right] a", "  [both]\u3000\n[both] [left]", "a b", "a  b",
             "banana b né ne\u0301", "``quoted''", "\x00\x00é\x00 \x18é", "é\x00日\x00", "lower"]
    for name, make in (("small", small), ("odd", odd)):
        write(f"tokenizer_{name}.json", make())
        tok = Tokenizer.from_file(str(GOLDEN / f"tokenizer_{name}.json"))
        write_cases(f"tokenizer_{name}_cases.json",
                    cases(tok, texts + (extra if name == "odd" else [])), id_cases(tok))
    write_cases("chat_cases.json", chat_cases(str(GOLDEN / "tokenizer_small.json")), [])
    if gemma:
        tok = Tokenizer.from_file(gemma)
        write_cases("tokenizer_gemma_cases.json",
                    cases(tok, own_text()[:40] + OTHER + sentences()[:180]), id_cases(tok))


if __name__ == "__main__":
    main()
