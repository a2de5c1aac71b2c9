#!/usr/bin/env python3
"""Compares the ids of `signround tokenize` with those of Hugging Face's tokenizers on random and given texts.

    scripts/peers/compare_tokenizers.py --signround build/release/signround --count 10000 FOLDER...

FOLDER holds a tokenizer.json (compared with the `tokenizers` package), or any other tokenizer that transformers can load
(compared with AutoTokenizer); a file is a SentencePiece model, which transformers' LlamaTokenizer reads. Prints one line per folder: strings, how many differ, and the first differences. Exit code 1
if any differ. Needs: tokenizers, transformers."""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

WORDS = ("the of and in hello world don't we'll I'VE it's you're THEY'D he'S naïve café Straße résumé coöperate "
         "antidisestablishmentarianism 3.14159 1234567 42 100,000 $9.99 foo_bar fooBar __init__ x=y+z; /usr/bin "
         "https://a.example/b?c=d&e=f user@example.org C++20 don’t “quoted” — … tokenization").split()
SCRIPTS = [(0x21, 0x7E), (0xA1, 0x17F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x530, 0x58F),
           (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1EFF),
           (0x2000, 0x206F), (0x2070, 0x209F), (0x20A0, 0x20CF), (0x2100, 0x214F), (0x2150, 0x218F), (0x2460, 0x24FF),
           (0x2500, 0x257F), (0x2600, 0x27BF), (0x3000, 0x303F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
           (0xF900, 0xFAFF), (0xFB00, 0xFB4F), (0xFE00, 0xFE0F), (0xFF00, 0xFFEF), (0x10000, 0x100FF), (0x1D400, 0x1D7FF),
           (0x1F100, 0x1F1FF), (0x1F300, 0x1F64F), (0x1F680, 0x1F6FF), (0x20000, 0x2A6DF), (0xE0100, 0xE01EF)]
SPACES = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\u2028", "\u200b", "\ufeff",
          "\u0085", "\x0b", "\x0c", "\u180e", "\u202f", "    ", "        ", "\n\t\t"]
EMOJI = ["😀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "☕", "1️⃣", "🤷‍♀️"]
CODE = ["def f(x):\n    return x**2\n", "if (a != b) { c->d++; }", "<div class=\"x\">&nbsp;</div>", "SELECT * FROM t WHERE a='b';",
        "\\frac{a}{b}", "#include <stdio.h>\n", "{\"k\": [1, 2.5e-3, null]}", "'''doc'''", "// comment\r\n"]
CHINESE = "今天天气很好，我们去公园散步吧。人工智能正在改变世界！他说：“你好”，然后离开了；第１２３届会议于2024年5月召开。"


def random_char(rng):
    kind = rng.random()
    if kind < 0.9:
        low, high = rng.choice(SCRIPTS)
        cp = rng.randint(low, high)
    else:
        cp = rng.choice([rng.randint(0, 0x1F), rng.randint(0x7F, 0x9F), rng.randint(0, 0xFFFF), rng.randint(0, 0x10FFFF),
                         0xFFFD, 0xFFFE, 0xFFFF, 0x10FFFF, 0xE000, 0xD7FF])
    return "" if 0xD800 <= cp <= 0xDFFF else chr(cp)


def random_text(rng, special):
    parts = []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30])):
        kind = rng.randrange(12)
        if kind <= 2:
            parts.append(rng.choice(WORDS))
        elif kind == 3:
            parts.append(rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 5, 20]))
        elif kind == 4:
            low, high = rng.choice(SCRIPTS)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 8))))
        elif kind == 5:
            parts.append("".join(random_char(rng) for _ in range(rng.randint(1, 6))))
        elif kind == 6:
            parts.append(rng.choice(EMOJI))
        elif kind == 7:
            parts.append(rng.choice(CODE))
        elif kind == 8:
            begin = rng.randrange(len(CHINESE))
            parts.append(CHINESE[begin:begin + rng.randint(1, 12)])
        elif kind == 9:
            parts.append(rng.choice(special) if special and rng.random() < 0.5 else rng.choice("abcXYZ019 .,'\"_-") * rng.randint(1, 40))
        elif kind == 10:
            base = rng.choice("aeionuAEIOcsz가がक")
            parts.append(base + "".join(chr(rng.randint(0x300, 0x345)) for _ in range(rng.randint(1, 5))))
        else:
            parts.append(str(rng.randint(0, 10 ** rng.randint(1, 15))))
        if rng.random() < 0.5:
            parts.append(rng.choice(SPACES[:6]))
    text = "".join(parts)
    if rng.random() < 0.1:
        text = text.upper()
    return text


