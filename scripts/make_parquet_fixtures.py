#!/usr/bin/env python3
"""Makes testdata/parquet: one small table in many forms, as pyarrow writes them, and the table as JSON.

usage: make_parquet_fixtures.py TESTDATA_FOLDER     (needs pyarrow; made with 26.0.1)
"""
import json
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq


def rows():
    texts = []
    for i in range(300):
        if i % 11 == 5:
            texts.append(None)
        elif i % 7 == 2:
            texts.append("again and again")  # for the dictionary
        elif i % 13 == 4:
            texts.append("")
        else:
            texts.append(f"Zeile {i}: größer " + "ab" * (i % 17))
    chats = []
    for i in range(300):
        if i % 9 == 4:
            chats.append(None)
        elif i % 5 == 3:
            chats.append([])
        else:
            chats.append([{"role": "user" if k % 2 == 0 else "assistant", "content": f"turn {k} of {i}"} for k in range(i % 4 + 1)])
    return texts, chats


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    texts, chats = rows()
    with open(f"{folder}/rows.json", "w") as file:
        json.dump({"text": texts, "messages": chats}, file, ensure_ascii=False, separators=(",", ":"))
    flat = pa.table({"id": list(range(300)), "text": pa.array(texts, pa.string())})
    forms = {
        "plain_none": dict(compression="none", use_dictionary=False),
        "dictionary_snappy": dict(compression="snappy"),
        "dictionary_v2_zstd": dict(compression="zstd", data_page_version="2.0"),
        "plain_gzip_groups": dict(compression="gzip", use_dictionary=False, row_group_size=70),
        "plain_v2_lz4": dict(compression="lz4", use_dictionary=False, data_page_version="2.0"),
        "pages_checksums": dict(compression="snappy", data_page_size=256, write_batch_size=10,
                                write_page_checksum=True, dictionary_pagesize_limit=400),
        "delta_length": dict(compression="none", use_dictionary=False,
                             column_encoding={"text": "DELTA_LENGTH_BYTE_ARRAY"}, data_page_version="2.0"),
        "delta_strings": dict(compression="zstd", use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"},
                              data_page_size=512, write_batch_size=10),
        "brotli": dict(compression="brotli"),
    }
    for name, options in forms.items():
        pq.write_table(flat, f"{folder}/{name}.parquet", **options)
    required = pa.schema([pa.field("text", pa.large_string(), nullable=False)])
    filled = [text or "" for text in texts]
    pq.write_table(pa.table({"text": filled}, schema=required), f"{folder}/required.parquet", use_dictionary=False)
    pq.write_table(pa.table({"text": pa.array([None] * 300, pa.string())}), f"{folder}/nulls.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), f"{folder}/empty.parquet")
    message = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    nested = pa.table({"messages": pa.array(chats, message)})
    pq.write_table(nested, f"{folder}/messages.parquet", row_group_size=128)
    pq.write_table(nested, f"{folder}/messages_v2.parquet", data_page_version="2.0", data_page_size=256, write_batch_size=7)


main()
