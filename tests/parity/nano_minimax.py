"""MiniMax-Text-01: lightning attention beside softmax attention, scaled residuals.

The class of transformers rotates whole heads whatever rotary_dim says, and names its keys itself; `minimax` is
compared as it is. `minimax_text_01` carries the vendor's model_type and keys and rotates half of each head, as the
published models do: its goldens come from the same class with its rotation replaced (see nano_minimax.half_rotary).
"""

import contextlib

import transformers.models.minimax.modeling_minimax as modeling

from nano_case import case, rope

# Three prompts of up to 37 tokens are longer than transformers' blocks of 8.
_MINIMAX = dict(
    hidden_size=32,
    intermediate_size=24,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    num_local_experts=4,
    num_experts_per_tok=2,
    tie_word_embeddings=False,
    sliding_window=None,
    block_size=8,
    layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"],
    full_attn_alpha_factor=1.5,
    full_attn_beta_factor=1.25,
    linear_attn_alpha_factor=1.75,
    linear_attn_beta_factor=0.75,
    mlp_alpha_factor=2.0,
    mlp_beta_factor=1.5,
    rope_parameters=rope(10000.0),
)

_SENSITIVITY = (
    ("rms_norm_eps", dict(rms_norm_eps=1e-6)),
    ("rope_theta", dict(rope_parameters=rope(25.0))),
    ("full_attn_alpha_factor", dict(full_attn_alpha_factor=1.0)),
    ("full_attn_beta_factor", dict(full_attn_beta_factor=0.25)),
    ("linear_attn_alpha_factor", dict(linear_attn_alpha_factor=1.0)),
    ("linear_attn_beta_factor", dict(linear_attn_beta_factor=0.25)),
    ("mlp_alpha_factor", dict(mlp_alpha_factor=1.0)),
    ("mlp_beta_factor", dict(mlp_beta_factor=0.25)),
    ("num_experts_per_tok", dict(num_experts_per_tok=1)),
)

_VENDOR_KEYS = {
    f"{own}_{part}_factor": f"layernorm_{vendor}_{part}"
    for own, vendor in (
        ("full_attn", "full_attention"),
        ("linear_attn", "linear_attention"),
        ("mlp", "mlp"),
    )
    for part in ("alpha", "beta")
}


def vendor_config(config):
    """config.json as MiniMaxAI publishes it."""
    for own, vendor in _VENDOR_KEYS.items():
        config[vendor] = config.pop(own)
    types = config.pop("layer_types")
    config["attn_type_list"] = [int(kind == "full_attention") for kind in types]
    config.pop("block_size")
    config["architectures"] = ["MiniMaxText01ForCausalLM"]
    config["model_type"] = "minimax_text_01"
    config["postnorm"] = True
    config["rotary_dim"] = config["head_dim"] // 2
    config["shared_intermediate_size"] = 0
    return config


@contextlib.contextmanager
def half_rotary():
    """The class of transformers, rotating the first half of each head only."""
    whole = modeling.MiniMaxRotaryEmbedding.compute_default_rope_parameters
    apply = modeling.apply_rotary_pos_emb

    def frequencies(config, **kwargs):
        dim = config.head_dim // 2
        base = config.rope_parameters["rope_theta"]
        exponents = modeling.torch.arange(0, dim, 2, dtype=modeling.torch.float) / dim
        return 1.0 / (base**exponents), 1.0

    def rotate(q, k, cos, sin, unsqueeze_dim=1):
        dim = cos.shape[-1]
        turned = apply(q[..., :dim], k[..., :dim], cos, sin, unsqueeze_dim)
        return tuple(
            modeling.torch.cat((part, states[..., dim:]), dim=-1)
            for part, states in zip(turned, (q, k), strict=True)
        )

    modeling.MiniMaxRotaryEmbedding.compute_default_rope_parameters = staticmethod(frequencies)
    modeling.apply_rotary_pos_emb = rotate
    try:
        yield
    finally:
        modeling.MiniMaxRotaryEmbedding.compute_default_rope_parameters = staticmethod(whole)
        modeling.apply_rotary_pos_emb = apply


CASES = (
    case("minimax", "MiniMax", _MINIMAX, sensitivity=_SENSITIVITY),
    case(
        "minimax_text_01",
        "MiniMax",
        _MINIMAX,
        published=True,
        vendor=vendor_config,
        patched=half_rotary,
        sensitivity=_SENSITIVITY,
    ),
)
