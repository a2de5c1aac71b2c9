#!/usr/bin/env python3
"""Writes testdata/tokenizers/: small tokenizers of every kind that tokenizer.json knows, and what the reference makes of
a few texts. Made with tokenizers 0.23.3.

    scripts/peers/make_tokenizer_goldens.py [--folders DIR]

NAME.json is the tokenizer, trained here on the text below; NAME.jsonl has a line for each text: the text, the ids with and
without special tokens, and both decodings. With --folders, DIR/NAME/tokenizer.json is written too, for
compare_tokenizers.py."""
import argparse
import json
import os
import random
import sys

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers)

sys.path.insert(0, os.path.dirname(__file__))
from compare_tokenizers import random_text  # noqa: E402

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 12:30, and we've counted 1234 foxes; they'll run!",
    "def main(argc, argv):\n    return sum(x ** 2 for x in range(10))\n\n\nif __name__ == '__main__':\n\tmain(1, [])",
    "Größe, naïve café, résumé; Ελληνικά, русский язык, עברית, العربية, हिन्दी, ไทย.",
    "今天天气很好，我们去公园散步吧。人工智能正在改变世界！ひらがなとカタカナ。한국어도 있습니다.",
    "Tokenization of texts: tokens, tokenizers, tokenized tokenizations. 100,000.50 and 42 and 007.",
] * 4
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK = ["\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TIKTOKEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
BYTES = [f"<0x{b:02X}>" for b in range(256)]


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def bpe(normalizer=None, pre=None, size=400, special=("<s>", "</s>"), decoder=None, trainer=None, **options):
    tok = Tokenizer(models.BPE(**options))
    if normalizer:
        tok.normalizer = normalizer
    if pre:
        tok.pre_tokenizer = pre
    extra = {k: options[k] for k in ("continuing_subword_prefix", "end_of_word_suffix") if k in options}
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), show_progress=False,
                                                        **extra, **(trainer or {})))
    if decoder:
        tok.decoder = decoder
    return tok


def byte_bpe(pre, normalizer=None, **options):
    alphabet = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    return bpe(normalizer, pre, size=500, special=["<|endoftext|>"], decoder=decoders.ByteLevel(), trainer=alphabet, **options)


def with_bytes(tok):
    """Adds byte fallback to a trained BPE or Unigram."""
    data = json.loads(tok.to_str())
    model = data["model"]
    model["byte_fallback"] = True
    if model["type"] == "BPE":
        for token in BYTES:
            model["vocab"][token] = len(model["vocab"])
    else:
        model["vocab"] += [[token, -20.0] for token in BYTES]
    return Tokenizer.from_str(json.dumps(data))


def unigram(normalizer, pre, decoder, size=300):
    tok = Tokenizer(models.Unigram())
    if normalizer:
        tok.normalizer = normalizer
    if pre:
        tok.pre_tokenizer = pre
    tok.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=size, special_tokens=["<unk>", "<s>", "</s>"],
                                                            unk_token="<unk>", show_progress=False))
    tok.decoder = decoder
    return tok


def word_level(pre, normalizer=None, decoder=None):
    tok = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre
    tok.train_from_iterator(CORPUS, trainers.WordLevelTrainer(vocab_size=200, special_tokens=["[UNK]", "[PAD]"], show_progress=False))
    if decoder:
        tok.decoder = decoder
    return tok


def word_piece(normalizer, pre, processor=True):
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    tok.normalizer = normalizer
    tok.pre_tokenizer = pre
    tok.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"],
                                                              show_progress=False))
    if processor:
        tok.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tok.decoder = decoders.WordPiece()
    return tok


def template(tok, single="<s> $A", names=("<s>",)):
    tok.post_processor = processors.TemplateProcessing(single=single, special_tokens=[(n, tok.token_to_id(n)) for n in names])
    return tok


def llama_decoder(strip=True):
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


