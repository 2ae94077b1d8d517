"""The nano checkpoints: one entry per case, small enough to commit, every dimension chosen to expose a mistake.

Dimensions differ from case to case on purpose: hidden != heads * head_dim (qwen3*), three query heads over one
KV head (qwen2), nine over three (llama_tied), a vocabulary larger than the tokenizer's (llama_tied), epsilon large
enough to be seen. `published` writes config.json in the form that released checkpoints carry (rope_theta,
rope_scaling, torch_dtype); the other cases keep the form of transformers 5 (rope_parameters, dtype).
"""

import nano_deepseek
import nano_gpt_oss
import nano_llama4
import nano_minimax
import nano_qwen2_moe
import nano_qwen3_next
import nano_true
from nano_case import TOKENIZER_VOCAB, case, rope
from nano_sparse import SPARSE_CASES
from nano_spread import SPREAD_CASES

# With 16 original positions, low 1 and high 2, wavelengths below 8 are kept, above 16 divided by the factor,
# and those between are blended; theta 100 and 16 dims put pairs in all three ranges.
_LLAMA3 = rope(
    100.0,
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=2.0,
    original_max_position_embeddings=16,
)

_QWEN3_MOE = dict(
    hidden_size=32,
    intermediate_size=48,
    moe_intermediate_size=16,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    num_experts=8,
    num_experts_per_tok=2,
    decoder_sparse_step=1,
    tie_word_embeddings=False,
    rope_parameters=rope(10000.0),
)

_THETA = ("rope_theta", dict(rope_parameters=rope(25.0)))
_EPS = ("rms_norm_eps", dict(rms_norm_eps=1e-6))

