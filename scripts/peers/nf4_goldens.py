#!/usr/bin/env python3
"""Rounds small matrices with bitsandbytes on the CPU and stores what it gave: testdata/quant/nf4.safetensors.

For a case C: C.weight, C.packed (two codes a byte, the first in the high half), C.absmax (F32; with double
quantization U8), C.nested_absmax and C.quant_state (JSON) as its checkpoints hold them, C.dequantized (F32).
`levels` and `dynamic_map` are its tables. `mean.sizes` and `mean.values`: torch's mean of that many f32 values, the
k-th of them (k * 2654435761 mod 2^32) >> 8 times 2^-24. One thread: torch sums in another order on more.

Usage: nf4_goldens.py OUT.safetensors    (bitsandbytes 0.50.2, torch 2.15)
"""

import sys

import bitsandbytes.functional as bnb
import torch
from safetensors.torch import save_file

# Lanes, accumulators and their levels fill up at multiples of 8, 32, 512 and 8192; 32768 is where threads would start.
SIZES = [1, 3, 6, 7, 8, 9, 31, 33, 63, 100, 255, 257, 511, 513, 1000, 4097, 8191, 16390, 32767, 32769, 65537, 500001]


def weight(generator, rows, columns, dtype):
    w = torch.randn(rows, columns, generator=generator) * 0.02
    w[torch.rand(rows, columns, generator=generator) < 0.002] *= 20
    return w.to(dtype)


def magnitudes(w):
    blocks = torch.nn.functional.pad(w.flatten(), (0, -w.numel() % 64)).view(-1, 64)
    return blocks.abs().amax(1)


def short_block(g):
    """7 blocks whose magnitudes add up to another sum in eight lanes; in the last, division by the magnitude is not
    multiplication by its inverse."""
    levels = bnb.get_4bit_type("nf4", device="cpu")
    middle = (levels[:-1] + levels[1:]) / 2
    while True:
        w = weight(g, 7, 61, torch.float32)
        tail = w.view(-1)[384:]
        tail[0] = largest = tail.abs().max() * 1.5
        near = middle * largest * (1 - 3e-7 * middle.sign())
        for _ in range(10):  # up to where only one of the two is beyond the middle
            same = (near / largest > middle) == (near * (1 / largest) > middle)
            near = torch.where(same, torch.nextafter(near, torch.tensor(1.0)), near)
        tail[1:16] = near
        a = magnitudes(w)
        if not bool(same.all()) and a.mean() != sum(a) / 7:
            return w


def cases():
    g = torch.Generator().manual_seed(20)
    yield "f32", weight(g, 50, 384, torch.float32), 64  # 300 blocks: a full nested block and a short one
    yield "bf16", weight(g, 32, 128, torch.bfloat16), 64
    yield "f16", weight(g, 32, 64, torch.float16), 64
    yield "block128", weight(g, 16, 128, torch.float32), 128
    yield "short", short_block(g), 64  # an odd number of weights, the last block short
    # With rows that are no whole blocks, bitsandbytes 0.50.2 dequantizes wrongly on a CPU with AVX-512 unless their
    # length is no multiple of 16: it would take the scales of other blocks.
    yield "across", weight(g, 12, 72, torch.float32), 64
    special = weight(g, 8, 64, torch.float32)
    special[0] = 0  # 0 / 0
    special[1] = 1e-42  # below what a block is divided by
    special[2, 1:] = 0
    levels = bnb.get_4bit_type("nf4", device="cpu")
    middle = (levels[:-1] + levels[1:]) / 2
    special[3, :15] = middle  # ties, and their neighbours
    special[3, 15] = -1
    special[4, :15] = torch.nextafter(middle, torch.tensor(2.0))
    special[4, 15] = 1
    special[5] = -0.0
    special[6] = 3e38
    yield "special", special, 64
    yield "constant", torch.full((4, 64), 0.25), 64  # magnitudes that are all their mean
    zero_tail = weight(g, 1, 80, torch.float32)
    zero_tail[0, 64:] = 0
    yield "zero_tail", zero_tail, 64


def main():
    torch.set_num_threads(1)
    stored = {"levels": bnb.get_4bit_type("nf4", device="cpu"), "dynamic_map": bnb.create_dynamic_map()}
    for name, w, block in cases():
        for nested in (False, True):
            case = f"{name}.{'double' if nested else 'single'}"
            packed, state = bnb.quantize_4bit(w.clone(), blocksize=block, compress_statistics=nested, quant_type="nf4")
            parts = state.as_dict(packed=True)
            stored[f"{name}.weight"] = w
            stored[f"{case}.packed"] = packed
            stored[f"{case}.absmax"] = parts["absmax"]
            stored[f"{case}.quant_state"] = parts["quant_state.bitsandbytes__nf4"]
            if nested:
                stored[f"{case}.nested_absmax"] = parts["nested_absmax"]
            state.dtype = torch.float32  # unrounded
            stored[f"{case}.dequantized"] = bnb.dequantize_4bit(packed, state)
    values = torch.arange(max(SIZES), dtype=torch.int64) * 2654435761 % 2**32 // 256
    values = (values.double() * 2.0**-24).float()
    stored["mean.sizes"] = torch.tensor(SIZES)
    stored["mean.values"] = torch.stack([values[:n].clone().mean() for n in SIZES])
    save_file({k: v.contiguous() for k, v in stored.items()}, sys.argv[1])
    print(len(stored), "tensors")


if __name__ == "__main__":
    main()
