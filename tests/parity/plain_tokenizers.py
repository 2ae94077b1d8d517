"""Small tokenizers whose vocabulary is plain text, in both forms (SentencePiece's tokenizer.model and tokenizer.json),
and one of tiktoken ranks; with what the libraries say about them behind one interface.

A reference has ids(text, add_special, parse_special), decode(ids, skip_special), vocab_size, special_ids and byte_ids.
"""

import base64
import io
import json
import re

import sentencepiece
import tiktoken
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

import small_tokenizers

BLANK = "\u2581"
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6

# tokenization_kimi.py of moonshotai/Kimi-K2-Instruct.
KIMI_PATTERN = "|".join(
    (
        r"[\p{Han}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
KIMI_RESERVED = 256
KIMI_SPECIAL = ("[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", None, "<|im_middle|>")


def train(**options):
    """The bytes of a tokenizer.model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in small_tokenizers.CORPUS for line in text.split("\n") if line] * 4),
        model_writer=model,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def parse(data):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(data)
    return proto


class SentencePieceReference:
    """Ids by sentencepiece itself. A recognised special token cuts the text; what follows gets no dummy blank."""

    def __init__(self, data, config):
        self.proto = parse(data)
        self.first = sentencepiece.SentencePieceProcessor(model_proto=data)
        self.proto.normalizer_spec.add_dummy_prefix = False
        self.later = sentencepiece.SentencePieceProcessor(model_proto=self.proto.SerializeToString())
        self.proto = parse(data)
        if config.get("legacy"):
            self.later = self.first
        pieces = list(enumerate(self.proto.pieces))
        self.special = {piece.piece: i for i, piece in pieces if piece.type in (UNKNOWN, CONTROL)}
        self.special_ids = sorted(self.special.values())
        self.byte_ids = [i for i, piece in pieces if piece.type == BYTE]
        self.byte_ids = self.byte_ids or [i for i, piece in pieces if piece.type == NORMAL]
        self.vocab_size = len(pieces)
        self.prefix = [self.special["<s>"]] if config.get("add_bos_token") else []
        self.suffix = [self.special["</s>"]] if config.get("add_eos_token") else []
        steps = [decoders.Replace(BLANK, " ")]
        if self.proto.trainer_spec.byte_fallback:
            steps.append(decoders.ByteFallback())
        steps.append(decoders.Fuse())
        if self.proto.normalizer_spec.add_dummy_prefix:
            steps.append(decoders.Strip(content=" ", left=1, right=0))
        self.decoder = decoders.Sequence(steps)

    def ids(self, text, add_special, parse_special):
        parts = [text]
        if parse_special:
            parts = re.split("(" + "|".join(map(re.escape, self.special)) + ")", text)
        ids = []
        for index, part in enumerate(parts):
            if index % 2:
                ids.append(self.special[part])
            elif part:
                ids += (self.later if "".join(parts[:index]) else self.first).encode(part)
        return self.prefix + ids + self.suffix if add_special else ids

    def decode(self, ids, skip_special):
        special = set(self.special_ids) if skip_special else ()
        return self.decoder.decode([self.proto.pieces[i].piece for i in ids if i not in special])


class TiktokenReference:
    def __init__(self, ranks, config):
        base = len(ranks)
        named = {int(i): token["content"] for i, token in config["added_tokens_decoder"].items()}
        special = {
            named.get(i, f"<|reserved_token_{i}|>"): i for i in range(base, base + KIMI_RESERVED)
        }
        self.encoding = tiktoken.Encoding(
            "kimi", pat_str=KIMI_PATTERN, mergeable_ranks=ranks, special_tokens=special
        )
        self.special_ids = sorted(special.values())
        self.byte_ids = [ranks[bytes([byte])] for byte in range(256)]
        self.vocab_size = base + KIMI_RESERVED

    def ids(self, text, add_special, parse_special):
        if not parse_special:
            return self.encoding.encode_ordinary(text)
        return self.encoding.encode(text, allowed_special="all")

    def decode(self, ids, skip_special):
        special = set(self.special_ids) if skip_special else ()
        return self.encoding.decode([i for i in ids if i not in special], errors="replace")


def spm_bpe():
    """Like Llama 2 and Mixtral: BPE with byte fallback, blanks kept, BOS."""
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>"}
    return config, train(
        model_type="bpe", vocab_size=480, byte_fallback=True, character_coverage=0.98,
        remove_extra_whitespaces=False, user_defined_symbols=["<ud>", BLANK * 4],
        control_symbols=["[INST]", "[/INST]"], split_digits=True,
    )  # fmt: skip


def spm_bpe_unk():
    """BPE without byte fallback, extra blanks removed, texts after special tokens begin with a blank."""
    config = {"add_bos_token": True, "add_eos_token": True, "legacy": True}
    return config, train(model_type="bpe", vocab_size=300, character_coverage=0.98)


def spm_unigram():
    """Unigram with byte fallback and no dummy blank."""
    return {}, train(
        model_type="unigram", vocab_size=460, byte_fallback=True, character_coverage=0.98,
        add_dummy_prefix=False, remove_extra_whitespaces=False, control_symbols=["[INST]", "[/INST]"],
    )  # fmt: skip


def spm_unigram_unk():
    """Unigram as SentencePiece trains it unless told otherwise."""
    return {}, train(model_type="unigram", vocab_size=220, character_coverage=0.98)


def kimi():
    """Ranks trained on text cut by Kimi's pattern; the config and the bytes of tiktoken.model."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(KIMI_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=560, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.train_from_iterator(small_tokenizers.CORPUS, trainer)
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    of_character = byte_level_alphabet()
    tokens = [bytes(of_character[character] for character in token) for token, _ in vocab]
    base = len(tokens)
    added = {
        str(base + i): {"content": text, "special": True, "normalized": False, "lstrip": False,
                        "rstrip": False, "single_word": False}
        for i, text in enumerate(KIMI_SPECIAL) if text
    }  # fmt: skip
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    return {"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": added}, b"".join(lines)


def byte_level_alphabet():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def read_ranks(data):
    return {
        base64.b64decode(token): int(rank)
        for token, rank in (line.split() for line in data.splitlines())
    }


def _merges(proto):
    """All ways to put a piece together from two, best score first."""
    ids = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    found = []
    for piece in proto.pieces:
        if piece.type != NORMAL:
            continue
        for cut in range(1, len(piece.piece)):
            left, right = piece.piece[:cut], piece.piece[cut:]
            if left in ids and right in ids:
                found.append((-piece.score, ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _added(tokenizer, proto, lower=4):
    for piece in proto.pieces:
        special = piece.type in (UNKNOWN, CONTROL)
        token = tokenizers.AddedToken(piece.piece, special=special, normalized=False)
        if special:
            tokenizer.add_special_tokens([token])
        elif piece.type == lower:
            tokenizer.add_tokens([token])
    return tokenizer


def _bos(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def _bpe(fallback=True):
    proto = parse((spm_bpe if fallback else spm_bpe_unk)()[1])
    vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    model = models.BPE(vocab, _merges(proto), unk_token="<unk>", fuse_unk=fallback, byte_fallback=fallback)
    return proto, tokenizers.Tokenizer(model)


def bpe_prepend():
    """The tokenizer.json of Llama 2 and Mixtral: Prepend and Replace before, ByteFallback after."""
    proto, tokenizer = _bpe()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _bos(_added(tokenizer, proto))


def bpe_metaspace():
    """What transformers makes of such files today: Metaspace, a blank only before the first text."""
    proto, tokenizer = _bpe()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _added(tokenizer, proto)


def bpe_unk():
    """No byte fallback: every unknown character one <unk>; Digits before Metaspace, NFKC before both."""
    proto, tokenizer = _bpe(fallback=False)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Metaspace(prepend_scheme="never")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    return _added(tokenizer, proto)


def unigram_metaspace():
    """Unigram with Metaspace on both sides."""
    proto = parse(spm_unigram_unk()[1])
    tokenizer = tokenizers.Tokenizer(
        models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], unk_id=0)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return _bos(_added(tokenizer, proto))


def unigram_bytes():
    """Unigram with byte fallback on whole texts."""
    proto = parse(spm_unigram()[1])
    tokenizer = tokenizers.Tokenizer(
        models.Unigram(
            [(piece.piece, piece.score) for piece in proto.pieces], unk_id=0, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", BLANK)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _added(tokenizer, proto)


SENTENCEPIECE = {
    "spm_bpe": spm_bpe, "spm_bpe_unk": spm_bpe_unk, "spm_unigram": spm_unigram, "spm_unigram_unk": spm_unigram_unk,
}  # fmt: skip
JSON = {
    "plain_bpe_prepend": bpe_prepend, "plain_bpe_metaspace": bpe_metaspace, "plain_bpe_unk": bpe_unk,
    "plain_unigram_metaspace": unigram_metaspace, "plain_unigram_bytes": unigram_bytes,
}  # fmt: skip
