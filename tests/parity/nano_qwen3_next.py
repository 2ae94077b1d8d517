"""Qwen3-Next: gated delta nets beside attention with an output gate, a gated shared expert."""

from nano_case import case, rope

_ROPE = rope(100.0, partial_rotary_factor=0.25)

CASES = (
    case(
        "qwen3_next",
        "Qwen3Next",
        dict(
            hidden_size=32,
            intermediate_size=48,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=24,
            num_hidden_layers=4,
            layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"],
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            linear_num_key_heads=4,
            linear_num_value_heads=8,
            linear_key_head_dim=8,
            linear_value_head_dim=12,
            linear_conv_kernel_dim=4,
            num_experts=4,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            mlp_only_layers=[],
            tie_word_embeddings=False,
            rope_parameters=_ROPE,
        ),
        norm_spread=0.4,
        zero_centred_norms=True,
        sensitivity=(
            ("rms_norm_eps", dict(rms_norm_eps=1e-6)),
            ("rope_theta", dict(rope_parameters=rope(10000.0, partial_rotary_factor=0.25))),
            ("partial_rotary_factor", dict(rope_parameters=rope(100.0, partial_rotary_factor=0.5))),
            ("norm_topk_prob", dict(norm_topk_prob=False)),
            ("num_experts_per_tok", dict(num_experts_per_tok=1)),
        ),
    ),
)
