#!/usr/bin/env python3
"""Quantizes one model with GPTQModel and with `signround quantize --method gptq`, from the same weights with the same
samples, in turns, and prints what each loses and how long each takes.

usage: compare_gptq.py MODEL.gguf C4.jsonl TEXT SIGNROUND WORK [--bits 4,3] [--group-size 64] [--nsamples 128]
       [--seqlen 256] [--chunks 16] [--eval-seqlen 512] [--damp 0.01] [--only NAME,...] [--repeat 1] [--threads 2]

Run it in a virtual environment with GPTQModel (7.7.0), transformers and gguf. WORK/original becomes the model as a
folder in bfloat16, from which both programs start; samples are the first documents of C4.jsonl with at least --seqlen
tokens, cut to it (what signround takes under --no-shuffle). Settings that are compared, all symmetric with GPTQ's
grid (positive scales):
  act-order   columns by falling second moment; groups stay where they are (GPTQModel: desc_act, static_groups)
  in-order    columns as they lie; a group's grid from its weights as they are then (GPTQModel: neither)
  default     what each program does if only bits and group size are said: GPTQModel permutes within and among groups
              (act_group_aware), signround is act-order with full-range symmetric scales
Both results are evaluated by `signround eval --reference WORK/original`. One JSON line per run, then a table of means.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time

SETTINGS = {
    "act-order": ({"desc_act": True, "act_group_aware": False, "static_groups": True}, ["--gptq-sym", "--act-order"]),
    "in-order": ({"desc_act": False, "act_group_aware": False}, ["--gptq-sym", "--no-act-order"]),
    "default": ({}, []),
}


def make_original(gguf, folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, file = os.path.split(os.path.abspath(gguf))
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.bfloat16)
    model.hf_quantizer = None  # dequantized by now; the mark of the GGUF file would forbid saving
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(where, gguf_file=file).save_pretrained(folder)


def run_gptqmodel(a):
    """In a process of its own: the peak of memory is that of one run."""
    for name in ("text", "work", "out", "result"):
        setattr(a, name, os.path.abspath(getattr(a, name)))
    os.chdir(a.work)  # it writes logs where it stands
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig
    from transformers import AutoTokenizer

    torch.set_num_threads(a.threads)
    original = str(pathlib.Path(a.work) / "original")
    tokenizer = AutoTokenizer.from_pretrained(original)
    samples = []
    for line in open(a.text, encoding="utf-8"):
        ids = tokenizer(json.loads(line)["text"], truncation=True, max_length=a.seqlen)["input_ids"]
        if len(ids) >= a.seqlen:
            samples.append({"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)})
        if len(samples) == a.nsamples:
            break
    config = dict(SETTINGS[a.setting][0])
    if a.setting != "default":
        config["damp_percent"] = a.damp
    start = time.time()
    config = QuantizeConfig(bits=int(a.bits), group_size=a.group_size, sym=True, device="cpu", offload_to_disk=False, **config)
    model = GPTQModel.load(original, config)
    model.quantize(samples, batch_size=4, calibration_data_min_length=1)
    model.save(a.out)
    with open(a.result, "w") as file:
        json.dump({"seconds": time.time() - start, "samples": len(samples), "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}, file)


def main():
    p = argparse.ArgumentParser()
    for name in ("model", "text", "evaluated", "signround", "work"):
        p.add_argument(name)
    p.add_argument("--bits", default="4,3")
    p.add_argument("--only", default="act-order,in-order,default")
    for name, value in (("group-size", 64), ("nsamples", 128), ("seqlen", 256), ("chunks", 16), ("eval-seqlen", 512), ("repeat", 1), ("threads", 2)):
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--damp", type=float, default=0.01)
    for name in ("setting", "out", "result"):  # of the process that runs GPTQModel
        p.add_argument("--" + name, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.setting:
        return run_gptqmodel(a)
    work = pathlib.Path(a.work)
    work.mkdir(parents=True, exist_ok=True)
    original = work / "original"
    if not (original / "config.json").exists():
        make_original(a.model, original)
    rows = {}
    for bits in a.bits.split(","):
        for setting in a.only.split(","):
            for _ in range(a.repeat):
                for program in ("gptqmodel", "signround"):
                    out = work / f"{program}-{setting}-{bits}"
                    shutil.rmtree(out, ignore_errors=True)
                    if program == "gptqmodel":
                        result = work / "result.json"
                        subprocess.run([sys.executable] + sys.argv + ["--bits", bits, "--setting", setting, "--out", str(out), "--result", str(result)],
                                       check=True, stdout=sys.stderr, env={**os.environ, "OMP_NUM_THREADS": str(a.threads), "GPTQMODEL_CPU_WORKERS": "2"})  # its default is one on two processors, and it asks for two
                    else:
                        flags = SETTINGS[setting][1] + ([] if setting == "default" else ["--damp", str(a.damp)])
                        subprocess.run([a.signround, "quantize", original, "-o", out, "--method", "gptq", "--format", "gptq", "--bits", bits,
                                        "--group-size", str(a.group_size), "--dataset", a.text, "--no-shuffle", "--nsamples", str(a.nsamples),
                                        "--seqlen", str(a.seqlen), "--threads", str(a.threads), "--quiet"] + flags, check=True, stdout=sys.stderr)
                        result = out / "signround.json"
                    run = json.loads(result.read_text())
                    found = json.loads(subprocess.run([a.signround, "eval", out, "--reference", original, "--text", a.evaluated, "--seqlen", str(a.eval_seqlen),
                                                       "--limit", str(a.chunks), "--threads", str(a.threads), "--json"], check=True, capture_output=True).stdout)["results"][0]
                    line = {"bits": int(bits), "setting": setting, "program": program, "kl": found["kl"]["mean"], "perplexity": found["perplexity"]["value"],
                            "seconds": run["seconds"], "peak_rss_bytes": run["peak_rss_bytes"]}
                    print(json.dumps(line), flush=True)
                    rows.setdefault((bits, setting, program), []).append(line)
    print("| bits | setting | program | KL | perplexity | seconds | peak MB |\n|---|---|---|---|---|---|---|")
    for (bits, setting, program), lines in rows.items():
        mean = {k: sum(line[k] for line in lines) / len(lines) for k in ("kl", "perplexity", "seconds", "peak_rss_bytes")}
        print(f"| {bits} | {setting} | {program} | {mean['kl']:.4f} | {mean['perplexity']:.2f} | {mean['seconds']:.1f} | {mean['peak_rss_bytes'] / 1e6:,.0f} |")


main()
