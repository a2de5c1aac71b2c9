#!/usr/bin/env python3
"""Compares the ids of `signround tokenize` with those of llama.cpp for every splitter that GGUF files name.

    scripts/peers/compare_gguf_tokenizers.py --signround build/release/signround --bytes GPT2 --plain LLAMA2 [NAME...]

Makes a tiny model for each name of `tokenizer.ggml.pre` (all those that signround knows, or the NAMEs) with the vocabulary
and merges of a tokenizer.json: GPT2's, a folder with a byte-level BPE, for all names but those of plain vocabularies, which
get that of LLAMA2, a SentencePiece BPE with byte tokens. llama.cpp tokenizes random texts (its server; special tokens
parsed and added) and so does signround. Prints for each name how many texts differ, and the first differences. Names whose
original expression signround follows where llama.cpp's is simpler are expected to differ (docs/tokenizers.md): the last
column has how many of these get llama.cpp's ids from the `tokenizers` package when it cuts by that simpler rule.
Needs: xllamacpp (with llama.cpp inside), gguf, numpy, tokenizers."""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import urllib.request

import gguf
import numpy as np
import tokenizers

sys.path.insert(0, os.path.dirname(__file__))
from compare_tokenizers import random_text  # noqa: E402

PLAIN = ("gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace")
SPECIAL = ["<mask>", "<|im_end|>", "<tool>", "[MASK]"]

SOURCE = os.path.join(os.path.dirname(__file__), "../../src/signround/text/gguf_pre_tokenizer.cc")
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"


def without_unicode_spaces(name):
    """The expressions of an array of SOURCE; ranges beyond ASCII lose their white space, which llama.cpp makes a vertical
    tab before it looks at any."""
    with open(SOURCE, encoding="utf-8") as file:
        body = file.read().split(f"constexpr const char* {name}[] = {{")[1].split("};")[0]
    joined = "".join(m[1] + m[2] for m in re.finditer(r'R"\((.*?)\)"(,?)', body, re.DOTALL))
    expressions = [re.sub(r"\\x\{([0-9A-F]+)\}", lambda m: chr(int(m[1], 16)), e) for e in joined.split(",")]
    return [re.sub(r"^(\\s\?)?(\[.*[^\x00-\x7f].*\])\+$", r"\1(?:(?!\\s)\2)+", e) for e in expressions]


# What llama.cpp has in place of the originals: no NFC; one class for all letters, and digits by three from the right whatever
# follows; \d of ASCII only; white space of ASCII only in ranges.
TINY_AYA = [r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
            rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+{CONTRACTIONS}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{SPACES}"]
SIMPLER = {
    "qwen2": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACES],
    "qwen35": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + SPACES],
    "tiny_aya": TINY_AYA,
    "cohere2moe": TINY_AYA,
    "superbpe": [r"\p{N}+", r"(?=([0-9]{3})+(?![0-9]))"],
    "deepseek-llm": without_unicode_spaces("kDeepseekLlm"),
    "deepseek-coder": without_unicode_spaces("kDeepseekCoder"),
}


def explained(name, differences, folders):
    """How many of [(text, llama.cpp's ids, ...)] the simpler rule of this name gives."""
    if name not in SIMPLER:
        return 0
    split, pre = tokenizers.Regex, tokenizers.pre_tokenizers
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folders.bytes, "tokenizer.json"))
    tokenizer.pre_tokenizer = pre.Sequence([pre.Split(split(e), "isolated") for e in SIMPLER[name]] +
                                           [pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    special = ("<bos>", "<mask>", "<|im_end|>", "<tool>")
    tokenizer.add_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t in special])
    bos = tokenizer.token_to_id("<bos>")
    return sum(tokenizer.encode(text).ids == ids[ids[:1] == [bos]:] for text, ids, _ in differences)


