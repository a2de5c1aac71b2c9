#!/usr/bin/env python3
"""Writes testdata/io/gguf_blocks.safetensors: random blocks of every GGUF type that is read, and their values in f32
as the reference package dequantizes them. Made with gguf 0.19.0, numpy 2.4.6, safetensors 0.8.0."""
import sys

import gguf
import numpy as np
from safetensors.numpy import save_file

# Type -> byte offsets of the f16 fields in a block; they are kept finite, so that every value can be compared.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0]}


def main(out):
    random = np.random.default_rng(20240901)
    tensors = {}
    for name, halves in HALVES.items():
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (1024 // values, size), dtype=np.uint8)
        for offset in halves:
            exponent = blocks[:, offset + 1] >> 2 & 31
            blocks[:, offset + 1] = np.where(exponent == 31, blocks[:, offset + 1] ^ 64, blocks[:, offset + 1])
        decoded = gguf.dequantize(blocks, kind)
        assert np.isfinite(decoded).all()
        tensors[name + ".blocks"] = blocks
        tensors[name + ".values"] = decoded.astype(np.float32).reshape(-1)
    save_file(tensors, out, metadata={"made_with": "gguf 0.19.0"})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "testdata/io/gguf_blocks.safetensors")
