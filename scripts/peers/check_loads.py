#!/usr/bin/env python3
"""Loads a quantized checkpoint with other people's readers and compares it with the `fake` checkpoint of the same run.

Usage: check_loads.py OUT [--reference FAKE] [--original MODEL] [--loader NAME ...] [--dtype float16|bfloat16|float32] [--tokens N]

Loaders: `transformers` (as the config says: auto-round's reader for auto-round checkpoints), `auto-round` (transformers
with AutoRoundConfig, which also reads GPTQ and AWQ), `gptqmodel` (GPTQ and AWQ). Default: those that can read OUT.
bitsandbytes checkpoints are read by `transformers`; with --original, bitsandbytes also quantizes every layer of that
folder itself, and its tensors are compared with those of OUT byte for byte.

Per loader three things are compared with FAKE, a normal checkpoint of the rounded weights, which transformers reads:
  weights     every quantized layer is applied to the identity; relative difference to the layer of FAKE
  logits      of fixed token ids, relative to the largest logit
  generation  greedy continuation of them: the same tokens, or where they part
Exit code 1 if a loader fails or a weight differs by more than three roundings: FAKE's, and the reader's of the scale
and of the product, each of at most 2^-8 (bfloat16) or 2^-11 (float16) of the value.
"""

import argparse
import json
import pathlib
import sys

import torch


def load_transformers(path, dtype):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, device_map="cpu")
    for module in model.modules():  # bitsandbytes: its kernel for bfloat16 instructions rounds scales to bfloat16
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def load_auto_round(path, dtype):
    from transformers import AutoModelForCausalLM, AutoRoundConfig

    return AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, device_map="cpu", quantization_config=AutoRoundConfig()
    )


def load_gptqmodel(path, dtype):
    from gptqmodel import BACKEND, GPTQModel

    # The reference kernel: the others need a GPU or certain bits.
    awq = json.loads((pathlib.Path(path) / "config.json").read_text())["quantization_config"]["quant_method"] == "awq"
    backend = BACKEND.AWQ_TORCH if awq else BACKEND.GPTQ_TORCH
    return GPTQModel.load(str(path), device="cpu", backend=backend, dtype=dtype).model


LOADERS = {"transformers": load_transformers, "auto-round": load_auto_round, "gptqmodel": load_gptqmodel}
DEFAULTS = {"auto-round": ["transformers"], "gptq": ["auto-round", "gptqmodel"], "awq": ["auto-round", "gptqmodel"]}
LINEARS = (torch.nn.Linear,)  # a subclass is packed: bitsandbytes' Linear4bit


def weight_of(module, columns, dtype):
    """What the module multiplies by, (out, in): its answer to the identity, less its bias."""
    with torch.no_grad():
        out = module(torch.eye(columns, dtype=dtype)).float()
        out = out.reshape(columns, -1)
        bias = getattr(module, "bias", None)
        if isinstance(bias, torch.Tensor):
            out = out - bias.float()
    return out.T


def compare_weights(model, reference):
    worst, where, packed = 0.0, "", 0
    dtype = model.dtype  # some readers insist on float16
    modules = dict(model.named_modules())
    for name, linear in reference.named_modules():
        if not isinstance(linear, torch.nn.Linear):
            continue
        got = modules[name]
        if type(got) in LINEARS:  # a copy of the original, not ours to judge
            continue
        packed += 1
        want = linear.weight.float()
        diff = (weight_of(got, want.shape[1], dtype) - want).abs()
        # Relative to each weight; a weight of 0 must be 0.
        relative = torch.where(want == 0, torch.where(diff == 0, 0.0, float("inf")), diff / want.abs()).max().item()
        if not relative <= worst:
            worst, where = relative, name
    return worst, where, packed


class Folder:
    """All tensors of the safetensors files in a folder, by name."""

    def __init__(self, path):
        from safetensors import safe_open

        self.files = [safe_open(f, "pt") for f in sorted(pathlib.Path(path).glob("*.safetensors"))]
        self.of = {name: file for file in self.files for name in file.keys()}

    def __getitem__(self, name):
        return self.of[name].get_tensor(name)


