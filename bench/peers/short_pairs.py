"""Pairs whose two documents are short, and their tokens.

    short_pairs.py DOCS NAME LONGEST

DOCS: pairs, JSONL; NAME-chosen.jsonl and NAME-rejected.jsonl: what `sails tokenize` made of its two
sides, which are cut down to the pairs that are kept; those go to NAME.jsonl."""
import json
import sys


def read(path):
    with open(path, encoding="utf-8") as lines:
        return {json.loads(line)["id"]: line for line in lines}


def main():
    docs, name, longest = sys.argv[1:]
    sides = {side: read(f"{name}-{side}.jsonl") for side in ("chosen", "rejected")}
    with open(docs, encoding="utf-8") as lines:
        pairs = {str(number): line for number, line in enumerate(lines, 1)}

    def short(number):
        return all(number in side and len(json.loads(side[number])["tokens"]) <= int(longest)
                   for side in sides.values())
    kept = [number for number in pairs if short(number)]
    for path, lines in [(f"{name}.jsonl", pairs)] + [(f"{name}-{s}.jsonl", sides[s]) for s in sides]:
        with open(path, "w", encoding="utf-8") as out:
            out.writelines(lines[number] for number in kept)


if __name__ == "__main__":
    main()
