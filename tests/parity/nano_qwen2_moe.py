"""Qwen1.5-MoE and Qwen2-57B-A14B: QKV bias, a window in some layers, a gated shared expert beside the chosen ones."""

from nano_case import case, rope

# Six heads over three KV heads of 8 dims: two ranks have two and one of the KV heads, of four two share one. All
# widths of FFNs differ. Five experts do not divide by two or three ranks.
_QWEN2_MOE = dict(
    hidden_size=48,
    intermediate_size=40,
    moe_intermediate_size=16,
    shared_expert_intermediate_size=24,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=3,
    num_experts=5,
    num_experts_per_tok=2,
    tie_word_embeddings=False,
    rope_parameters=rope(100.0),
)

_EPS = ("rms_norm_eps", dict(rms_norm_eps=1e-6))
_THETA = ("rope_theta", dict(rope_parameters=rope(25.0)))
_FULL, _WINDOW = "full_attention", "sliding_attention"


def _window_in(*layers):
    return dict(layer_types=[_WINDOW if layer in layers else _FULL for layer in range(4)])


CASES = (
    # Without `layer_types` the window of 8 holds for layer 0 alone: layer 1 is odd, layer 2 not before
    # max_window_layers. Two layers with experts, since prompts without near-ties in more are hard to find.
    case(
        "qwen2_moe",
        "Qwen2Moe",
        _QWEN2_MOE
        | dict(
            decoder_sparse_step=1,
            norm_topk_prob=False,
            mlp_only_layers=[0, 2],
            use_sliding_window=True,
            sliding_window=8,
            max_window_layers=2,
        ),
        published=True,
        sensitivity=(
            _EPS,
            _THETA,
            ("norm_topk_prob", dict(norm_topk_prob=True)),
            ("num_experts_per_tok", dict(num_experts_per_tok=1)),
            ("sliding_window", dict(sliding_window=7)),
            ("use_sliding_window", _window_in()),
            ("max_window_layers", _window_in(0, 2)),
            ("window_of_qwen2", _window_in(2, 3)),
        ),
    ),
    # Without biases, all but layer 3 dense: 0 and 2 by the step, 1 by its number.
    case(
        "qwen2_moe_mixed",
        "Qwen2Moe",
        _QWEN2_MOE
        | dict(
            decoder_sparse_step=2,
            norm_topk_prob=True,
            mlp_only_layers=[1],
            qkv_bias=False,
            use_sliding_window=True,
            sliding_window=8,
            layer_types=[_FULL, _WINDOW, _FULL, _WINDOW],
        ),
        sensitivity=(
            _EPS,
            _THETA,
            ("norm_topk_prob", dict(norm_topk_prob=False)),
            ("layer_types", _window_in(0, 2)),
        ),
    ),
)
