"""Kernel-true checkpoints: head sizes, latents, states and blocks of the published models, all else small.

What kernels specialise on (latent 512 + 64, states of 128 x 128, heads of 128 and 256, scales per 128 x 128) has its real
size here, in two layers of hidden size 256; the mathematics of every key is checked by the nano cases.
"""

from nano_case import case, rope

_EPS = ("rms_norm_eps", dict(rms_norm_eps=1e-6))

# DeepSeek V3's own scaling over few enough original positions that prompts pass them.
_YARN = rope(
    10000.0,
    rope_type="yarn",
    factor=40.0,
    original_max_position_embeddings=16,
    beta_fast=32,
    beta_slow=1,
    mscale=1.0,
    mscale_all_dim=1.0,
)

CASES = (
    # kv_a has 4.5 blocks of rows, of which the last is the rotated key's alone; q_a has 1.5. Two ranks hold two heads
    # and one.
    case(
        "deepseek_v3_true",
        "DeepseekV3",
        dict(
            hidden_size=256,
            intermediate_size=192,
            moe_intermediate_size=128,
            num_hidden_layers=2,
            first_k_dense_replace=1,
            num_attention_heads=3,
            num_key_value_heads=3,
            q_lora_rank=192,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            n_routed_experts=4,
            n_shared_experts=1,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            routed_scaling_factor=2.5,
            norm_topk_prob=True,
            num_nextn_predict_layers=0,
            attention_bias=False,
            tie_word_embeddings=False,
            rope_parameters=_YARN,
        ),
        published=True,
        fp8="f32",
        norm_spread=0.25,  # the final norm has to stand out from what bfloat16 does in wide layers
        sensitivity=(_EPS,),
    ),
    case(
        "minimax_true",
        "MiniMax",
        dict(
            hidden_size=256,
            intermediate_size=64,
            num_hidden_layers=2,
            layer_types=["linear_attention", "full_attention"],
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=128,
            num_local_experts=4,
            num_experts_per_tok=2,
            tie_word_embeddings=False,
            sliding_window=None,
            block_size=8,
            rope_parameters=rope(10000.0),
        ),
        stored_bfloat16=True,
        sensitivity=(_EPS,),
    ),
    # Four value heads over two key heads, heads of 256 dims of which 64 rotate.
    case(
        "qwen3_next_true",
        "Qwen3Next",
        dict(
            hidden_size=256,
            intermediate_size=64,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
            num_hidden_layers=2,
            layer_types=["linear_attention", "full_attention"],
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=256,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=128,
            linear_value_head_dim=128,
            linear_conv_kernel_dim=4,
            num_experts=4,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            mlp_only_layers=[],
            tie_word_embeddings=False,
            rope_parameters=rope(10000.0, partial_rotary_factor=0.25),
        ),
        norm_spread=0.4,
        zero_centred_norms=True,
        stored_bfloat16=True,
        sensitivity=(_EPS,),
    ),
)
