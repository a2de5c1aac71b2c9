#!/usr/bin/env python3
"""Makes testdata/models/*: random tiny models of the llama-like family and their logits, by transformers in f32.

usage: model_goldens.py OUTPUT_FOLDER

Each model is a folder with config.json, model.safetensors and golden.json: {"peer", "tokens", "logits" of the last
three positions}. Weights are random normal, large enough that every switch changes the logits visibly.
"""
import json
import os
import sys

import torch
import transformers
from safetensors.torch import save_file

SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=64, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False)

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32, "rope_theta": 500.0}

MODELS = {
    "llama2": (transformers.LlamaConfig, dict(num_key_value_heads=4)),
    "llama-bias": (transformers.LlamaConfig, dict(attention_bias=True, mlp_bias=True)),
    "llama31": (transformers.LlamaConfig, dict(rope_parameters=LLAMA3)),
    "llama32-tied": (transformers.LlamaConfig, dict(rope_parameters=LLAMA3 | {"factor": 32.0}, tie_word_embeddings=True, head_dim=16)),
    "llama-linear": (transformers.LlamaConfig, dict(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0})),
    "llama-dynamic": (transformers.LlamaConfig, dict(rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0})),
    "llama-yarn": (transformers.LlamaConfig, dict(max_position_embeddings=256, rope_parameters={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 100.0})),
    "mistral-window": (transformers.MistralConfig, dict(sliding_window=5, head_dim=8)),
    "qwen2": (transformers.Qwen2Config, dict(use_sliding_window=False)),
    "qwen2-window": (transformers.Qwen2Config, dict(use_sliding_window=True, sliding_window=6, max_window_layers=1)),
    "qwen3": (transformers.Qwen3Config, dict(head_dim=16, attention_bias=False)),
    "llama-longrope": (transformers.LlamaConfig, dict(max_position_embeddings=256, rope_parameters={
        "rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0,
        "short_factor": [1.0, 1.25, 1.75, 2.5], "long_factor": [1.0, 2.0, 4.0, 8.0]})),
}


def main():
    output, = sys.argv[1:]
    for number, (name, (config_class, switches)) in enumerate(MODELS.items()):
        torch.manual_seed(number)
        config = config_class(**(SIZES | switches), attn_implementation="eager")
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape)
                parameter.copy_(1 + 0.3 * noise if "norm" in key else 0.5 * noise if parameter.dim() == 1 else 0.35 * noise)
        model.tie_weights()
        tokens = torch.randint(0, config.vocab_size, (1, 24))
        with torch.no_grad():
            logits = model(tokens).logits[0]
        folder = os.path.join(output, name)
        os.makedirs(folder, exist_ok=True)
        written = config.to_dict()
        written["architectures"] = [type(model).__name__]
        json.dump(written, open(os.path.join(folder, "config.json"), "w"), indent=1, sort_keys=True)
        state = {k: v.contiguous() for k, v in model.state_dict().items() if not (config.tie_word_embeddings and k == "lm_head.weight")}
        save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        golden = {"peer": f"transformers {transformers.__version__}", "tokens": tokens[0].tolist(),
                  "logits": [[round(x, 6) for x in row] for row in logits[-3:].tolist()]}
        json.dump(golden, open(os.path.join(folder, "golden.json"), "w"))
        print(name, float(logits.max() - logits.min()))


main()
