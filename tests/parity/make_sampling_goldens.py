#!/usr/bin/env python3
"""Writes which tokens Hugging Face's generation leaves to be drawn from fixed rows of logits, and how
repetition penalty, biases and a minimum length change them.

    make_sampling_goldens.py OUT

OUT/golden/sampling.json   the rows, their settings, the tokens left and their scores

The processors and their order are those that transformers builds from a GenerationConfig.
"""

import argparse
import json
import pathlib

import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation import GenerationMixin

WIDTH = 200
EOS = 17


def Case(index, **settings):
    generator = torch.Generator().manual_seed(1000 + index)
    scale = 1.0 + index % 4
    return {
        "logits": torch.randn(WIDTH, generator=generator) * scale,
        "prompt": torch.randint(WIDTH, (12,), generator=generator).tolist(),
        "generated": torch.randint(WIDTH, (5,), generator=generator).tolist(),
        "settings": settings,
    }


CASES = [
    Case(0, top_k=7),
    Case(1, top_p=0.8),
    Case(2, min_p=0.1),
    Case(3, typical_p=0.6),
    Case(4, temperature=0.6, top_k=40, top_p=0.9),
    Case(5, temperature=1.4, top_p=0.95, min_p=0.02),
    Case(6, temperature=0.8, top_k=50, top_p=0.9, min_p=0.05, typical_p=0.7),
    Case(7, repetition_penalty=1.3),
    Case(8, repetition_penalty=0.8, temperature=0.7, typical_p=0.9),
    Case(9, bias={3: 4.0, 8: -3.0, 150: 2.5}, top_p=0.7),
    Case(10, bias={EOS: 30.0}, min_new_tokens=8, top_k=5),
    Case(11, bias={EOS: 30.0}, min_new_tokens=5, top_k=5),
    Case(12, bias={3: 4.0}, repetition_penalty=1.7, temperature=0.9, min_p=0.03, typical_p=0.5),
]


class Generator(GenerationMixin):
    """Only what building the processors looks at."""

    def __init__(self):
        self.config = type("Config", (), {"is_encoder_decoder": False})()


def Processors(case):
    settings = dict(case["settings"])
    bias = settings.pop("bias", {})
    config = GenerationConfig(
        do_sample=True,
        eos_token_id=EOS,
        sequence_bias=[[[token], value] for token, value in bias.items()] or None,
        **{"temperature": 1.0, "top_k": 0, **settings},
    )
    config._eos_token_tensor = torch.tensor([EOS])
    return Generator()._get_logits_processor(
        generation_config=config,
        input_ids_seq_length=len(case["prompt"]),
        encoder_input_ids=torch.tensor([case["prompt"]]),
        prefix_allowed_tokens_fn=None,
        logits_processor=LogitsProcessorList(),
        device="cpu",
    )


def Result(case):
    ids = torch.tensor([case["prompt"] + case["generated"]])
    scores = Processors(case)(ids, case["logits"].clone()[None])[0]
    kept = torch.isfinite(scores)
    settings = dict(case["settings"])
    settings["bias"] = [[token, value] for token, value in settings.pop("bias", {}).items()]
    return {
        "settings": settings,
        "eos": EOS,
        "prompt": case["prompt"],
        "generated": case["generated"],
        "logits": case["logits"].tolist(),
        "kept": kept.nonzero()[:, 0].tolist(),
        "scores": scores[kept].tolist(),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=pathlib.Path)
    arguments = parser.parse_args()
    with open(arguments.output / "golden/sampling.json", "w", encoding="utf-8") as file:
        json.dump([Result(case) for case in CASES], file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
