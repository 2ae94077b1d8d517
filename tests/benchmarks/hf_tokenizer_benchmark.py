#!/usr/bin/env python3
"""Speed of the `tokenizers` library on one thread, as tokenizer_benchmark measures ours: the same files, documents and texts.

    hf_tokenizer_benchmark.py --tokenizer NAME=tokenizer.json --text NAME=FILE [--binary build/release/benchmarks/tokenizer_benchmark]

With --binary both are measured in turns and printed beside each other: MB/s, best and median of --rounds, and the ratio of
the medians.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers  # noqa: E402  (reads the variable above)


def cut_documents(data, size):
    """The same cuts as tokenizer_benchmark's: at most `size` bytes, between characters."""
    documents = []
    begin = 0
    while begin < len(data):
        end = min(begin + size, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        documents.append(data[begin:end].decode())
        begin = end
    return documents


def library_speed(tokenizer, documents, size):
    began = time.thread_time()
    for document in documents:
        tokenizer.encode(document, add_special_tokens=False)
    return size / (time.thread_time() - began) / 1e6


def our_speed(binary, tokenizer, text, size):
    command = [binary, "--tokenizer", tokenizer, "--text", text, "--document-bytes", str(size), "--own-pattern"]
    name = f"{tokenizer.split('=')[0]}/{text.split('=')[0]}"
    command += [f"--benchmark_filter=^{name}$", "--benchmark_format=json", "--benchmark_min_time=0.3"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output)["benchmarks"][0]["MB_per_s"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", action="append", required=True)
    parser.add_argument("--text", action="append", required=True)
    parser.add_argument("--document-bytes", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--binary")
    args = parser.parse_args()
    for tokenizer_argument in args.tokenizer:
        tokenizer = tokenizers.Tokenizer.from_file(tokenizer_argument.split("=", 1)[1])
        for text_argument in args.text:
            data = pathlib.Path(text_argument.split("=", 1)[1]).read_bytes()
            documents = cut_documents(data, args.document_bytes)
            theirs, ours = [], []
            for _ in range(args.rounds):
                theirs.append(library_speed(tokenizer, documents, len(data)))
                if args.binary:
                    ours.append(
                        our_speed(args.binary, tokenizer_argument, text_argument, args.document_bytes)
                    )
            name = f"{tokenizer_argument.split('=')[0]}/{text_argument.split('=')[0]}"
            line = f"{name}: tokenizers {statistics.median(theirs):.2f} (best {max(theirs):.2f}) MB/s"
            if ours:
                ratio = statistics.median(ours) / statistics.median(theirs)
                line += f", essor {statistics.median(ours):.1f} (best {max(ours):.1f}) MB/s, ratio {ratio:.0f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
