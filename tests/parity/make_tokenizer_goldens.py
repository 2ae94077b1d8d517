#!/usr/bin/env python3
"""Makes the tokenizer goldens with the libraries `tokenizers`, `sentencepiece` and `tiktoken`.

    make_tokenizer_goldens.py OUT [--tokenizers DIR] [--smollm2-gguf FILE]

OUT/texts.json             the texts of tokenizer_texts.py
OUT/<small>.json           self-trained tokenizer.json files (small_tokenizers.py, plain_tokenizers.py)
OUT/<small>/               self-trained tokenizer.model and tiktoken.model files with their configs
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
import sentencepiece
import tiktoken
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

import plain_tokenizers
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


class LibraryReference:
    """What the `tokenizers` library says; see plain_tokenizers.py."""

    def __init__(self, data):
        self.tokenizer = tokenizers.Tokenizer.from_buffer(data)
        self.plain = tokenizers.Tokenizer.from_buffer(data)
        self.plain.encode_special_tokens = True  # special tokens in the text are text
        self.vocab_size = self.tokenizer.get_vocab_size(with_added_tokens=True)
        added = self.tokenizer.get_added_tokens_decoder()
        self.special_ids = sorted(i for i, token in added.items() if token.special)
        if type(self.tokenizer.model) is models.Unigram:
            self.plain = without_special_pieces(data)
        names = sorted(pre_tokenizers.ByteLevel.alphabet())  # SmolLM2 lacks some bytes
        if getattr(self.tokenizer.model, "byte_fallback", False):
            names = [f"<0x{byte:02X}>" for byte in range(256)]
        ids = [self.tokenizer.token_to_id(name) for name in names]
        self.byte_ids = [i for i in ids if i is not None]

    def ids(self, text, add_special, parse_special):
        tokenizer = self.tokenizer if parse_special else self.plain
        return tokenizer.encode(text, add_special_tokens=add_special).ids

    def decode(self, ids, skip_special):
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special)


def without_special_pieces(data):
    """A Unigram model of the library finds special tokens even in text that is to be text; Essor does not."""
    document = json.loads(data)
    special = {token["id"] for token in document["added_tokens"] if token["special"]}
    document["added_tokens"] = [t for t in document["added_tokens"] if t["id"] not in special]
    document["post_processor"] = None
    for i in special:
        document["model"]["vocab"][i][0] = "\U0010fffd" + document["model"]["vocab"][i][0]
    return tokenizers.Tokenizer.from_str(json.dumps(document))


def encode_case(reference, text, repeat):
    whole = text * repeat
    ids = reference.ids(whole, add_special=False, parse_special=True)
    case = {"ids": compact(ids)}
    with_special = reference.ids(whole, add_special=True, parse_special=True)
    if with_special != ids:
        case["add_special"] = compact(with_special)
    plain = reference.ids(whole, add_special=False, parse_special=False)
    if plain != ids:
        case["plain"] = compact(plain)
    decoded = reference.decode(ids, skip_special=False)
    if decoded != whole:
        case["decoded"] = decoded
    skipped = reference.decode(ids, skip_special=True)
    if skipped != decoded:
        case["decoded_skip"] = skipped
    return case


def decode_cases(reference):
    """Random ids: broken UTF-8 of every kind, and special tokens in between."""
    rng = np.random.default_rng(RANDOM_SEED)
    cases = []
    for index in range(RANDOM_SEQUENCES):
        pool = reference.byte_ids if index % 2 else range(reference.vocab_size)
        ids = [int(i) for i in rng.choice(pool, size=int(rng.integers(1, 16)))]
        if reference.special_ids and index % 5 == 0:
            ids.insert(int(rng.integers(0, len(ids) + 1)), int(rng.choice(reference.special_ids)))
        case = {"ids": ids, "text": reference.decode(ids, skip_special=False)}
        skipped = reference.decode(ids, skip_special=True)
        if skipped != case["text"]:
            case["text_skip"] = skipped
        cases.append(case)
    return cases


def lines(items):
    return "[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in items) + "\n]"


def write_golden(path, name, source, source_bytes, reference, library=tokenizers):
    head = {
        "tokenizer": name,
        "source": source,
        "sha256": hashlib.sha256(source_bytes).hexdigest(),
        library.__name__: library.__version__,
        "vocab_size": reference.vocab_size,
    }
    encoded = [encode_case(reference, text, repeat) for text, repeat in tokenizer_texts.TEXTS]
    path.write_text(
        "{"
        + json.dumps(head)[1:-1]
        + ',\n"encode": '
        + lines(encoded)
        + ',\n"decode": '
        + lines(decode_cases(reference))
        + "\n}\n"
    )


def write_directory(path, file, data, config):
    path.mkdir(exist_ok=True)
    (path / file).write_bytes(data)
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


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
    for name, build in (small_tokenizers.ALL | plain_tokenizers.JSON).items():
        path = args.out / f"{name}.json"
        build().save(str(path), pretty=False)
        data = path.read_bytes()
        write_golden(
            args.out / f"{name}_golden.json",
            name,
            path.name,
            data,
            LibraryReference(data),
        )
    for name, build in plain_tokenizers.SENTENCEPIECE.items():
        config, data = build()
        write_directory(args.out / name, "tokenizer.model", data, config)
        reference = plain_tokenizers.SentencePieceReference(data, config)
        write_golden(
            args.out / f"{name}_golden.json", name, "tokenizer.model", data, reference, sentencepiece
        )
    config, data = plain_tokenizers.kimi()
    write_directory(args.out / "kimi", "tiktoken.model", data, config)
    reference = plain_tokenizers.TiktokenReference(plain_tokenizers.read_ranks(data), config)
    write_golden(
        args.out / "kimi_golden.json", "kimi", "tiktoken.model", data, reference, tiktoken
    )
    for name in REAL if args.tokenizers else ():
        data = read_tokenizer_json(args.tokenizers / name)
        write_golden(
            args.out / f"{name}_golden.json",
            name,
            "tokenizer.json",
            data,
            LibraryReference(data),
        )
    if args.smollm2_gguf:
        write_golden(
            args.out / "smollm2_golden.json",
            "smollm2",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            args.smollm2_gguf.read_bytes(),
            LibraryReference(from_gguf(args.smollm2_gguf).to_str().encode()),
        )


if __name__ == "__main__":
    main()
