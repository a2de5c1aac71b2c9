#!/usr/bin/env python3
"""Makes testdata/calibration: small data sets and the rows that auto-round 0.16.1 makes of them.

usage: make_calibration_golden.py TESTDATA_FOLDER     (needs auto-round 0.16.1, datasets)

The tokenizer is the one of src/signround/text/number_tokenizer.h without special tokens: numbers are their own ids, other
words have one of their letters. Its chat template writes 50 before a system prompt, 60 before a user's turn, and 61 at the
end.
"""
import json
import os
import random
import sys

os.environ["AR_DISABLE_DATASET_SUBPROCESS"] = "1"
import torch  # noqa: E402
from auto_round import calib_dataset  # noqa: E402

# concat fails on local files in this version (rows arrive as lists, and its mask has one dimension too many): the rows
# are handed to it as tensors and the masks are flattened, the rest is auto-round's.
local = calib_dataset.CALIB_DATASETS["local"]
calib_dataset.CALIB_DATASETS["local"] = lambda **kwargs: local(**kwargs).with_format("torch")
ones = torch.ones
torch.ones = lambda shape: ones(shape[-1:] if isinstance(shape, list) else shape)


class Numbers:
    name_or_path = "numbers"
    bos_token_id, eos_token_id = 1, 2

    @staticmethod
    def id_of(word):
        if word.isdigit() and int(word) < 90:
            return int(word)
        number = 2166136261  # FNV-1a
        for byte in word.encode():
            number = (number ^ byte) * 16777619 % 2**32
        return 100 + number % 1000

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return "".join(f"{50 if m['role'] == 'system' else 60} {m['content']} " for m in messages) + "61"

    def __call__(self, texts, truncation, max_length):
        ids = [[self.id_of(word) for word in text.split()][:max_length] for text in texts]
        return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}


def documents(draw, count, first):
    rows = []
    for i in range(count):
        length = draw.randint(1, 40)
        if i % 7 == 3:  # one token over and over: dropped
            rows.append(" ".join(["3"] * (length + 16)))
        else:
            rows.append(" ".join(str(draw.randint(first, first + 20)) for _ in range(length)))
    return rows


def main():
    os.makedirs(sys.argv[1], exist_ok=True)
    os.chdir(sys.argv[1])
    draw = random.Random(1)
    with open("a.jsonl", "w") as file:
        file.writelines(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(documents(draw, 60, 10)))
    with open("b.json", "w") as file:
        json.dump(documents(draw, 30, 40), file, indent=0)
    with open("c.jsonl", "w") as file:
        file.writelines(json.dumps(t + " \n") + "\n" for t in documents(draw, 40, 65))
    cases = []
    for dataset, seqlen, nsamples, seed in [
        ("a.jsonl", 16, 10, 42),
        ("a.jsonl", 16, 1000, 42),
        ("b.json", 8, 12, 7),
        ("a.jsonl:concat=True", 32, 100, 42),
        ("b.json:concat", 16, 100, 0),
        ("a.jsonl,b.json,c.jsonl", 16, 30, 42),
        ("b.json,a.jsonl", 16, 13, 3),
        ("a.jsonl:num=5,b.json", 16, 16, 42),
        ("c.jsonl:concat=True:num=6,b.json:num=3,a.jsonl", 16, 20, 42),
        ("a.jsonl:num=12,b.json:num=12", 16, 20, 42),
        ("a.jsonl:apply_chat_template", 16, 10, 42),
        ("b.json:system_prompt=77 78", 16, 10, 42),
        ("b.json:system_prompt=:num=4,a.jsonl:apply_chat_template=False", 16, 12, 42),
        # From the smallest to the largest, for else this version cuts one to another's size.
        ("a.jsonl:apply_chat_template=True:concat=True:num=4,c.jsonl:system_prompt=77:num=5,b.json:apply_chat_template",
         32, 16, 42),
    ]:
        rows = calib_dataset.get_dataset(Numbers(), seqlen, dataset, seed, nsamples)["input_ids"]
        rows = [[int(i) for i in row][:seqlen] for row in rows]
        cases.append({"dataset": dataset, "seqlen": seqlen, "nsamples": nsamples, "seed": seed, "rows": rows})
    with open("auto_round.json", "w") as file:
        json.dump({"made_by": "auto-round 0.16.1", "cases": cases}, file, separators=(",", ":"))


main()
