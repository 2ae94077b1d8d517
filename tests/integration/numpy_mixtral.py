"""Mixtral's forward pass in numpy, float32: an oracle that shares no code with the product.

Formulas: transformers' modeling_mixtral (RMSNorm, rotate-half RoPE, grouped KV heads, softmax over all
experts and then the top two renormalised, SwiGLU experts).
"""

import json
import pathlib
import struct

import numpy as np


def read_safetensors(directory):
    """{name: float32 array} of all bf16 tensors of a checkpoint directory."""
    tensors = {}
    for path in sorted(pathlib.Path(directory).glob("*.safetensors")):
        data = np.memmap(path, np.uint8, "r")
        size = struct.unpack("<Q", data[:8].tobytes())[0]
        for name, entry in json.loads(data[8:8 + size].tobytes()).items():
            if name == "__metadata__":
                continue
            assert entry["dtype"] == "BF16", (name, entry["dtype"])
            begin, end = entry["data_offsets"]
            bits = data[8 + size + begin:8 + size + end].view("<u2").astype(np.uint32) << 16
            tensors[name] = bits.view(np.float32).reshape(entry["shape"])
    return tensors


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x, theta):
    """x: [heads, tokens, dim]."""
    dim = x.shape[-1]
    angles = np.arange(x.shape[1])[:, None] * theta ** (-np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    first, second = x[..., :dim // 2], x[..., dim // 2:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def attention(x, weights, prefix, config):
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]

    def project(name, count):
        y = x @ weights[f"{prefix}.{name}.weight"].T
        return y.reshape(len(x), count, -1).transpose(1, 0, 2)

    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    q = rotate(project("q_proj", heads), theta)
    k = rotate(project("k_proj", kv_heads), theta)
    v = project("v_proj", kv_heads)
    mask = np.triu(np.full((len(x), len(x)), -np.inf, np.float32), 1)
    out = []
    for head in range(heads):
        kv = head // (heads // kv_heads)
        out.append(softmax(q[head] @ k[kv].T / np.sqrt(q.shape[-1]) + mask) @ v[kv])
    return np.concatenate(out, -1) @ weights[f"{prefix}.o_proj.weight"].T


def experts(x, weights, prefix, config):
    """The layer's output, and each token's gap between the last chosen and the next probability."""
    probabilities = softmax(x @ weights[f"{prefix}.gate.weight"].T)
    top_k = config["num_experts_per_tok"]
    order = np.argsort(-probabilities, -1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, -1)
    y = np.zeros_like(x)
    for rank in range(top_k):
        share = ranked[:, rank] / ranked[:, :top_k].sum(-1)
        for expert in range(probabilities.shape[-1]):
            rows = order[:, rank] == expert
            if not rows.any():
                continue
            w1, w2, w3 = (weights[f"{prefix}.experts.{expert}.{name}.weight"]
                          for name in ("w1", "w2", "w3"))
            gate = x[rows] @ w1.T
            y[rows] += share[rows, None] * ((gate / (1 + np.exp(-gate)) * (x[rows] @ w3.T)) @ w2.T)
    return y, ranked[:, top_k - 1] - ranked[:, top_k]


def forward(directory, ids):
    """(logits [tokens, vocabulary], smallest routing gap over the layers [tokens])."""
    config = json.loads((pathlib.Path(directory) / "config.json").read_text())
    weights = read_safetensors(directory)
    eps = config["rms_norm_eps"]
    x = weights["model.embed_tokens.weight"][ids]
    gaps = np.full(len(ids), np.inf)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        x = x + attention(rms_norm(x, weights[f"{prefix}.input_layernorm.weight"], eps), weights,
                          f"{prefix}.self_attn", config)
        y, gap = experts(rms_norm(x, weights[f"{prefix}.post_attention_layernorm.weight"], eps),
                         weights, f"{prefix}.block_sparse_moe", config)
        x, gaps = x + y, np.minimum(gaps, gap)
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return rms_norm(x, weights["model.norm.weight"], eps) @ head.T, gaps
