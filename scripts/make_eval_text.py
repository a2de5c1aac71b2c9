#!/usr/bin/env python3
"""Makes src/signround/text/data/eval.txt, the text that `signround eval` reads when it is given none.

usage: make_eval_text.py C4_JSONL OUTPUT

C4_JSONL: as for make_default_calibration.py. Takes the rows from the end, so that no document is in both texts.
"""
import hashlib
import json
import re
import sys

C4_SHA256 = "cdd5b754119131d2934e3e799a059a9d64f53a6aac9e7e2ef79b43120bb01a32"
SHORTEST, LONGEST = 1200, 6000  # characters of a document
MOST = 160_000  # characters in all
MAIL = re.compile(r"[\w.+-]+@[\w-]+\.\w+")  # addresses of people are left out


def main():
    path, output = sys.argv[1:]
    data = open(path, "rb").read()
    found = hashlib.sha256(data).hexdigest()
    if found != C4_SHA256:
        sys.exit(f"{path}: sha256 {found}, expected {C4_SHA256}")
    documents, total = [], 0
    for line in reversed(data.decode().splitlines()):
        text = json.loads(line)["text"].strip()
        if not SHORTEST <= len(text) <= LONGEST or MAIL.search(text):
            continue
        total += len(text)
        if total > MOST:
            break
        documents.append(text)
    with open(output, "w", encoding="utf-8") as file:
        file.write("\n\n".join(documents) + "\n")
    print(f"{len(documents)} documents, {total} characters")


main()
