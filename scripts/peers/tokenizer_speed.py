#!/usr/bin/env python3
"""Rates of our tokenizers and of the `tokenizers` package in one run, one thread each, processor time, taking turns; each piece's best time counts.

    scripts/peers/tokenizer_speed.py --bench build/bench/bench/bench_tokenizer --text english=E.txt --text chinese=C.txt FOLDER...

FOLDER holds a tokenizer.json. Texts are cut into documents of about 4 KB. With --hostile also the time of a megabyte of
one letter, of spaces, of combining marks, and of a pattern that merges a lot. Needs: tokenizers."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def documents(text, size=4096):
    """Pieces of about `size` bytes, cut at line ends or sentences."""
    pieces, now = [], []
    length = 0
    for line in text.splitlines(keepends=True):
        now.append(line)
        length += len(line.encode())
        if length >= size:
            pieces.append("".join(now))
            now, length = [], 0
    if now:
        pieces.append("".join(now))
    return pieces


def ours(bench, folder, path, seconds):
    run = subprocess.run([bench, folder, path, str(seconds)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{folder}: {run.stderr.strip()}")
    return json.loads(run.stdout)


def theirs(folder, texts, seconds):
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tok.no_truncation()
    tok.no_padding()
    pieces = [texts[i:i + 16] for i in range(0, len(texts), 16)]  # as in bench_tokenizer.cc
    best, total = [1e30] * len(pieces), 0.0
    while total < seconds:
        tokens = 0
        for i, piece in enumerate(pieces):
            start = time.thread_time()
            encodings = tok.encode_batch_fast(piece)
            spent = time.thread_time() - start
            best[i], total = min(best[i], spent), total + spent
            tokens += sum(len(e.ids) for e in encodings)
    return {"tokens": tokens, "mb_per_second": sum(len(t.encode()) for t in texts) / sum(best) / 1e6}


HOSTILE = {"one letter": "a" * 1_000_000, "spaces": " " * 1_000_000, "combining marks": "e" + "\u0301" * 500_000,
           "digits": "1" * 1_000_000, "merges": "abababab ba" * 90_909, "line ends": "\n" * 1_000_000, "emoji": "👩‍👩‍👧‍👦" * 40_000,
           "one word": "internationalization" * 50_000, "Chinese without end": "人" * 333_333}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--bench", default="build/bench/bench/bench_tokenizer")
    parser.add_argument("--text", action="append", default=[], help="name=file of UTF-8 text")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--bytes", type=int, default=2_000_000, help="of each text, at most")
    parser.add_argument("--hostile", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        print("| tokenizer | text | MB | ours MB/s | tokenizers MB/s | ratio |\n|---|---|---|---|---|---|")
        for folder in args.folders:
            for item in args.text:
                name, path = item.split("=", 1)
                texts = documents(open(path, encoding="utf-8").read()[:args.bytes])
                lines = os.path.join(temp, "texts.jsonl")
                with open(lines, "w", encoding="utf-8") as out:
                    out.writelines(json.dumps({"text": t}) + "\n" for t in texts)
                turns = [(ours(args.bench, folder, lines, args.seconds / 2), theirs(folder, texts, args.seconds / 2)) for _ in range(2)]
                a = max(t[0]["mb_per_second"] for t in turns)
                b = max(t[1]["mb_per_second"] for t in turns)
                same = "" if turns[0][0]["tokens"] == turns[0][1]["tokens"] else " (other number of tokens!)"
                print(f"| {os.path.basename(folder)} | {name} | {turns[0][0]['bytes'] / 1e6:.2f} | {a:.1f} | {b:.1f} | {a / b:.1f}{same} |",
                      flush=True)
        if args.hostile:
            print("\n| tokenizer | input of about 1 MB | ours, s |\n|---|---|---|")
            for folder in args.folders:
                for name, text in HOSTILE.items():
                    lines = os.path.join(temp, "texts.jsonl")
                    with open(lines, "w", encoding="utf-8") as out:
                        out.write(json.dumps({"text": text}) + "\n")
                    result = ours(args.bench, folder, lines, 0)
                    print(f"| {os.path.basename(folder)} | {name} | {result['bytes'] / result['mb_per_second'] / 1e6:.3f} |", flush=True)


if __name__ == "__main__":
    main()