def compare_bitsandbytes(out, original):
    """Layers whose tensors are those that bitsandbytes makes of the original's weight, and all NF4 layers."""
    import bitsandbytes.functional as bnb

    torch.set_num_threads(1)  # the order in which torch adds depends on it
    ours, theirs = Folder(out), Folder(original)
    mark = ".quant_state.bitsandbytes__nf4"
    same, layers = 0, [name.removesuffix(mark) for name in ours.of if name.endswith(mark)]
    for name in layers:
        nested = f"{name}.nested_absmax" in ours.of
        packed, state = bnb.quantize_4bit(theirs[name], compress_statistics=nested, quant_type="nf4")
        parts = state.as_dict(packed=True) | {"": packed}
        text = {k: json.loads(bytes(t.tolist())) for k, t in (("got", ours[name + mark]), ("want", parts.pop(mark[1:])))}
        differ = [k for k, t in parts.items() if not torch.equal(ours[name + (k and "." + k)], t)]
        if text["got"] != text["want"]:
            differ.append(f"quant_state: {text['got']}, bitsandbytes says {text['want']}")
        same += not differ
        if differ:
            print(f"{name}: other {', '.join(differ)}")
    return same, len(layers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--reference", type=pathlib.Path)
    parser.add_argument("--original", type=pathlib.Path)
    parser.add_argument("--loader", action="append", choices=sorted(LOADERS))
    parser.add_argument("--dtype", default="bfloat16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--tokens", type=int, default=16)
    args = parser.parse_args()
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    config = json.loads((args.out / "config.json").read_text())
    method = config.get("quantization_config", {}).get("quant_method")
    loaders = args.loader or DEFAULTS.get(method, ["transformers"])
    ids = torch.arange(1, 33).remainder(config["vocab_size"]).unsqueeze(0)
    reference = load_transformers(args.reference, dtype).eval() if args.reference else None
    rounding = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2**-11}
    stored = config.get("dtype") or config.get("torch_dtype") or "float16"
    bound = 3 * max(rounding[args.dtype], rounding[stored])
    failed = False
    if args.original:
        same, layers = compare_bitsandbytes(args.out, args.original)
        failed = same < layers or layers == 0
        print(f"{args.out.name}: {same} of {layers} layers hold the bytes that bitsandbytes makes of the original")
    for loader in loaders:
        try:
            model = LOADERS[loader](args.out, dtype).eval()
            with torch.no_grad():
                logits = model(ids).logits.float()
            tokens = model.generate(ids, max_new_tokens=args.tokens, do_sample=False)[0, ids.shape[1] :].tolist()
        except Exception as error:  # a loader's refusal is a result, not an accident
            print(f"{args.out.name}: {loader}: FAILED: {type(error).__name__}: {error}")
            failed = True
            continue
        report = f"{args.out.name}: {loader}: loads as {str(model.dtype)[6:]}, logits finite: {bool(torch.isfinite(logits).all())}"
        if reference is not None:
            worst, where, packed = compare_weights(model, reference)
            with torch.no_grad():
                want = reference(ids).logits.float()
            want_tokens = reference.generate(ids, max_new_tokens=args.tokens, do_sample=False)[0, ids.shape[1] :].tolist()
            same = next((k for k, (a, b) in enumerate(zip(tokens, want_tokens)) if a != b), len(tokens))
            bad = worst > bound or packed == 0
            failed |= bad
            report += (
                f", {packed} packed layers, weights differ by {worst:.2e} at most ({where or 'none'})"
                f", logits by {((logits - want).abs().max() / want.abs().max()).item():.2e}"
                f", first {same} of {len(want_tokens)} tokens equal{' -- TOO FAR' if bad else ''}"
            )
        print(report)
    sys.exit(failed)


if __name__ == "__main__":
    main()
