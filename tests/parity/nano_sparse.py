"""DeepSeek V3.2: latent attention to the positions that an indexer chooses."""

from nano_case import case, rope
from nano_deepseek import YARN

# 8 of up to 53 positions are read; half of an index head's dims rotate.
_DEEPSEEK_V32 = dict(
    hidden_size=32,
    intermediate_size=48,
    moe_intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    n_routed_experts=8,
    n_group=4,
    topk_group=2,
    num_experts_per_tok=3,
    n_shared_experts=1,
    routed_scaling_factor=2.5,
    norm_topk_prob=True,
    first_k_dense_replace=1,
    q_lora_rank=24,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=12,
    index_n_heads=6,
    index_head_dim=16,
    index_topk=8,
    attention_bias=False,
    tie_word_embeddings=False,
    rope_parameters=YARN,
)

SPARSE_CASES = (
    case(
        "deepseek_v32",
        "DeepseekV32",
        _DEEPSEEK_V32,
        published=True,
        sensitivity=(
            ("rms_norm_eps", dict(rms_norm_eps=1e-6)),
            ("index_topk", dict(index_topk=9)),
            ("rope_scaling", dict(rope_parameters=rope(10.0))),
        ),
    ),
)