def charsmap():
    """A small precompiled character map as SentencePiece builds them, its double array built the slow way."""
    import struct
    rules = {"ﬁ": "fi", "①": "1", "Ａ": "A", "　": " ", "ｶﾞ": "ガ", "é": "é", "か\u3099": "が", "\t": " ", "…": "...", "\u200b": ""}
    strings, offset_of = b"", {}
    for key, value in rules.items():
        offset_of[key.encode()] = len(strings)
        strings += value.encode() + b"\0"
    trie = {}
    for key in offset_of:
        node = trie
        for byte in key:
            node = node.setdefault(byte, {})
        node[None] = offset_of[key]
    units, used = {}, {0}

    def place(node, at, label):
        labels = [0 if k is None else k for k in node]
        base = 1
        while base ^ at == 0 or any((base ^ k) in used for k in labels) or (base ^ at) >= 1 << 21:
            base += 1
        for k in labels:
            used.add(base ^ k)
        units[at] = label | (base ^ at) << 10 | (1 << 8 if None in node else 0)
        for k, child in node.items():
            if k is None:
                units[base] = child | 1 << 31
            else:
                place(child, base ^ k, k)

    place(trie, 0, 0)
    array = [units.get(i, 0) for i in range(max(units) + 1)]
    array += [0] * (-len(array) % 256)
    return struct.pack("<I", 4 * len(array)) + struct.pack(f"<{len(array)}I", *array) + strings


