"""What a nano checkpoint is described by; the checkpoints themselves stand in nano_cases.py."""

import contextlib
import dataclasses
import typing

TOKENIZER_VOCAB = 288  # 256 bytes, 28 merges, 4 special tokens; see nano_tokenizer.py
EOS_ID = 286  # <|im_end|>
CONTEXT = 128
PROMPT_LENGTHS = (1, 5, 37)
GREEDY_STEPS = 16


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    model_class: str
    config_class: str
    overrides: dict
    published: bool = False
    shard_bytes: int = 0  # 0: one model.safetensors
    transposed_experts: bool = False  # fused experts are [in, out]
    prompt_tries: int = 400  # of a seed, for a prompt without near-ties
    stored_bfloat16: bool = False  # weights are drawn in bfloat16 and stored so
    fp8: str = ""  # e4m3 blocks with scales of this type: f32 or ue8m0; see nano_fp8.py
    norm_spread: float = 0.1  # deviation of norm weights from neutral ones
    zero_centred_norms: bool = False  # all norms but linear_attn.norm are stored minus 1
    vendor: typing.Callable | None = None  # config.json in the vendor's own form, written last
    patched: typing.Callable = contextlib.nullcontext  # what the class of transformers needs to be changed in
    four_bit: str = ""  # experts in 4 bits, mxfp4 or int4; see nano_four_bit.py
    sensitivity: tuple = ()  # (label, config overrides): each must move the logits visibly


COMMON = dict(
    vocab_size=TOKENIZER_VOCAB,
    max_position_embeddings=CONTEXT,
    rms_norm_eps=1e-2,
    bos_token_id=None,
    eos_token_id=EOS_ID,
    pad_token_id=None,
    hidden_act="silu",
    attention_dropout=0.0,
)


def rope(theta, **scaling):
    return dict(rope_type="default", rope_theta=theta) | scaling


def case(name, family, overrides, **kwargs):
    return Case(
        name=name,
        model_class=f"{family}ForCausalLM",
        config_class=f"{family}Config",
        overrides=COMMON | overrides,
        **kwargs,
    )
