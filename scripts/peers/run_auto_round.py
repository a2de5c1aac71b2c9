#!/usr/bin/env python3
"""Runs auto-round on a GGUF file or a folder of Hugging Face's with the samples that signround takes under --no-shuffle, and times it.

usage: run_auto_round.py MODEL C4.jsonl OUT --bits 4 [--group-size 64] [--iters 200] [--nsamples 64] [--seqlen 256]
       [--batch-size 4] [--blocks 8] [--seed 42]

The first --blocks blocks are quantized (0: all), full-range symmetric. OUT gets the dequantized model (format fake), so
that `signround eval OUT --reference MODEL.gguf` measures both programs' results with the same instrument.
Prints one JSON line: seconds of quantize (start-up and compilation in it), of each block (from one block's end to the
next one's), peak resident bytes.
"""
import argparse
import json
import os
import resource
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("text")
    p.add_argument("out")
    for name, value in (("bits", 4), ("group-size", 64), ("iters", 200), ("nsamples", 64), ("seqlen", 256), ("batch-size", 4), ("blocks", 8), ("seed", 42)):
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--no-amp", action="store_true", help="products in float32, as auto-round does where the processor has none in bfloat16")
    a = p.parse_args()
    folder, source = os.path.abspath(a.model), {}
    if not os.path.isdir(folder):
        folder, file = os.path.split(folder)
        source = {"gguf_file": file}
    tokenizer = AutoTokenizer.from_pretrained(folder, **source)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **source)
    model.hf_quantizer = None  # dequantized by now; the mark of the GGUF file would forbid saving
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    samples = []
    for line in open(a.text, encoding="utf-8"):
        ids = tokenizer(json.loads(line)["text"], truncation=True, max_length=a.seqlen)["input_ids"]
        if len(ids) >= a.seqlen:
            samples.append({"input_ids": torch.tensor([ids])})
        if len(samples) == a.nsamples:
            break
    from auto_round import AutoRound
    from auto_round.algorithms.quantization.sign_round.quantizer import SignRoundQuantizer
    ends, tune = [], SignRoundQuantizer.quantize_block

    def timed(*args, **kwargs):
        result = tune(*args, **kwargs)
        ends.append(time.time())
        return result

    SignRoundQuantizer.quantize_block = timed
    start = time.time()
    layers = {n: {"bits": 16} for n, m in model.named_modules()
              if isinstance(m, torch.nn.Linear) and a.blocks and n.startswith("model.layers.") and int(n.split(".")[2]) >= a.blocks}
    tuner = AutoRound(model, tokenizer, bits=a.bits, group_size=a.group_size, sym=True, iters=a.iters, nsamples=a.nsamples,
                      seqlen=a.seqlen, batch_size=a.batch_size, dataset=samples, seed=a.seed, layer_config=layers, device_map="cpu",
                      **({"amp": False} if a.no_amp else {}))
    tuner.quantize()
    seconds = time.time() - start
    tuner.save_quantized(a.out, format="fake")
    tokenizer.save_pretrained(a.out)
    blocks = [end - before for before, end in zip([start] + ends, ends)]
    print(json.dumps({"seconds": seconds, "block_seconds": blocks[:a.blocks] if a.blocks else blocks, "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                      "samples": len(samples)}))


main()