def variants():
    bl, ms = pre_tokenizers.ByteLevel, pre_tokenizers.Metaspace
    ws = pre_tokenizers.Whitespace()
    no_regex = bl(add_prefix_space=False, use_regex=False)
    yield "bpe-gpt2", byte_bpe(bl(add_prefix_space=False))
    yield "bpe-gpt2-prefix", byte_bpe(bl(add_prefix_space=True))
    tok = byte_bpe(pre_tokenizers.Sequence([split(LLAMA3), no_regex]), ignore_merges=True)
    yield "bpe-llama3", template(tok, "<|endoftext|> $A", ["<|endoftext|>"])
    yield "bpe-qwen2", byte_bpe(pre_tokenizers.Sequence([split(QWEN2), no_regex]), normalizers.NFC())
    yield "bpe-smollm2", byte_bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), bl(add_prefix_space=False)]))
    yield "bpe-deepseek", byte_bpe(pre_tokenizers.Sequence([split(p) for p in DEEPSEEK] + [no_regex]))
    yield "bpe-o200k", byte_bpe(pre_tokenizers.Sequence([split(O200K), no_regex]))
    yield "bpe-tiktoken", byte_bpe(pre_tokenizers.Sequence([split(TIKTOKEN, "removed", True), no_regex]))
    yield "bpe-bytelevel-normalizer", bpe(normalizers.Sequence([normalizers.NFKC(), normalizers.ByteLevel()]), split(r"Ġ?\w+|.", "isolated"),
                                          decoder=decoders.ByteLevel(), trainer={"initial_alphabet": bl.alphabet()})
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    yield "bpe-llama2", template(with_bytes(bpe(prepend, decoder=llama_decoder(), unk_token="<unk>", fuse_unk=True,
                                                special=["<unk>", "<s>", "</s>"], trainer={"max_token_length": 12})))
    for scheme in ("first", "always", "never"):
        for cut in (True, False):
            yield f"bpe-metaspace-{scheme}-{'split' if cut else 'whole'}", with_bytes(
                bpe(None, ms("▁", scheme, cut), decoder=decoders.Metaspace("▁", scheme), unk_token="<unk>", special=["<unk>", "<s>"],
                    trainer={"max_token_length": 12}))
    yield "bpe-gemma", with_bytes(bpe(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), unk_token="<unk>",
                                      fuse_unk=True, special=["<unk>", "<bos>"], decoder=llama_decoder(False), trainer={"max_token_length": 12}))
    yield "bpe-clip", bpe(normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]),
                          split(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", "removed", True), end_of_word_suffix="</w>",
                          unk_token="<unk>", special=["<unk>"], decoder=decoders.BPEDecoder("</w>"))
    yield "bpe-unk", bpe(None, ws, unk_token="<unk>", special=["<unk>"], trainer={"limit_alphabet": 40})
    yield "bpe-fuse-unk", bpe(None, pre_tokenizers.WhitespaceSplit(), unk_token="<unk>", fuse_unk=True, special=["<unk>"],
                              trainer={"limit_alphabet": 40})
    yield "bpe-prefix", bpe(None, pre_tokenizers.BertPreTokenizer(), unk_token="<unk>", special=["<unk>"],
                            continuing_subword_prefix="##")
    t5 = normalizers.Sequence([normalizers.Precompiled(charsmap()), normalizers.Strip(left=False, right=True),
                               normalizers.Replace(Regex(" {2,}"), "▁")])
    yield "unigram-t5", template(unigram(t5, ms("▁", "always"), decoders.Metaspace("▁", "always")), "$A </s>", ["</s>"])
    yield "unigram-bytes", with_bytes(unigram(normalizers.Nmt(), ms("▁", "first", False), llama_decoder()))
    yield "unigram-scripts", unigram(normalizers.NFKD(), pre_tokenizers.Sequence([pre_tokenizers.UnicodeScripts(), pre_tokenizers.Digits(False)]),
                                     decoders.Fuse())
    yield "wordpiece-bert", word_piece(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer())
    yield "wordpiece-cased", word_piece(normalizers.BertNormalizer(lowercase=False, strip_accents=True, handle_chinese_chars=False),
                                        pre_tokenizers.BertPreTokenizer(), False)
    yield "wordlevel-whitespace", word_level(ws, normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]))
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        yield f"wordlevel-punctuation-{behavior.replace('_', '-')}", word_level(
            pre_tokenizers.Sequence([pre_tokenizers.Punctuation(behavior), pre_tokenizers.CharDelimiterSplit(" ")]))
        yield f"wordlevel-split-{behavior.replace('_', '-')}", word_level(split(r"\s+|\d", behavior), normalizers.Strip(),
                                                                          decoders.CTC("[PAD]", "|", True))
        yield f"wordlevel-invert-{behavior.replace('_', '-')}", word_level(split(r"\w+", behavior, True))
    yield "wordlevel-fixed", word_level(pre_tokenizers.FixedLength(3))
    added = template(with_bytes(bpe(prepend, decoder=llama_decoder(), unk_token="<unk>", special=["<unk>", "<s>"], trainer={"max_token_length": 8})))
    added.add_tokens([AddedToken("[L]", lstrip=True), AddedToken("[R]", rstrip=True), AddedToken("[LR]", lstrip=True, rstrip=True, normalized=False),
                      AddedToken("word", single_word=True, normalized=False), AddedToken("norm al"), AddedToken("<|tool|>", special=True),
                      AddedToken("<|tool|>x", normalized=False), AddedToken("  ", normalized=False)])
    yield "added-tokens", added
    lower = byte_bpe(bl(add_prefix_space=True), normalizers.Lowercase())
    lower.add_tokens([AddedToken("ABC", normalized=True), AddedToken("DEF", normalized=False), AddedToken("é", single_word=True, normalized=True)])
    lower.add_special_tokens([AddedToken("<EOS>", normalized=True, rstrip=True)])
    lower.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                                processors.RobertaProcessing(("<EOS>", lower.token_to_id("<EOS>")), ("<|endoftext|>", 0))])
    yield "added-normalized", lower


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folders")
    parser.add_argument("--out", default="testdata/tokenizers")
    args = parser.parse_args()
    if not args.folders:
        os.makedirs(args.out, exist_ok=True)
    for name, tok in variants():
        text = tok.to_str()
        tok = Tokenizer.from_str(text)
        if args.folders:
            os.makedirs(os.path.join(args.folders, name), exist_ok=True)
            with open(os.path.join(args.folders, name, "tokenizer.json"), "w", encoding="utf-8") as out:
                out.write(text)
            continue
        rng = random.Random(7)
        special = [t.content for t in tok.get_added_tokens_decoder().values()]
        texts = ["", " ", "Hello world", "  leading and trailing  ", CORPUS[0], CORPUS[2], CORPUS[3]]
        texts += [random_text(rng, special + ["word", " word "]) for _ in range(22)]
        with open(os.path.join(args.out, name + ".json"), "w", encoding="utf-8") as out:
            json.dump(json.loads(text), out, ensure_ascii=False, separators=(",", ":"))
            out.write("\n")
        with open(os.path.join(args.out, name + ".jsonl"), "w", encoding="utf-8") as out:
            for text in texts:
                ids = tok.encode(text).ids
                line = {"text": text, "ids": ids, "plain": tok.encode(text, add_special_tokens=False).ids,
                        "decoded": tok.decode(ids, skip_special_tokens=False) if ids else "",
                        "skipped": tok.decode(ids, skip_special_tokens=True) if ids else ""}
                out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