CASES = (
    case(
        "llama",
        "Llama",
        dict(
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
            rope_parameters=_LLAMA3,
        ),
        published=True,
        sensitivity=(
            _EPS,
            ("rope_scaling", dict(rope_parameters=rope(100.0))),
            ("rope_low_high", dict(rope_parameters=_LLAMA3 | dict(high_freq_factor=4.0))),
        ),
    ),
    case(
        "llama_tied",
        "Llama",
        dict(
            vocab_size=TOKENIZER_VOCAB + 3,
            hidden_size=72,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            rope_parameters=rope(10000.0),
        ),
        sensitivity=(_EPS, _THETA),
    ),
    case(
        "qwen2",
        "Qwen2",
        dict(
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=1,
            tie_word_embeddings=False,
            rope_parameters=rope(10000.0),
            use_sliding_window=False,
        ),
        published=True,
        sensitivity=(_EPS, _THETA),
    ),
    case(
        "qwen3",
        "Qwen3",
        dict(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            tie_word_embeddings=True,
            rope_parameters=rope(10000.0),
            use_sliding_window=False,
        ),
        sensitivity=(_EPS, _THETA),
    ),
    case(
        "qwen3_moe",
        "Qwen3Moe",
        _QWEN3_MOE | dict(num_hidden_layers=2, norm_topk_prob=True, mlp_only_layers=[]),
        published=True,
        sensitivity=(
            _EPS,
            _THETA,
            ("norm_topk_prob", dict(norm_topk_prob=False)),
            ("num_experts_per_tok", dict(num_experts_per_tok=1)),
        ),
    ),
    case(
        "qwen3_moe_mixed",
        "Qwen3Moe",
        _QWEN3_MOE | dict(num_hidden_layers=4, norm_topk_prob=False, mlp_only_layers=[0, 2]),
        sensitivity=(_EPS, _THETA, ("norm_topk_prob", dict(norm_topk_prob=True))),
    ),
    case(
        "qwen3_moe_fp8",
        "Qwen3Moe",
        _QWEN3_MOE | dict(num_hidden_layers=2, norm_topk_prob=True, mlp_only_layers=[]),
        published=True,
        fp8="ue8m0",
        sensitivity=(_EPS, _THETA),
    ),
    # Every matrix has several blocks and partial ones; two ranks hold 2 and 4 of 6 heads of 40 dims and 72 of 144
    # FFN columns each, so that they cut blocks.
    case(
        "qwen3_moe_fp8_blocks",
        "Qwen3Moe",
        _QWEN3_MOE
        | dict(
            hidden_size=192,
            moe_intermediate_size=144,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=40,
            num_experts=4,
            num_hidden_layers=2,
            norm_topk_prob=True,
            mlp_only_layers=[],
        ),
        fp8="f32",
        sensitivity=(_EPS, _THETA),
    ),
    case(
        "mixtral",
        "Mixtral",
        dict(
            hidden_size=32,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=8,
            num_experts_per_tok=2,
            tie_word_embeddings=False,
            sliding_window=None,
            rope_parameters=rope(10000.0),
        ),
        published=True,
        shard_bytes=140_000,
        sensitivity=(_EPS, _THETA, ("num_experts_per_tok", dict(num_experts_per_tok=3))),
    ),
    case(
        "ernie4_5",
        "Ernie4_5",
        dict(
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            use_bias=False,
            tie_word_embeddings=True,
            rope_parameters=rope(10000.0),
        ),
        sensitivity=(_EPS, _THETA),
    ),
    case(
        "ernie4_5_moe",
        "Ernie4_5_Moe",
        dict(
            hidden_size=32,
            intermediate_size=48,
            moe_intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            moe_num_experts=8,
            moe_k=3,
            moe_num_shared_experts=2,
            moe_layer_start_index=1,
            use_bias=False,
            tie_word_embeddings=False,
            rope_parameters=rope(10000.0),
        ),
        published=True,
        sensitivity=(_EPS, _THETA, ("moe_k", dict(moe_k=2))),
    ),
    case(
        "glm4_moe",
        "Glm4Moe",
        dict(
            hidden_size=32,
            intermediate_size=48,
            moe_intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            attention_bias=True,
            use_qk_norm=True,
            n_routed_experts=8,
            n_shared_experts=1,
            num_experts_per_tok=2,
            first_k_dense_replace=1,
            n_group=4,
            topk_group=2,
            routed_scaling_factor=2.5,
            norm_topk_prob=True,
            tie_word_embeddings=False,
            rope_parameters=rope(10000.0, partial_rotary_factor=0.5),
        ),
        published=True,
        sensitivity=(
            _EPS,
            ("routed_scaling_factor", dict(routed_scaling_factor=1.0)),
            ("topk_group", dict(topk_group=4)),
            ("norm_topk_prob", dict(norm_topk_prob=False)),
            (
                "partial_rotary_factor",
                dict(rope_parameters=rope(10000.0, partial_rotary_factor=0.25)),
            ),
        ),
    ),
    case(
        "deepseek_v3_dense",
        "DeepseekV3",
        nano_deepseek.DENSE
        | dict(
            hidden_size=40,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=4,
            q_lora_rank=24,
            rope_parameters=nano_deepseek.YARN,
        ),
        published=True,
        sensitivity=(
            _EPS,
            ("rope_scaling", dict(rope_parameters=rope(10.0))),
            ("rope_interleave", dict(rope_interleave=False)),
            ("mscale_all_dim", dict(rope_parameters=nano_deepseek.YARN | dict(mscale_all_dim=0.0))),
        ),
    ),
    case(
        "moonlight_dense",
        "DeepseekV3",
        nano_deepseek.DENSE
        | dict(
            hidden_size=32,
            intermediate_size=64,
            num_attention_heads=3,
            num_key_value_heads=3,
            q_lora_rank=None,
            rope_parameters=rope(10000.0),
        ),
        sensitivity=(_EPS, _THETA, ("rope_interleave", dict(rope_interleave=False))),
    ),
    case(
        "deepseek_v3",
        "DeepseekV3",
        nano_deepseek.DENSE
        | dict(
            hidden_size=32,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=4,
            q_lora_rank=24,
            first_k_dense_replace=1,
            n_shared_experts=1,
            routed_scaling_factor=2.5,
            norm_topk_prob=True,
            rope_parameters=nano_deepseek.YARN,
        ),
        published=True,
        sensitivity=(
            _EPS,
            ("routed_scaling_factor", dict(routed_scaling_factor=1.0)),
            ("topk_group", dict(topk_group=4)),
        ),
    ),
    # Blocks of 128 rows end inside the latent (136 rows, then 8 of the rotated key) and inside the value half of
    # head 2, whose rows in kv_b are 88 to 131.
    case(
        "deepseek_v3_fp8",
        "DeepseekV3",
        nano_deepseek.DENSE
        | dict(
            hidden_size=64,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            q_lora_rank=40,
            kv_lora_rank=136,
            qk_nope_head_dim=24,
            v_head_dim=20,
            first_k_dense_replace=1,
            n_shared_experts=1,
            routed_scaling_factor=2.5,
            norm_topk_prob=True,
            rope_parameters=nano_deepseek.YARN,
        ),
        fp8="f32",
        published=True,
        sensitivity=(_EPS,),
    ),
)

CASES += (
    SPREAD_CASES
    + SPARSE_CASES
    + nano_minimax.CASES
    + nano_llama4.CASES
    + nano_gpt_oss.CASES
    + nano_qwen3_next.CASES
    + nano_true.CASES
    + nano_qwen2_moe.CASES
)