def reference(folder):
    """A function text -> ids, and the texts of the added tokens."""
    path = os.path.join(folder, "tokenizer.json")
    if os.path.exists(path):
        from tokenizers import Tokenizer
        tok = Tokenizer.from_file(path)
        tok.no_truncation()
        tok.no_padding()
        added = [t.content for t in tok.get_added_tokens_decoder().values()]
        return (lambda text: tok.encode(text).ids), added
    from transformers import AutoTokenizer
    tok = AutoTokenizer.from_pretrained(folder)
    return (lambda text: tok(text)["input_ids"]), list(tok.get_added_vocab())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--signround", default="build/release/signround", help="the built program")
    parser.add_argument("--count", type=int, default=10000, help="random strings per tokenizer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--texts", help="a JSON lines file whose \"text\" fields are compared as well")
    args = parser.parse_args()
    worst = 0
    for folder in args.folders:
        made = None
        if os.path.isfile(folder):
            made = tempfile.TemporaryDirectory()
            shutil.copy(folder, os.path.join(made.name, "tokenizer.model"))
            with open(os.path.join(made.name, "tokenizer_config.json"), "w", encoding="utf-8") as config:
                json.dump({"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}, config)
        try:
            encode, special = reference(made.name if made else folder)
        except Exception as error:  # whatever the peer raises
            print(f"{folder}: the reference cannot read it: {str(error)[:200]}", flush=True)
            continue
        rng = random.Random(args.seed)
        texts = [""] + [random_text(rng, special) for _ in range(args.count)]
        if args.texts:
            texts += [json.loads(line)["text"] for line in open(args.texts, encoding="utf-8")]
        with tempfile.TemporaryDirectory() as temp:
            model = folder
            if made:
                model = made.name
            elif os.path.exists(os.path.join(folder, "tokenizer.json")):  # as the package sees it: without its config
                model = os.path.join(temp, "model")
                os.mkdir(model)
                shutil.copy(os.path.join(folder, "tokenizer.json"), model)
            lines = os.path.join(temp, "texts.jsonl")
            with open(lines, "w", encoding="utf-8") as out:
                for text in texts:
                    out.write(json.dumps({"text": text}) + "\n")
            run = subprocess.run([args.signround, "tokenize", model, "--file", lines, "--json"], capture_output=True, text=True)
            if run.returncode != 0:
                print(f"{folder}: {run.stderr.strip()}")
                worst = 1
                continue
            got = [json.loads(line)["ids"] for line in run.stdout.splitlines()]
        if len(got) != len(texts):
            print(f"{folder}: {len(got)} lines for {len(texts)} texts")
            worst = 1
            continue
        wanted = [encode(t) for t in texts]
        different = [(t, w, g) for t, w, g in zip(texts, wanted, got) if w != g]
        print(f"{folder}: {len(texts)} strings, {len(different)} differ", flush=True)
        for text, want, have in sorted(different, key=lambda d: len(d[0]))[:5]:
            print(f"  {text!r}\n    reference {want}\n    signround {have}")
        worst = worst or bool(different)
    sys.exit(worst)


if __name__ == "__main__":
    main()