def read_vocabulary(folder):
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
        model = json.load(file)["model"]
    tokens = [t for t, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    pairs = [pair for pair in pairs if len(pair) == 2]
    return tokens, [" ".join(part.replace(" ", "\u0120") for part in pair) for pair in pairs]  # as gguf.SpecialVocab writes


def vocabulary(name, folders):
    """Tokens, types, merges."""
    plain = name in PLAIN
    tokens, merges = read_vocabulary(folders.plain if plain else folders.bytes)
    kind = gguf.TokenType
    types = [kind.BYTE if re.fullmatch("<0x[0-9A-F]{2}>", t) else kind.NORMAL for t in tokens]
    for special in ("<unk>", "<s>", "</s>", "<|endoftext|>"):
        if special in tokens:
            types[tokens.index(special)] = kind.CONTROL
    added = [("\n" * n, kind.NORMAL) for n in (1, 2, 3, 4, 7)] if plain else []
    added += [("<bos>", kind.CONTROL), ("<mask>", kind.CONTROL), ("<|im_end|>", kind.NORMAL), ("<tool>", kind.USER_DEFINED)]
    for token, type_ in added:
        if token not in tokens:
            tokens.append(token)
            types.append(type_)
    if plain:
        merges += ["\n \n", "\n\n \n", "\n\n \n\n", "\n\n\n\n \n\n\n"]  # make all those runs, as Gemma's do
    return tokens, types, merges


def write_model(path, name, model, folders):
    tokens, types, merges = vocabulary(name, folders)
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(64)
    w.add_embedding_length(32)
    w.add_block_count(1)
    w.add_feed_forward_length(32)
    w.add_head_count(1)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(len(tokens))
    w.add_tokenizer_model(model)
    w.add_tokenizer_pre(name)
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    for key in ("bos", "eos", "sep"):
        getattr(w, f"add_{key}_token_id")(tokens.index("<bos>"))
    square, vector = np.zeros((32, 32), np.float32), np.ones(32, np.float32)
    w.add_tensor("token_embd.weight", np.zeros((len(tokens), 32), np.float16))
    w.add_tensor("output_norm.weight", vector)
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        w.add_tensor(f"blk.0.{part}.weight", square)
    for part in ("attn_norm", "ffn_norm"):
        w.add_tensor(f"blk.0.{part}.weight", vector)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def serve(path):
    """The child: texts as JSON lines in, ids as JSON lines out."""
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 64
    params.n_parallel = 1
    params.warmup = False
    params.verbosity = -1
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    for line in sys.stdin:
        content = {"content": json.loads(line), "add_special": True, "parse_special": True}
        request = urllib.request.Request(server.listening_address + "/tokenize", data=json.dumps(content).encode(),
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            print(json.dumps(json.load(answer)["tokens"]), flush=True)


def llama_cpp_ids(path, texts):
    """Ids of each text; None where llama.cpp aborts."""
    ids = []
    while len(ids) < len(texts):
        lines = "".join(json.dumps(t) + "\n" for t in texts[len(ids):])
        run = subprocess.run([sys.executable, __file__, "--serve", path], input=lines, capture_output=True, text=True)
        answers = [json.loads(line) for line in run.stdout.splitlines() if re.fullmatch(r"\[[\d, ]*\]", line)]
        if run.returncode == 0 and len(answers) + len(ids) != len(texts) or not (answers or ids):
            sys.exit(f"llama.cpp: {run.stderr[-2000:]}")
        ids += answers + [None] * (run.returncode != 0)
    return ids


def signround_ids(program, path, texts):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as lines:
        lines.writelines(json.dumps({"text": t}) + "\n" for t in texts)
        lines.flush()
        run = subprocess.run([program, "tokenize", path, "--file", lines.name, "--json"], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(run.stderr)
    return [json.loads(line)["ids"] for line in run.stdout.splitlines()]


def known_names(program):
    """From the error about a name that is not known."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.gguf")
        w = gguf.GGUFWriter(path, "llama")
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("?")
        w.add_token_list(["a"])
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        run = subprocess.run([program, "tokenize", path, "--text", "a"], capture_output=True, text=True)
    return run.stderr.strip().split("known are ")[1].split(", ")


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--serve":
        return serve(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--signround", default="build/release/signround")
    parser.add_argument("--bytes", required=True, help="folder of a byte-level tokenizer.json")
    parser.add_argument("--plain", required=True, help="folder of a SentencePiece-like tokenizer.json")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=2, help="differences to print")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    texts = [random_text(rng, SPECIAL) for _ in range(args.count)]
    texts += ["\n" * n for n in range(1, 12)] + ["a" + "\n" * n + "b" for n in range(1, 12)] + ["a  <mask>  b", " <tool> a"]
    texts = [t for t in texts if t]
    print("| pre | texts | llama.cpp aborts | differ | by the simpler rule |\n|---|---|---|---|---|")
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gguf")
        for name in args.names or known_names(args.signround):
            for model in {"gemma4": ["gemma4", "gpt2"], "whitespace": ["whitespace"]}.get(name, ["gpt2"]):
                write_model(path, name, model, args)
                got = signround_ids(args.signround, path, texts)
                wanted = llama_cpp_ids(path, texts)
                wrong = [(t, w, g) for t, w, g in zip(texts, wanted, got) if w is not None and w != g]
                label = name if model == "gpt2" else f"{name}, model {model}"
                print(f"| {label} | {len(texts)} | {wanted.count(None)} | {len(wrong)} | "
                      f"{explained(name, wrong, args)} |", flush=True)
                for text, want, have in sorted(wrong, key=lambda d: len(d[0]))[:args.show]:
                    print(f"  {text!r}\n    llama.cpp {want}\n    signround {have}")
                different += len(wrong)
    sys.exit(different != 0)


if __name__ == "__main__":
    main()
