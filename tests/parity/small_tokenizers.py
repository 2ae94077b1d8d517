"""Three small self-trained tokenizers that between them use what byte-level BPE files of real models use."""

import json

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = (
    "The coordinator sends every step to the workers, and the workers send their results back to it.",
    "A model with many experts is larger than one machine; therefore its parts live on several machines.",
    "Tokens stream back to the client while the next step is already being computed by the workers.",
    "When a worker is lost, the others wait, the sequence is replayed and the stream goes on as before.",
    "I'm sure that they've read it, we'll see; don't worry, it's what you'd expect and he's what we're like.",
    "for (int i = 0; i < n; ++i) {\n    sum += x[i] * y[i];\n}\nreturn sum / static_cast<float>(n);\n",
    "def main():\n    print('hello world')\n    return 0\n\n\nif __name__ == '__main__':\n    main()\n",
    "In 2026 there were 128 experts, 8 of them active, 94 layers and 4096 hidden units: 100 percent more.",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u042d\u0442\u043e \u043c\u0430\u043b\u0435\u043d\u044c\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442 \u0434\u043b\u044f \u043e\u0431\u0443\u0447\u0435\u043d\u0438\u044f. \u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u4f60\u597d\uff0c\u4e16\u754c\uff01\u6211\u4eec\u5728\u673a\u5668\u4e0a\u8fd0\u884c\u6a21\u578b\u3002 \u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3001\u3053\u3093\u306b\u3061\u306f\u3002",
    "Caf\u00e9 na\u00efve fa\u00e7ade caf\u00e9 \u0645\u0631\u062d\u0628\u0627 \u0645\u0631\u062d\u0628\u0627 \U0001f600\U0001f600\U0001f44b \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
)

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def _added(text, special=True, **flags):
    return tokenizers.AddedToken(text, special=special, **({"normalized": False} | flags))


def _train(vocab, pre_tokenizer, normalizer=None, **model):
    tokenizer = tokenizers.Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def gpt2():
    """GPT-2: no normaliser, the built-in pattern, special tokens and two added ones that are not special."""
    tokenizer = _train(593, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([_added(text) for text in SPECIAL + ("<|pad|>", "<s>")])
    tokenizer.add_tokens([_added("<think>", special=False), _added("</think>", special=False)])
    return tokenizer


def llama3():
    """Llama 3: NFC, a Split pattern, ignore_merges, a BOS added by a template post-processor."""
    pattern = pre_tokenizers.Split(
        tokenizers.Regex(LLAMA3_PATTERN), behavior="isolated", invert=False
    )
    tokenizer = _train(
        580,
        pre_tokenizers.Sequence(
            [pattern, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        ),
        normalizers.NFC(),
    )
    # Whole words that no merge reaches: found only because ignore_merges looks them up first.
    data = json.loads(tokenizer.to_str())
    for word in ("\u0120dog", "Hello", "\u0120jumps", "123"):
        data["model"]["vocab"].setdefault(word, len(data["model"]["vocab"]))
    data["model"]["ignore_merges"] = True
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens(
        [_added(text) for text in ("<|begin_of_text|>", "<|eot_id|>") + SPECIAL]
    )
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|> $B:1",
                special_tokens=[("<|begin_of_text|>", bos)],
            ),
        ]
    )
    return tokenizer


def flags():
    """The flags of added tokens: lstrip, rstrip, single_word, and normalized with NFC."""
    tokenizer = _train(
        280, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), normalizers.NFC()
    )
    tokenizer.add_special_tokens(
        [
            _added("<|endoftext|>"),
            _added("<mask>", lstrip=True),
            _added("<tail>", rstrip=True),
            _added("<|im_end|>", lstrip=True, rstrip=True),
        ]
    )
    tokenizer.add_tokens(
        [
            _added("key", special=False, single_word=True),
            _added("caf\u00e9", special=False, normalized=True),
        ]
    )
    return tokenizer


ALL = {"small_gpt2": gpt2, "small_llama3": llama3, "small_flags": flags}
