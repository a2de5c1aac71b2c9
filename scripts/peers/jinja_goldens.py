#!/usr/bin/env python3
"""Renders the snippets of jinja_snippets.txt with Jinja in transformers' settings.

Writes testdata/jinja/snippets.json: {"versions": ..., "cases": [{"vars": ..., "template": ..., "text": ...} or
{"error": true}]}. The clock stands at 2026-07-04 13:05:09, and Python's random numbers begin with seed 42 each time.
Needs transformers and jinja2.
"""
import datetime
import json
import pathlib
import random
import sys

import jinja2
import transformers
from transformers.utils import chat_template_utils

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOW = datetime.datetime(2026, 7, 4, 13, 5, 9)


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = FixedClock


def render(template, variables):
    """The text and the spans (code points) of generation blocks; raises what Jinja raises."""
    random.seed(42)  # as every rendering of signround begins
    compiled = chat_template_utils._compile_jinja_template(template)
    blocks, spans = [], []
    with compiled.environment.activate_tracker(blocks, spans):
        for block in compiled.generate(**variables):
            blocks.append(block)
    return "".join(blocks), spans


def snippets():
    variables = {}
    for line in (ROOT / "scripts/peers/jinja_snippets.txt").read_text().split("\n"):
        if line.startswith("#") or not line:
            continue
        if line.startswith("VARS "):
            variables = json.loads(line[5:])
            continue
        template = ""
        parts = iter(line)
        for c in parts:
            if c != "\\":
                template += c
                continue
            c = next(parts)
            # Only line ends and tabs are meant for the template's text; other escapes are left to Jinja's strings.
            template += {"n": "\n", "t": "\t", "r": "\r"}.get(c, "\\" + c)
        yield variables, template


def main():
    groups = []
    for variables, template in snippets():
        if not groups or groups[-1]["vars"] is not variables:
            groups.append({"vars": variables, "cases": []})
        try:
            text, spans = render(template, variables)
            case = {"template": template, "text": text}
            if spans:
                case["spans"] = spans
        except Exception as error:
            case = {"template": template, "error": f"{type(error).__name__}: {error}"}
        groups[-1]["cases"].append(case)
    versions = {"jinja2": jinja2.__version__, "transformers": transformers.__version__,
                "python": sys.version.split()[0]}
    out = ROOT / "testdata/jinja/snippets.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"versions": versions, "groups": groups}, ensure_ascii=False, indent=0) + "\n")
    count = sum(len(group["cases"]) for group in groups)
    failing = sum("error" in case for group in groups for case in group["cases"])
    print(f"{count} snippets, {failing} of them fail, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
