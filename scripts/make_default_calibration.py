#!/usr/bin/env python3
"""Makes src/signround/text/data/default.jsonl.zst, the calibration text that is built into the program.

usage: make_default_calibration.py C4_JSONL UDHR2_ZIP OUTPUT     (inside a clone of this repository)

C4_JSONL: the first 1000 rows of allenai/c4, en, train (rows with "text").
UDHR2_ZIP: packages/corpora/udhr2.zip of github.com/nltk/nltk_data.
Needs only the standard library, git and the zstd program. What is taken and why: README.md beside the output.
"""
import hashlib
import json
import re
import subprocess
import sys
import zipfile

C4_SHA256 = "cdd5b754119131d2934e3e799a059a9d64f53a6aac9e7e2ef79b43120bb01a32"
UDHR_SHA256 = "0796c314b09a930c989c6f9d93d226af9af13feccd88496e196c743dd266c7f3"
OUR_COMMIT = "75c5dc78ac84c7c2d98d0584b4147a3f7906faa6"
C4_SHORTEST = 1200  # characters of a document: some 300 tokens
C4_MOST = 1_500_000  # characters in all, before private ones are left out
DECLARATION = 2000  # characters of each: some scripts take a token per character or more
CODE = 6000  # characters of each file

LANGUAGES = ("arb ben cmn_hans cmn_hant deu ell_monotonic fra heb hin ind ita jpn kor nld pes_1 pol por_BR rus spa "
             "swe tha tur ukr vie").split()
OUR_FILES = """src/signround/base/random.cc src/signround/base/parallel.h src/signround/io/parquet_encoding.cc
src/signround/io/safetensors_reader.cc src/signround/io/hub_cache.cc src/signround/io/http.cc
src/signround/text/calibration.cc src/signround/text/documents.cc src/signround/text/bpe.cc
src/signround/text/unigram.cc src/signround/text/dataset_registry.cc src/signround/tensor/tensor.cc
src/signround/testing/http_server.cc src/signround/quant/grid.cc src/signround/formats/gptq.cc
src/signround/ops/attention.cc src/signround/graph/graph.cc src/signround/model/config.cc
scripts/make_calibration_golden.py scripts/make_parquet_fixtures.py cmake/signround.cmake scripts/setup""".split()
# Nobody's address or telephone number needs to be in a program.
PRIVATE = re.compile(r"[\w.+-]+@[\w-]+\.\w|\d{3}\W{1,2}\d{3}\W\d{4}")


def checked(path, sha256):
    data = open(path, "rb").read()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        sys.exit(f"{path}: sha256 {found}, expected {sha256}")
    return data


def cut(text, most):
    """The beginning, in whole lines."""
    return (text if len(text) <= most else text[: text.rindex("\n", 0, most)]).strip()


def c4_documents(path):
    total = 0
    for line in checked(path, C4_SHA256).decode().splitlines():
        text = json.loads(line)["text"].strip()
        if len(text) < C4_SHORTEST:
            continue
        total += len(text)
        if total > C4_MOST:  # what follows is for evaluation (make_eval_text.py)
            break
        if not PRIVATE.search(text):
            yield text


def declarations(path):
    checked(path, UDHR_SHA256)
    with zipfile.ZipFile(path) as archive:
        for language in LANGUAGES:
            lines = archive.read(f"udhr2/{language}.txt").decode().splitlines()
            yield cut("\n".join(line.strip() for line in lines), DECLARATION)


def our_code():
    for name in OUR_FILES:
        yield cut(subprocess.run(["git", "show", f"{OUR_COMMIT}:{name}"], check=True, stdout=subprocess.PIPE).stdout.decode(), CODE)


def main():
    c4, udhr, output = sys.argv[1:]
    parts = [list(c4_documents(c4)), list(declarations(udhr)), list(our_code())]
    documents = sum(parts, [])
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in documents).encode()
    command = ["zstd", "-19", "-q", "--no-check", f"--stream-size={len(lines)}", "-c"]
    packed = subprocess.run(command, input=lines, stdout=subprocess.PIPE, check=True)
    with open(output, "wb") as file:
        file.write(packed.stdout)
    print([(len(part), sum(map(len, part))) for part in parts], "documents and characters;", len(lines), "bytes,",
          len(packed.stdout), "packed")


main()
