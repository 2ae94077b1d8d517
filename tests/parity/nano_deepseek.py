"""What the DeepSeek cases share."""

from nano_case import rope

# theta 10 with 8 rotated dims puts one pair each in YaRN's kept and blended ranges and two in the interpolated one.
YARN = rope(
    10.0,
    rope_type="yarn",
    factor=4.0,
    original_max_position_embeddings=16,
    beta_fast=32,
    beta_slow=1,
    mscale=1.0,
    mscale_all_dim=1.0,
)

# Head sizes are all different, and so are the key's and the value's: a swapped pair does not fit. No layer has
# experts.
DENSE = dict(
    num_hidden_layers=3,
    first_k_dense_replace=3,
    n_routed_experts=8,
    n_group=4,
    topk_group=2,
    num_experts_per_tok=3,
    moe_intermediate_size=16,
    num_nextn_predict_layers=0,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=12,
    attention_bias=False,
    tie_word_embeddings=False,
)
