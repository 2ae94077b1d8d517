"""Nano checkpoints of gpt-oss, and of experts in 4 bits: see nano_cases.py."""

from nano_case import case, rope

# theta 30 and 16 dims put pairs in YaRN's kept, blended and interpolated ranges, whose bounds (0.6 and 2.2) are far
# from whole numbers, so that `truncate` shows.
_YARN = rope(
    30.0,
    rope_type="yarn",
    factor=4.0,
    original_max_position_embeddings=16,
    beta_fast=2.0,
    beta_slow=1.0,
    truncate=False,
)

# A limit within reach of random gates. Layer 0 has a window, layer 1 has none.
_GPT_OSS = dict(
    num_hidden_layers=2,
    sliding_window=8,
    swiglu_limit=0.75,
    attention_bias=True,
    tie_word_embeddings=False,
)

_EPS = ("rms_norm_eps", dict(rms_norm_eps=1e-6))

CASES = (
    # Three KV heads and five experts, which two ranks do not share evenly.
    case(
        "gpt_oss",
        "GptOss",
        _GPT_OSS
        | dict(
            hidden_size=40,
            intermediate_size=24,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=16,
            num_local_experts=5,
            num_experts_per_tok=2,
            rope_parameters=_YARN,
        ),
        transposed_experts=True,
        sensitivity=(
            _EPS,
            ("sliding_window", dict(sliding_window=12)),
            ("layer_types", dict(layer_types=["full_attention", "sliding_attention"])),
            ("swiglu_limit", dict(swiglu_limit=7.0)),
            ("swiglu_alpha", dict(swiglu_alpha=1.0)),
            ("num_experts_per_tok", dict(num_experts_per_tok=1)),
            ("truncate", dict(rope_parameters=_YARN | dict(truncate=True))),
            ("attention_factor", dict(rope_parameters=_YARN | dict(attention_factor=1.0))),
        ),
    ),
    # The published form with the real head size, YaRN and limit; experts of 6 and 5 groups of 32, which neither two nor
    # four ranks share evenly.
    case(
        "gpt_oss_mxfp4",
        "GptOss",
        _GPT_OSS
        | dict(
            hidden_size=192,
            intermediate_size=160,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            num_local_experts=8,
            num_experts_per_tok=4,
            swiglu_limit=7.0,
            rope_parameters=_YARN
            | dict(rope_theta=150000.0, factor=32.0, beta_fast=32.0, original_max_position_embeddings=16),
        ),
        published=True,
        transposed_experts=True,
        four_bit="mxfp4",
        sensitivity=(_EPS, ("sliding_window", dict(sliding_window=12))),
    ),
    # Kimi K2 Thinking: DeepSeek V3 without groups of experts. Value heads of 12 dims cut groups of 32 columns in the
    # output projection, which is not quantised; experts have 4 groups, which three ranks do not share evenly.
    case(
        "kimi_k2_int4",
        "DeepseekV3",
        dict(
            hidden_size=64,
            intermediate_size=48,
            moe_intermediate_size=128,
            num_hidden_layers=2,
            first_k_dense_replace=1,
            num_attention_heads=4,
            num_key_value_heads=4,
            q_lora_rank=24,
            kv_lora_rank=16,
            qk_nope_head_dim=8,
            qk_rope_head_dim=8,
            v_head_dim=12,
            n_routed_experts=6,
            n_shared_experts=1,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            routed_scaling_factor=2.827,
            norm_topk_prob=True,
            num_nextn_predict_layers=0,
            attention_bias=False,
            tie_word_embeddings=False,
            rope_parameters=rope(
                10.0,
                rope_type="yarn",
                factor=4.0,
                original_max_position_embeddings=16,
                beta_fast=1.0,
                beta_slow=1.0,
                mscale=1.0,
                mscale_all_dim=1.0,
            ),
        ),
        published=True,
        four_bit="int4",
        sensitivity=(_EPS, ("routed_scaling_factor", dict(routed_scaling_factor=1.0))),
    ),
)
