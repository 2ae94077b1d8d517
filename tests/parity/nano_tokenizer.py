"""The tokenizer that lies in every nano checkpoint, so that each can be served with text and chat."""

import json

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

import nano_case

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")

CORPUS = (
    "The quick brown fox jumps over the lazy dog, and then the other dog jumps over the fox.",
    "Many machines hold the parts of one model; each of them adds its part to the answer.",
    "There is nothing in the other room than the thing that the reader has been thinking of.",
    "In the beginning there was one request, and the request was answered by the cluster.",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'"
    " + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _token(text):
    # The order of ids: bytes and merges first, the special tokens last.
    return tokenizers.AddedToken(text, special=True, normalized=False)


def write(directory):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=nano_case.TOKENIZER_VOCAB - len(SPECIAL_TOKENS),
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([_token(text) for text in SPECIAL_TOKENS])
    assert tokenizer.get_vocab_size() == nano_case.TOKENIZER_VOCAB
    assert tokenizer.token_to_id("<|im_end|>") == nano_case.EOS_ID
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    config = dict(
        tokenizer_class="PreTrainedTokenizerFast",
        add_bos_token=False,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
        model_max_length=nano_case.CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
