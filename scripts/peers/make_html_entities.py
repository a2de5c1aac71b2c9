#!/usr/bin/env python3
"""Writes src/signround/text/html_entities.inc: HTML 5's named character references, from Python's html.entities.html5
(3.11.7 was used). Sorted by the bytes of the name; a name without its semicolon is one that browsers take without."""
from html.entities import html5

with open("src/signround/text/html_entities.inc", "w", encoding="utf-8") as out:
    out.write("// Made by scripts/peers/make_html_entities.py: name, text as UTF-8.\n")
    line = ""
    for name, text in sorted(html5.items()):
        item = '{"%s", "%s"},' % (name, "".join("\\%03o" % byte for byte in text.encode()))
        if len(line) + len(item) > 118:
            out.write(line.rstrip() + "\n")
            line = ""
        line += item + " "
    out.write(line.rstrip() + "\n")
