#!/usr/bin/env python3
"""Compares `signround template` with transformers on every template of a folder.

usage: compare_chat_templates.py SIGNROUND FOLDER [--hashes]

Prints a table: template, cases, cases that raise, cases that differ. Where transformers raises, signround must exit
with a code other than 0. The conversations are those of chat_conversations.py, without and with the generation
prompt. --hashes compares with testdata/chat_templates/goldens.json and needs no transformers.
"""
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOW = "2026-07-04T13:05:09"


def run(program, template, conversation, generation_prompt):
    """The text, or None where the program fails; a crash ends the comparison."""
    command = [program, "template", "--template", template, "--messages", conversation, "--bos", "<s>", "--eos", "</s>",
               "--now", NOW] + ["--add-generation-prompt"] * generation_prompt
    done = subprocess.run(command, capture_output=True)
    if done.returncode < 0 or done.returncode == 1:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.decode()}")
    return done.stdout.decode() if done.returncode == 0 else None


def digest(text):
    return "raises" if text is None else hashlib.sha256(text.encode()).hexdigest()[:12]


def expected_of(template, cases, by_hash):
    if by_hash:
        goldens = json.loads((ROOT / "testdata/chat_templates/goldens.json").read_text())["templates"]
        return goldens[template.name].split() if template.name in goldens else None
    from chat_template_goldens import render_or_none
    text = template.read_text()
    return [render_or_none(text, case, prompt) for case in cases.values() for prompt in (False, True)]


def main():
    program, folder, by_hash = sys.argv[1], pathlib.Path(sys.argv[2]), "--hashes" in sys.argv
    cases = json.loads((ROOT / "testdata/chat_templates/conversations.json").read_text())
    total = [0, 0, 0]
    with tempfile.TemporaryDirectory() as scratch:
        files = {}
        for name, case in cases.items():
            files[name] = f"{scratch}/{name}.json"
            pathlib.Path(files[name]).write_text(json.dumps(case, ensure_ascii=False))
        print("| template | cases | raise | differ |\n| --- | --- | --- | --- |")
        for template in sorted(folder.glob("*.jinja")):
            expected = expected_of(template, cases, by_hash)
            if expected is None:
                continue
            got = [run(program, str(template), files[name], prompt) for name in cases for prompt in (False, True)]
            if by_hash:
                got = [digest(text) for text in got]
            names = [f"{name}/{int(prompt)}" for name in cases for prompt in (False, True)]
            different = [name for name, a, b in zip(names, expected, got) if a != b]
            raising = sum(word in (None, "raises") for word in expected)
            print(f"| {template.name} | {len(expected)} | {raising} | {len(different)} |", *different[:5], flush=True)
            for i, count in enumerate((len(expected), raising, len(different))):
                total[i] += count
    print(f"| all | {total[0]} | {total[1]} | {total[2]} |")
    sys.exit(total[2] != 0)


if __name__ == "__main__":
    main()
