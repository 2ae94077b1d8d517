#!/usr/bin/env python3
"""Makes the tokenizer goldens with the `tokenizers` library.

    make_tokenizer_goldens.py OUT [--tokenizers DIR] [--smollm2-gguf FILE]

OUT/texts.json             the texts of tokenizer_texts.py
OUT/<small>.json           three self-trained tokenizer.json files (small_tokenizers.py)
OUT/<name>_golden.json     ids and decoded texts for each tokenizer

DIR/<name>/tokenizer.json[.xz] are real tokenizers, too large to commit; FILE is SmolLM2's GGUF. What is not given
is not remade. Formats: README.md beside this file.
"""

import argparse
import hashlib
import json
import lzma
import pathlib

import gguf
import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

import small_tokenizers
import tokenizer_texts

REAL = ("deepseek_v3", "qwen3")
RANDOM_SEED = 20261123
RANDOM_SEQUENCES = 40
GGUF_CONTROL = 3  # tokenizer.ggml.token_type of special tokens


def compact(ids):
    """Long runs of equal ids as {"runs": [[id, count], ...]}, anything else as it is."""
    runs = []
    for token in ids:
        if runs and runs[-1][0] == token:
            runs[-1][1] += 1
        else:
            runs.append([token, 1])
    return {"runs": runs} if 3 * len(runs) < len(ids) else ids


def encode(tokenizer, text, add_special):
    return tokenizer.encode(text, add_special_tokens=add_special).ids


def encode_case(tokenizer, text, repeat):
    whole = text * repeat
    ids = encode(tokenizer, whole, False)
    case = {"ids": compact(ids)}
    with_special = encode(tokenizer, whole, True)
    if with_special != ids:
        case["add_special"] = compact(with_special)
    tokenizer.encode_special_tokens = True  # special tokens in the text are text
    plain = encode(tokenizer, whole, False)
    tokenizer.encode_special_tokens = False
    if plain != ids:
        case["plain"] = compact(plain)
    if tokenizer.decode(ids, skip_special_tokens=False) != whole:
        case["decoded"] = tokenizer.decode(ids, skip_special_tokens=False)
    if tokenizer.decode(ids, skip_special_tokens=True) != tokenizer.decode(
        ids, skip_special_tokens=False
    ):
        case["decoded_skip"] = tokenizer.decode(ids, skip_special_tokens=True)
    return case


def decode_cases(tokenizer):
    """Random ids: broken UTF-8 of every kind, and special tokens in between."""
    rng = np.random.default_rng(RANDOM_SEED)
    vocab = tokenizer.get_vocab_size(with_added_tokens=True)
    special = sorted(
        i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special
    )
    byte_ids = [
        tokenizer.token_to_id(char)
        for char in sorted(pre_tokenizers.ByteLevel.alphabet())
        if tokenizer.token_to_id(char) is not None
    ]  # SmolLM2 lacks some bytes
    cases = []
    for index in range(RANDOM_SEQUENCES):
        pool = byte_ids if index % 2 else range(vocab)
        ids = [int(i) for i in rng.choice(pool, size=int(rng.integers(1, 16)))]
        if special and index % 5 == 0:
            ids.insert(int(rng.integers(0, len(ids) + 1)), int(rng.choice(special)))
        case = {"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False)}
        skipped = tokenizer.decode(ids, skip_special_tokens=True)
        if skipped != case["text"]:
            case["text_skip"] = skipped
        cases.append(case)
    return cases


def lines(items):
    return "[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in items) + "\n]"


def write_golden(path, name, source, source_bytes, tokenizer):
    assert all(i in range(tokenizer.get_vocab_size()) for i in tokenizer.get_vocab().values())
    head = {
        "tokenizer": name,
        "source": source,
        "sha256": hashlib.sha256(source_bytes).hexdigest(),
        "tokenizers": tokenizers.__version__,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    encoded = [encode_case(tokenizer, text, repeat) for text, repeat in tokenizer_texts.TEXTS]
    path.write_text(
        "{"
        + json.dumps(head)[1:-1]
        + ',\n"encode": '
        + lines(encoded)
        + ',\n"decode": '
        + lines(decode_cases(tokenizer))
        + "\n}\n"
    )


def read_tokenizer_json(directory):
    packed = directory / "tokenizer.json.xz"
    return (
        lzma.decompress(packed.read_bytes())
        if packed.exists()
        else (directory / "tokenizer.json").read_bytes()
    )


def from_gguf(path):
    """The tokenizer that SmolLM2's GGUF describes: pre-tokeniser `smollm`, digits one by one, then GPT-2's pattern."""
    fields = gguf.GGUFReader(path).fields
    tokens, merges, kinds = (
        fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "merges", "token_type")
    )
    assert fields["tokenizer.ggml.model"].contents() == "gpt2"
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in merges],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            tokenizers.AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == GGUF_CONTROL
        ]
    )
    return tokenizer


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tokenizers", type=pathlib.Path)
    parser.add_argument("--smollm2-gguf", type=pathlib.Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    texts = [
        {"text": text, **({"repeat": repeat} if repeat > 1 else {})}
        for text, repeat in tokenizer_texts.TEXTS
    ]
    (args.out / "texts.json").write_text(lines(texts) + "\n")
    for name, build in small_tokenizers.ALL.items():
        path = args.out / f"{name}.json"
        build().save(str(path), pretty=False)
        data = path.read_bytes()
        write_golden(
            args.out / f"{name}_golden.json",
            name,
            path.name,
            data,
            tokenizers.Tokenizer.from_buffer(data),
        )
    for name in REAL if args.tokenizers else ():
        data = read_tokenizer_json(args.tokenizers / name)
        write_golden(
            args.out / f"{name}_golden.json",
            name,
            "tokenizer.json",
            data,
            tokenizers.Tokenizer.from_buffer(data),
        )
    if args.smollm2_gguf:
        write_golden(
            args.out / "smollm2_golden.json",
            "smollm2",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            args.smollm2_gguf.read_bytes(),
            from_gguf(args.smollm2_gguf),
        )


if __name__ == "__main__":
    main()
