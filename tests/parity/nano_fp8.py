"""FP8 block checkpoints: e4m3 projections and experts with the scales of their 128 x 128 blocks beside them.

The model that transformers computes is the *twin*, whose fp32 weights are the FP8 ones multiplied out here (its own
loader guesses block sizes from the shapes and refuses partial blocks); all other tensors are rounded to bfloat16, as
released checkpoints hold them.
"""

import json
import zlib

import numpy as np
import safetensors.torch
import torch

BLOCK = 128
E4M3_MAX = 448.0
SUFFIX = "_scale_inv"
MATRICES = ("proj.weight", "proj_with_mqa.weight", ".w1.weight", ".w2.weight", ".w3.weight")


def _grid(size):
    return (size + BLOCK - 1) // BLOCK


def _spread(scales, shape):
    """A scale per block to a scale per value."""
    rows = scales.repeat_interleave(BLOCK, 0)[: shape[0]]
    return rows.repeat_interleave(BLOCK, 1)[:, : shape[1]]


def _scales(weight, rng, powers_of_two):
    """Random blocks have nearly the same maximum; a factor of 1 to 4 tells them apart without a loss, as e4m3 floats."""
    grid = _grid(weight.shape[0]), _grid(weight.shape[1])
    padded = torch.zeros(grid[0] * BLOCK, grid[1] * BLOCK)
    padded[: weight.shape[0], : weight.shape[1]] = weight.abs()
    largest = padded.reshape(grid[0], BLOCK, grid[1], BLOCK).amax((1, 3))
    factor = torch.from_numpy(2.0 ** rng.uniform(0.0, 2.0, grid)).float()
    scales = largest / E4M3_MAX * factor
    return 2.0 ** torch.ceil(torch.log2(scales)) if powers_of_two else scales


def quantise(directory, case, seed):
    """Makes `directory` the twin and returns the tensors of the FP8 checkpoint."""
    stored, twin = {}, {}
    for name, weight in safetensors.torch.load_file(directory / "model.safetensors").items():
        if not name.endswith(MATRICES):
            stored[name] = weight.to(torch.bfloat16)
            twin[name] = stored[name].float()
            continue
        rng = np.random.default_rng([seed, zlib.crc32(f"{case.name}/{name}{SUFFIX}".encode())])
        scales = _scales(weight, rng, case.fp8 == "ue8m0")
        spread = _spread(scales, weight.shape)
        stored[name] = (weight / spread).to(torch.float8_e4m3fn)
        twin[name] = stored[name].float() * spread
        dtype = torch.float8_e8m0fnu if case.fp8 == "ue8m0" else torch.float32
        stored[name + SUFFIX] = scales.to(dtype)
        assert torch.equal(stored[name + SUFFIX].float(), scales)
    safetensors.torch.save_file(twin, directory / "model.safetensors", metadata={"format": "pt"})
    return stored


def misread_scales(stored):
    """What the weights would be with each scale taken from the next block, or from nowhere."""
    for name, scales in stored.items():
        if not name.endswith(SUFFIX):
            continue
        codes = stored[name.removesuffix(SUFFIX)].float()
        grid = scales.float()
        wrong = torch.ones_like(grid) * grid.mean() * 2 if grid.numel() == 1 else None
        for axis in range(2):
            if grid.shape[axis] > 1:
                wrong = (grid if wrong is None else wrong).roll(1, axis)
        yield name.removesuffix(SUFFIX), codes * _spread(wrong, codes.shape)


def write(directory, case, stored):
    safetensors.torch.save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["torch_dtype" if case.published else "dtype"] = "bfloat16"
    config["quantization_config"] = dict(
        activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[BLOCK, BLOCK]
    )
    if case.fp8 == "ue8m0":
        config["quantization_config"]["scale_fmt"] = "ue8m0"
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")
