#!/usr/bin/env python3
"""Makes a checkpoint of random weights of realistic scale and any size, for tests of memory and speed.

usage: make_synthetic.py OUT [--hidden 2048] [--intermediate 8192] [--blocks 30] [--heads 16] [--vocab 32000] [--shard-gb 2]

A Llama-like model in bf16 with config.json and shards; standard library only. The default is 4.3 GB.
"""
import argparse
import array
import json
import os
import random
import struct

PIECE = 1 << 20  # random values, used over and over at varying offsets


def bf16_block(seed):
    rng = random.Random(seed)
    words = array.array("H")
    for _ in range(PIECE):
        words.append(struct.unpack("<I", struct.pack("<f", rng.gauss(0, 0.02)))[0] >> 16)
    return words.tobytes()


def tensors(a):
    kv = a.hidden // 4
    yield "model.embed_tokens.weight", [a.vocab, a.hidden]
    for i in range(a.blocks):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", [a.hidden]
        for name, shape in (("self_attn.q_proj", [a.hidden, a.hidden]), ("self_attn.k_proj", [kv, a.hidden]),
                            ("self_attn.v_proj", [kv, a.hidden]), ("self_attn.o_proj", [a.hidden, a.hidden]),
                            ("mlp.gate_proj", [a.intermediate, a.hidden]), ("mlp.up_proj", [a.intermediate, a.hidden]),
                            ("mlp.down_proj", [a.hidden, a.intermediate])):
            yield p + name + ".weight", shape
        yield p + "post_attention_layernorm.weight", [a.hidden]
    yield "model.norm.weight", [a.hidden]
    yield "lm_head.weight", [a.vocab, a.hidden]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    for name, value in (("hidden", 2048), ("intermediate", 8192), ("blocks", 30), ("heads", 16), ("vocab", 32000)):
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--shard-gb", type=float, default=2)
    a = parser.parse_args()
    os.makedirs(a.out, exist_ok=True)
    shards, sizes = [[]], [0]
    for name, shape in tensors(a):
        size = 2
        for d in shape:
            size *= d
        if sizes[-1] + size > a.shard_gb * 1e9 and shards[-1]:
            shards.append([])
            sizes.append(0)
        shards[-1].append((name, shape, size))
        sizes[-1] += size
    block, weight_map = bf16_block(1), {}
    one = struct.pack("<H", 0x3F80)
    for number, shard in enumerate(shards):
        file_name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        header, offset = {"__metadata__": {"format": "pt"}}, 0
        for name, shape, size in shard:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
            weight_map[name] = file_name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(a.out, file_name), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for index, (name, shape, size) in enumerate(shard):
                if "norm" in name:
                    file.write(one * (size // 2))
                    continue
                start = 2 * (index * 7919 % PIECE)
                done = 0
                while done < size:
                    piece = block[start:start + size - done]
                    file.write(piece)
                    done += len(piece)
                    start = 0
    json.dump({"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map},
              open(os.path.join(a.out, "model.safetensors.index.json"), "w"))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": a.hidden,
              "intermediate_size": a.intermediate, "num_hidden_layers": a.blocks, "num_attention_heads": a.heads,
              "num_key_value_heads": max(1, a.heads // 4), "vocab_size": a.vocab, "max_position_embeddings": 4096,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
              "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2}
    json.dump(config, open(os.path.join(a.out, "config.json"), "w"), indent=1)
    print(f"{a.out}: {sum(sizes) / 1e9:.2f} GB in {len(shards)} files")


main()
