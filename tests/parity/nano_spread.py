"""MiniMax-M2 (QK-norm over the dims of all heads) and GLM-4 (fused gate and up, interleaved half rotation, post norms)."""

from nano_case import case, rope

_EPS = ("rms_norm_eps", dict(rms_norm_eps=1e-6))
_HALF = rope(10000.0, partial_rotary_factor=0.5)
_QUARTER = (
    "partial_rotary_factor",
    dict(rope_parameters=rope(10000.0, partial_rotary_factor=0.25)),
)

_MINIMAX_M2 = dict(
    num_attention_heads=6,
    num_key_value_heads=3,
    num_experts_per_tok=2,
    tie_word_embeddings=False,
    rope_parameters=_HALF,
)

_GLM = dict(
    hidden_size=48,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    tie_word_embeddings=False,
    rope_parameters=_HALF,
)

SPREAD_CASES = (
    # Two ranks have two and one of the KV heads; of four, two share one and must count its squares once.
    case(
        "minimax_m2",
        "MiniMaxM2",
        _MINIMAX_M2
        | dict(
            hidden_size=32,
            intermediate_size=16,
            num_hidden_layers=3,
            head_dim=16,
            num_local_experts=8,
        ),
        published=True,
        sensitivity=(_EPS, _QUARTER, ("num_experts_per_tok", dict(num_experts_per_tok=3))),
    ),
    # Blocks of scales are partial and cut by ranks, as in qwen3_moe_fp8_blocks.
    case(
        "minimax_m2_fp8",
        "MiniMaxM2",
        _MINIMAX_M2
        | dict(
            hidden_size=192,
            intermediate_size=144,
            num_hidden_layers=2,
            head_dim=40,
            num_local_experts=4,
        ),
        published=True,
        fp8="f32",
        sensitivity=(_EPS,),
    ),
    case(
        "glm",
        "Glm",
        _GLM | dict(attention_bias=True),
        published=True,
        sensitivity=(_EPS, _QUARTER),
    ),
    case(
        "glm4",
        "Glm4",
        _GLM | dict(attention_bias=False),
        sensitivity=(_EPS, _QUARTER),
    ),
)
