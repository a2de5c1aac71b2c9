#!/usr/bin/env python3
"""Makes src/signround/text/data/default.jsonl.zst, the calibration text that is built into the program.

usage: make_default_calibration.py C4_JSONL OUTPUT

C4_JSONL: the first 1000 rows of allenai/c4, en, train (rows with "text"), sha256 below.
Needs only the standard library and the zstd program.
"""
import hashlib
import json
import subprocess
import sys

C4_SHA256 = "cdd5b754119131d2934e3e799a059a9d64f53a6aac9e7e2ef79b43120bb01a32"
SHORTEST = 1200  # characters of a document: some 300 tokens
MOST = 1_500_000  # characters of C4 in all


def c4_documents(path):
    data = open(path, "rb").read()
    found = hashlib.sha256(data).hexdigest()
    if found != C4_SHA256:
        sys.exit(f"{path}: sha256 {found}, expected {C4_SHA256}")
    total = 0
    for line in data.decode().splitlines():
        text = json.loads(line)["text"].strip()
        if len(text) < SHORTEST:
            continue
        total += len(text)
        if total > MOST:
            break
        yield text


def main():
    c4, output = sys.argv[1:]
    documents = list(c4_documents(c4))
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in documents).encode()
    command = ["zstd", "-19", "-q", "--no-check", f"--stream-size={len(lines)}", "-c"]
    packed = subprocess.run(command, input=lines, stdout=subprocess.PIPE, check=True)
    with open(output, "wb") as file:
        file.write(packed.stdout)
    print(f"{len(documents)} documents, {len(lines)} bytes, {len(packed.stdout)} packed")


main()
