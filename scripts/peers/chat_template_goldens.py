#!/usr/bin/env python3
"""Writes what transformers renders for the conversations of chat_conversations.py.

usage: chat_template_goldens.py [FOLDER with *.jinja]

testdata/chat_templates/conversations.json: the conversations.
testdata/chat_templates/goldens.json: for every template a list of words, two for each conversation in its order,
without and with the generation prompt: the first 12 digits of the SHA-256 of the text, or "raises". Templates that
testdata/chat_templates holds are rendered by the tests; those of FOLDER have their own licences, so that only the
hashes are kept, for compare_chat_templates.py. The clock stands at 2026-07-04 13:05:09.
"""
import datetime
import hashlib
import json
import pathlib
import sys

import jinja2
import transformers
from transformers.utils import chat_template_utils

from chat_conversations import CASES

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "testdata/chat_templates"
NOW = datetime.datetime(2026, 7, 4, 13, 5, 9)
BOS, EOS = "<s>", "</s>"


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = FixedClock


def render(template, case, generation_prompt):
    """As PreTrainedTokenizerBase.apply_chat_template(tokenize=False); raises what transformers raises."""
    variables = dict(case)
    messages = variables.pop("messages")
    messages = [{k: v for k, v in message.items() if v is not None} for message in messages]
    tools, documents = variables.pop("tools", None), variables.pop("documents", None)
    texts, _ = chat_template_utils.render_jinja_template(
        conversations=[messages], tools=tools, documents=documents, chat_template=template,
        add_generation_prompt=generation_prompt, **{"bos_token": BOS, "eos_token": EOS, **variables})
    return texts[0]


def digest(text):
    return "raises" if text is None else hashlib.sha256(text.encode()).hexdigest()[:12]


def render_or_none(template, case, generation_prompt):
    try:
        return render(template, case, generation_prompt)
    except Exception:
        return None


def goldens_of(template):
    return " ".join(digest(render_or_none(template, case, generation_prompt))
                    for case in CASES.values() for generation_prompt in (False, True))


def main():
    folders = [DATA] + [pathlib.Path(folder) for folder in sys.argv[1:]]
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / "conversations.json").write_text(json.dumps(CASES, ensure_ascii=False, indent=0) + "\n")
    result = {"versions": {"transformers": transformers.__version__, "jinja2": jinja2.__version__}, "templates": {}}
    for folder in folders:
        for path in sorted(folder.glob("*.jinja")):
            result["templates"].setdefault(path.name, goldens_of(path.read_text()))
    (DATA / "goldens.json").write_text(json.dumps(result, indent=0) + "\n")
    words = " ".join(result["templates"].values()).split()
    count, failing = len(words), words.count("raises")
    print(f"{len(result['templates'])} templates, {count} cases, {failing} of them raise")


if __name__ == "__main__":
    main()
