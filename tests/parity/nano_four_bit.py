"""Checkpoints whose experts have 4 bits and a scale per 32 inputs: MXFP4 as gpt-oss, INT4 as Kimi K2 Thinking.

As in nano_fp8.py, what transformers computes is the *twin*, whose fp32 experts are the quantised ones multiplied out
here; all other tensors are rounded to bfloat16, as released checkpoints hold them. The integers are packed, and
unpacked again for the twin, by the compressed-tensors library.
"""

import json

import safetensors.torch
import torch

GROUP = 32
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def _groups(weight):
    return weight.reshape(*weight.shape[:-1], -1, GROUP)


class Mxfp4:
    """X [experts, in, out] becomes X_blocks [experts, out, in / 32, 16] and X_scales [experts, out, in / 32]."""

    config = dict(
        modules_to_not_convert=[
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        quant_method="mxfp4",
    )

    @staticmethod
    def applies(name):
        return name.endswith(("experts.gate_up_proj", "experts.down_proj"))

    @staticmethod
    def quantise(name, weight):
        groups = _groups(weight.transpose(1, 2).contiguous())
        # The largest magnitude of a group lies between 4 and 8 of its scale, and what is above 6 becomes 6.
        exponent = torch.floor(torch.log2(groups.abs().amax(-1))) - 2
        scaled = groups / 2.0 ** exponent.unsqueeze(-1)
        codes = (scaled.abs().unsqueeze(-1) - E2M1).abs().argmin(-1) + 8 * (scaled < 0)
        codes = codes.to(torch.uint8)
        blocks = codes[..., 0::2] | codes[..., 1::2] << 4
        return {name + "_blocks": blocks, name + "_scales": (exponent + 127).to(torch.uint8)}

    @staticmethod
    def dequantise(name, stored, misread=False):
        blocks, scales = stored[name + "_blocks"], stored[name + "_scales"].float() - 127
        if misread:
            scales = scales.roll((1, 1), (1, 2))
        codes = torch.stack((blocks & 15, blocks >> 4), -1).flatten(-2).long()
        values = torch.where(codes < 8, E2M1[codes % 8], -E2M1[codes % 8])
        return (values * 2.0 ** scales.unsqueeze(-1)).flatten(-2).transpose(1, 2).contiguous()


class Int4:
    """X.weight [out, in] of a routed expert becomes X.weight_packed, X.weight_scale and X.weight_shape."""

    config = dict(
        config_groups=dict(
            group_0=dict(
                input_activations=None,
                output_activations=None,
                targets=["Linear"],
                weights=dict(
                    actorder=None,
                    block_structure=None,
                    dynamic=False,
                    group_size=GROUP,
                    num_bits=4,
                    observer="minmax",
                    observer_kwargs={},
                    strategy="group",
                    symmetric=True,
                    type="int",
                ),
            )
        ),
        format="pack-quantized",
        ignore=["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
        kv_cache_scheme=None,
        quant_method="compressed-tensors",
        quantization_status="compressed",
    )

    @staticmethod
    def applies(name):
        return ".mlp.experts." in name

    @staticmethod
    def quantise(name, weight):
        from compressed_tensors import pack_to_int32

        groups = _groups(weight)
        scales = (groups.abs().amax(-1) / 7.5).to(torch.bfloat16)
        codes = torch.round(groups / scales.float().unsqueeze(-1)).clamp(-8, 7)
        return {
            name + "_packed": pack_to_int32(codes.flatten(-2).to(torch.int8), 4),
            name + "_scale": scales,
            name + "_shape": torch.tensor(weight.shape),
        }

    @staticmethod
    def dequantise(name, stored, misread=False):
        from compressed_tensors import unpack_from_int32

        codes = unpack_from_int32(stored[name + "_packed"], 4, torch.Size(stored[name + "_shape"].tolist()))
        scales = stored[name + "_scale"].float()
        if misread:
            scales = scales.roll((1, 1), (0, 1))
        return (_groups(codes.float()) * scales.unsqueeze(-1)).flatten(-2)


SCHEMES = dict(mxfp4=Mxfp4, int4=Int4)


def quantise(directory, case):
    """Makes `directory` the twin; returns the tensors of the quantised checkpoint and those names that it quantises."""
    scheme = SCHEMES[case.four_bit]
    stored, names = {}, []
    for name, weight in safetensors.torch.load_file(directory / "model.safetensors").items():
        if scheme.applies(name):
            names.append(name)
            stored |= scheme.quantise(name, weight)
        else:
            stored[name] = weight.to(torch.bfloat16)
    write_twin(directory, case, stored, names)
    return stored, names


def write_twin(directory, case, stored, names, misread=False):
    """What the checkpoint means, or would mean with each scale taken from the neighbouring output and group."""
    twin = {name: stored[name].float() for name in stored if stored[name].dtype == torch.bfloat16}
    twin = {name: weight for name, weight in twin.items() if not name.endswith("_scale")}
    for name in names:
        twin[name] = SCHEMES[case.four_bit].dequantise(name, stored, misread)
    safetensors.torch.save_file(twin, directory / "model.safetensors", metadata={"format": "pt"})


def write(directory, case, stored):
    safetensors.torch.save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["torch_dtype" if case.published else "dtype"] = "bfloat16"
    config["quantization_config"] = SCHEMES[case.four_bit].config
    if case.four_bit == "int4":
        config["model_type"] = "kimi_k2"  # a vendor's name for DeepSeek V3, which transformers does not know
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")
