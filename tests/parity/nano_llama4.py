"""Llama 4 (text): chunked and unlimited layers, with and without positions, input-scaled experts.

The long prompt of 37 tokens and its continuation cross chunks of 8 several times, and the temperature of the layers
without positions rises every 8 positions. Three query heads share one KV head. llama4_multimodal is a whole
Llama4ForConditionalGeneration with a vision tower of a few thousand weights, read for its text: names, nested config
and tensors to be skipped are what transformers writes.
"""

from nano_case import COMMON, Case, rope

# As Scout, low and high frequency factors are equal: wavelengths are kept or divided, none is blended.
_SCOUT_ROPE = rope(
    100.0,
    rope_type="llama3",
    factor=16.0,
    low_freq_factor=1.0,
    high_freq_factor=1.0,
    original_max_position_embeddings=16,
)

_TEXT = COMMON | dict(
    hidden_size=32,
    intermediate_size=16,
    intermediate_size_mlp=48,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    num_local_experts=4,
    num_experts_per_tok=1,
    no_rope_layer_interval=2,
    attention_chunk_size=8,
    floor_scale=8,
    attn_scale=0.5,
    tie_word_embeddings=False,
)

_VISION = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    vision_output_dim=16,
    image_size=28,
    patch_size=14,
    projector_input_dim=16,
    projector_output_dim=16,
)

_SENSITIVITY = (
    ("rms_norm_eps", dict(rms_norm_eps=1e-6)),
    ("attention_chunk_size", dict(attention_chunk_size=64)),
    ("attention_chunk_border", dict(attention_chunk_size=9)),
    ("no_rope_layers", dict(no_rope_layers=[1, 1, 1, 1])),
    ("attn_temperature_tuning", dict(attn_temperature_tuning=False)),
    ("floor_scale", dict(floor_scale=2)),
)


def _case(name, config_class, model_class, overrides, sensitivity=(), **kwargs):
    return Case(
        name=name,
        model_class=model_class,
        config_class=config_class,
        overrides=overrides,
        transposed_experts=True,
        prompt_tries=2500,
        sensitivity=_SENSITIVITY + sensitivity,
        **kwargs,
    )


CASES = (
    _case(
        "llama4",
        "Llama4TextConfig",
        "Llama4ForCausalLM",
        _TEXT
        | dict(interleave_moe_layer_step=1, use_qk_norm=True, rope_parameters=_SCOUT_ROPE),
        published=True,
        sensitivity=(
            ("use_qk_norm", dict(use_qk_norm=False)),
            ("rope_scaling", dict(rope_parameters=rope(100.0))),
            ("num_experts_per_tok", dict(num_experts_per_tok=2)),
        ),
    ),
    # As Maverick, but for two experts of a token, whose inputs differ.
    _case(
        "llama4_interleaved",
        "Llama4TextConfig",
        "Llama4ForCausalLM",
        _TEXT
        | dict(
            interleave_moe_layer_step=2,
            use_qk_norm=False,
            num_experts_per_tok=2,
            rope_parameters=rope(10000.0),
        ),
        sensitivity=(
            ("use_qk_norm", dict(use_qk_norm=True)),
            ("num_experts_per_tok", dict(num_experts_per_tok=1)),
        ),
    ),
    # What GGUF's llama4 leaves to its readers stands as published, and so beyond this context.
    Case(
        name="llama4_published",
        model_class="Llama4ForCausalLM",
        config_class="Llama4TextConfig",
        overrides=_TEXT
        | dict(
            interleave_moe_layer_step=2,
            use_qk_norm=True,
            no_rope_layer_interval=4,
            attention_chunk_size=8192,
            floor_scale=8192,
            attn_scale=0.1,
            rope_parameters=_SCOUT_ROPE,
        ),
        transposed_experts=True,
        prompt_tries=2500,
        sensitivity=(
            ("no_rope_layers", dict(no_rope_layers=[1, 1, 1, 1])),
            ("use_qk_norm", dict(use_qk_norm=False)),
            ("rope_scaling", dict(rope_parameters=rope(100.0))),
        ),
    ),
    _case(
        "llama4_multimodal",
        "Llama4Config",
        "Llama4ForConditionalGeneration",
        dict(
            text_config=_TEXT
            | dict(interleave_moe_layer_step=2, use_qk_norm=True, rope_parameters=_SCOUT_ROPE),
            vision_config=_VISION,
        ),
        published=True,
        shard_bytes=140_000,
    ),
)
