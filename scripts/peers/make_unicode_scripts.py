#!/usr/bin/env python3
"""Writes src/signround/text/unicode_scripts.inc: the ranges of the Unicode property Script that the reference's
UnicodeScripts pre-tokenizer knows. Argument: a checkout of github.com/huggingface/tokenizers (0.22.1 was used).
Hiragana and Katakana are written as Han, as the pre-tokenizer takes them."""
import re
import sys

source = open(sys.argv[1] + "/tokenizers/src/pre_tokenizers/unicode_scripts/scripts.rs", encoding="utf-8").read()
script_of = {}
for first, last, name in re.findall(r"0x([0-9A-F]+)(?:\s*\.\.=\s*0x([0-9A-F]+))?\s*=>\s*Script::(\w+)", source):
    for cp in range(int(first, 16), int(last or first, 16) + 1):
        script_of.setdefault(cp, name)
script_of[0x30FC] = "Han"
script_of.pop(0x20, None)
for cp, name in script_of.items():
    if name in ("Hiragana", "Katakana"):
        script_of[cp] = "Han"
ids = {name: i + 1 for i, name in enumerate(sorted(set(script_of.values()) - {"Any"}))}
ranges = []
for cp in sorted(script_of):
    script = ids[script_of[cp]]
    if ranges and ranges[-1][1] == cp - 1 and ranges[-1][2] == script:
        ranges[-1][1] = cp
    else:
        ranges.append([cp, cp, script])
with open("src/signround/text/unicode_scripts.inc", "w", encoding="utf-8") as out:
    out.write("// Made by scripts/peers/make_unicode_scripts.py: first, last, number of the script.\n")
    line = ""
    for first, last, script in ranges:
        item = "{0x%X, 0x%X, %d}," % (first, last, script)
        if len(line) + len(item) > 118:
            out.write(line.rstrip() + "\n")
            line = ""
        line += item + " "
    out.write(line.rstrip() + "\n")
