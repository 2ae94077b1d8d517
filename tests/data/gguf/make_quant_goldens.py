#!/usr/bin/env python3
"""Makes quant_goldens.safetensors: blocks of every quantised type, and what they decode to.

    make_quant_goldens.py

Blocks are seeded random bytes with scales set to sensible half-precision numbers, so that every bit
of a block matters. The values are those of gguf.quants.dequantize (PyPI gguf 0.19.0); q8_0.source
holds float32 rows, whose blocks in q8_0.quantised come from gguf.quants.quantize.
Needs gguf, numpy and safetensors.
"""

import pathlib

import gguf
import numpy as np
from safetensors.numpy import save_file

SEED = 20261123
BLOCKS = 6
TYPES = gguf.GGMLQuantizationType
# Byte offsets of the half-precision numbers of each block.
HALVES = {TYPES.Q8_0: [0], TYPES.Q4_0: [0], TYPES.Q4_1: [0, 2], TYPES.Q4_K: [0, 2],
          TYPES.Q6_K: [208]}


def random_blocks(kind, rng):
    _, width = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (BLOCKS, width), dtype=np.uint8)
    for offset in HALVES[kind]:
        halves = rng.normal(0.0, 0.05, BLOCKS).astype(np.float16)
        halves[0] = np.float16(3e-7)  # a subnormal scale
        blocks[:, offset:offset + 2] = halves.view(np.uint8).reshape(BLOCKS, 2)
    return blocks


def main():
    rng = np.random.default_rng(SEED)
    tensors = {}
    for kind in HALVES:
        blocks = random_blocks(kind, rng)
        values = gguf.quants.dequantize(blocks, kind).astype(np.float32)
        tensors[kind.name.lower() + ".blocks"] = blocks.reshape(-1)
        tensors[kind.name.lower() + ".values"] = values.reshape(-1)
    source = rng.normal(0.0, 0.5, (8, 64)).astype(np.float32)
    source[1, :32] = 0.0
    source[2, 5] = 1000.0
    source[3] *= 1e-6  # subnormal scales
    tensors["q8_0.source"] = source
    tensors["q8_0.quantised"] = gguf.quants.quantize(source, TYPES.Q8_0).reshape(-1)
    save_file(tensors, pathlib.Path(__file__).with_name("quant_goldens.safetensors"))


if __name__ == "__main__":
    main()
