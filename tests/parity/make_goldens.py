#!/usr/bin/env python3
"""Makes the nano checkpoints and their goldens with Hugging Face transformers.

    make_goldens.py OUT [--only CASE ...]

OUT/nano/<case>/                a Hugging Face model directory, fp32, with a tokenizer and a chat template
OUT/golden/<case>.safetensors   logits, routing and hidden states of the prompts
OUT/golden/<case>.json          prompts, greedy continuations, tolerances, what was checked

Formats: README.md beside this file. Every weight is a function of the case, a seed and the tensor's name; the
seed is the first one whose prompts have no near-tie in routing or greedy choice. Each checkpoint is read back
through from_pretrained before anything is computed, so the goldens belong to the files and not to the process
that wrote them.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys
import zlib

import numpy as np
import safetensors.torch
import torch
import transformers

import index_tap
import nano_case
import nano_cases
import nano_four_bit
import nano_fp8
import nano_tokenizer

BASE_SEED = 20261123
SEED_TRIES = 40
# Near-ties that a seed or a prompt is rejected for. Router gaps are between the last chosen and the first
# unchosen expert (and group), in units of logits; greedy gaps between the two largest logits. bf16 moves either
# by about 0.02 here.
MIN_ROUTER_GAP = 0.03
MIN_GREEDY_GAP = 0.01
# Between the last position that an indexer chooses and the next, in standard deviations of a token's scores:
# a hundred times what float32 moves. bf16 has to choose the same for the prompts, which the gap cannot promise.
MIN_INDEX_GAP = 1e-3
MIN_DISTINCT_GREEDY = 5  # a continuation that repeats a few tokens would hide a stale cache
SENSITIVITY_RATIO = 10.0  # models.md: a wrong tensor or key must show at 10x the tolerance
KL_FLOOR = 1e-4  # tolerance is max(3 * bf16_kl, KL_FLOOR)


def model_and_config(case, **extra):
    config = getattr(transformers, case.config_class)(**(case.overrides | extra))
    config.dtype = torch.float32
    return getattr(transformers, case.model_class), config


def neutral_norm(case, name):
    return 0.0 if case.zero_centred_norms and not name.endswith("linear_attn.norm.weight") else 1.0


def draw(case, seed, name, shape):
    """The re-drawn initialisation: no tensor may be neutral, or its absence would go unnoticed."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{case.name}/{name}".encode())])
    noise = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("norm.weight"):
        return neutral_norm(case, name) + case.norm_spread * noise
    if name.endswith("dt_bias"):
        return 0.7 * noise
    if name.endswith("A_log"):
        return np.log(2.0) * noise - 1.0  # rates from about 1/8 to 1
    if name.endswith("bias"):
        return 0.2 * noise
    if name.endswith("sinks"):
        return 1.0 + noise
    # Fan-in is the last axis, of fused expert tensors too unless they are transposed (Llama 4, gpt-oss).
    transposed = case.transposed_experts and ".experts." in name
    return noise / np.sqrt(np.float32(shape[-2] if transposed else shape[-1]))


def weights_of(model):
    """Parameters, and the buffers that are trained weights all the same."""
    yield from model.named_parameters()
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            yield name, buffer


def redraw(model, case, seed):
    with torch.no_grad():
        for name, parameter in weights_of(model):
            parameter.copy_(torch.from_numpy(draw(case, seed, name, tuple(parameter.shape))))
    if case.stored_bfloat16:
        model.to(torch.bfloat16)


def published_config(config):
    """config.json as released checkpoints carry it, before transformers 5 renamed the keys."""
    if "text_config" in config:
        config["text_config"] = published_config(config["text_config"])
        config["torch_dtype"] = config.pop("dtype")
        return config
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    if "dtype" in config:  # in the outer config of a multimodal model
        config["torch_dtype"] = config.pop("dtype")
    if config["model_type"] == "llama4_text":
        del config["layer_types"]  # those that rotate
    if config["model_type"] == "qwen2_moe":
        del config["layer_types"]
    if config["model_type"] == "qwen2":
        del config["layer_types"]
        config["sliding_window"] = (
            8  # switched off by use_sliding_window, as in QwQ; would act on the long prompt
        )
    if config["model_type"] == "deepseek_v32":
        del config["mlp_layer_types"], config["layer_types"]
    if config["model_type"] == "minimax_m2":
        config["rotary_dim"] = round(config["head_dim"] * config.pop("partial_rotary_factor"))
        config["attn_type_list"] = [1] * config["num_hidden_layers"]
        config |= dict(num_mtp_modules=3, qk_norm_type="per_layer", scoring_func="sigmoid")
        config |= dict(use_qk_norm=True, use_routing_bias=True, shared_intermediate_size=0)
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config.pop(
            "num_local_experts"
        )  # transformers 5 saves Mixtral's name
    return config


def save(model, case, directory):
    shutil.rmtree(directory, ignore_errors=True)
    size = {"max_shard_size": case.shard_bytes} if case.shard_bytes else {}
    model.save_pretrained(directory, **size)
    (directory / "generation_config.json").unlink(missing_ok=True)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config.pop("transformers_version", None)
    if case.published:
        config = published_config(config)
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")
    nano_tokenizer.write(directory)


def load(directory, dtype=torch.float32, **overrides):
    config = transformers.AutoConfig.from_pretrained(directory)
    for key, value in overrides.items():
        setattr(config.get_text_config(), key, value)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, config=config, dtype=dtype, attn_implementation="eager"
    )
    return model.eval()


def gap_after(values, count):
    """Smallest difference, over rows, between the count-th largest value and the next one."""
    if count >= values.shape[-1]:
        return float("inf")
    best = values.sort(-1, descending=True).values
    return float((best[:, count - 1] - best[:, count]).min())


def choice_gap(router, given_bias, logits, top_k):
    """How far the router's choice is from another one, in logits."""
    statics = getattr(router, "moe_statics", router)  # ERNIE
    bias = getattr(statics, "e_score_correction_bias", given_bias)
    if bias is None:
        return gap_after(logits, top_k)
    softmax = statics is not router
    scores = logits.softmax(-1) if softmax else logits.sigmoid()
    choice = scores + bias.float().reshape(1, -1)
    # The slope of a score over its logit: at most 1/4; of one of E probabilities about 1/E.
    scale = logits.shape[-1] if softmax else 4.0
    groups = getattr(router, "num_group", 1)
    if groups == 1:
        return scale * gap_after(choice, top_k)
    members = choice.reshape(len(choice), groups, -1)
    values = members.topk(2, -1).values.sum(-1)
    kept = torch.zeros_like(values).scatter(1, values.topk(router.topk_group, -1).indices, 1)
    limited = members.masked_fill(kept.unsqueeze(-1) == 0, float("-inf")).reshape_as(choice)
    return scale * min(gap_after(values, router.topk_group), gap_after(limited, top_k))


def router_of(layer):
    """The router of a layer with experts, else None."""
    ffn = layer.feed_forward if hasattr(layer, "feed_forward") else layer.mlp  # Llama 4
    if not hasattr(ffn, "experts"):
        return None
    return ffn.router if hasattr(ffn, "router") else ffn.gate


class RouterTap:
    """Collects each router's logits and choices, in layer order, during one forward pass."""

    def __init__(self, model):
        self.layers = [
            index
            for index, layer in enumerate(model.model.layers)
            if router_of(layer) is not None
        ]
        self.top_k = getattr(model.config, "num_experts_per_tok", 0)
        self.calls = []
        self.indexers = index_tap.IndexTap(model)
        for index in self.layers:
            router_of(model.model.layers[index]).register_forward_hook(self._record)

    def _record(self, module, inputs, outputs):
        if len(outputs) == 2:  # Llama 4: scores of all experts, 0 of those not chosen
            weights, experts = outputs[0].topk(self.top_k, -1)
        else:
            _, weights, experts = outputs
        # Computed anew: what the first output holds, logits or probabilities, differs between classes.
        hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
        logits = torch.nn.functional.linear(hidden.float(), module.weight.float())
        if getattr(module, "bias", None) is not None:  # gpt-oss
            logits = logits + module.bias.float()
        bias = inputs[1] if len(inputs) > 1 else None  # MiniMax-M2 passes it
        gap = choice_gap(module, bias, logits, self.top_k)
        self.calls.append((gap, weights.float(), experts))

    def take(self):
        calls, self.calls = self.calls, []
        return calls

    @staticmethod
    def min_gap(calls):
        return min(gap for gap, _, _ in calls) if calls else None


@torch.no_grad()
def forward(model, ids):
    out = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return out.logits[0].float(), torch.stack([state[0].float() for state in out.hidden_states])


@torch.no_grad()
def greedy(model, ids, steps):
    """Greedy continuation without a cache: the definition, not an optimisation of it."""
    tokens, gaps = list(ids), []
    for _ in range(steps):
        best = forward(model, tokens)[0][-1].topk(2)
        tokens.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
    return tokens[len(ids) :], gaps


def mean_kl(reference, other):
    """Mean over positions of KL(reference || other), in nats, computed in double precision."""
    p = torch.log_softmax(torch.cat(reference).double(), -1)
    q = torch.log_softmax(torch.cat(other).double(), -1)
    return float((p.exp() * (p - q)).sum(-1).mean())


@dataclasses.dataclass
class Prompt:
    ids: list
    logits: torch.Tensor
    hidden: torch.Tensor
    routing: list
    continuation: list
    gaps: list
    router_gap: float | None  # smallest over prompt and continuation
    index_gaps: list | None  # of each greedy step, where there are indexers


def chooses_alike(bf16, tap, ids, routing, chosen):
    """Whether bf16 has the same experts and index choices for a prompt."""
    forward(bf16, ids)
    pairs = zip(routing, tap.take(), strict=True)
    same_index = index_tap.same_choice(chosen, tap.indexers.take())
    return same_index and all(
        torch.equal(a[2].sort(-1).values, b[2].sort(-1).values) for a, b in pairs
    )


def try_prompt(model, bf16, tap, bf16_tap, ids):
    logits, hidden = forward(model, ids)
    routing, chosen = tap.take(), tap.indexers.take()
    if index_tap.min_gap(chosen) < MIN_INDEX_GAP:
        return None
    if routing:
        if tap.min_gap(routing) < MIN_ROUTER_GAP:
            return None
        if not chooses_alike(bf16, bf16_tap, ids, routing, chosen):
            return None
    continuation, gaps = greedy(model, ids, nano_case.GREEDY_STEPS)
    router_gap, index_gap = tap.min_gap(tap.take()), index_tap.min_gap(tap.indexers.take())
    if router_gap is not None and router_gap < MIN_ROUTER_GAP or index_gap < MIN_INDEX_GAP:
        return None
    if (
        min(gaps) < MIN_GREEDY_GAP
        or nano_case.EOS_ID in continuation
        or len(set(continuation)) < MIN_DISTINCT_GREEDY
    ):
        return None
    index_gaps = index_tap.gaps_of_steps(model, tap, ids, continuation) if chosen else None
    return Prompt(ids, logits, hidden, routing, continuation, gaps, router_gap, index_gaps)


def choose_prompts(case, model, bf16, seed):
    tap, bf16_tap = RouterTap(model), RouterTap(bf16)
    rng = np.random.default_rng([seed, 1])
    plain = nano_case.TOKENIZER_VOCAB - len(nano_tokenizer.SPECIAL_TOKENS)
    prompts = []
    for length in nano_case.PROMPT_LENGTHS:
        for _ in range(case.prompt_tries):
            prompt = try_prompt(model, bf16, tap, bf16_tap, rng.integers(0, plain, length).tolist())
            if prompt:
                prompts.append(prompt)
                break
        else:
            return None
    return prompts


def neutral_variants(case, model):
    """One entry per kind of tensor: (kind, names, neutral value)."""
    kinds = {}
    for name, _ in weights_of(model):
        if name.endswith("norm.weight"):
            kinds.setdefault(name.split(".")[-2], []).append((name, neutral_norm(case, name)))
        elif name.endswith("bias"):
            kinds.setdefault(".".join(name.split(".")[-2:]), []).append((name, 0.0))
        elif name.endswith("sinks"):
            kinds.setdefault("sinks", []).append((name, -1e4))
    return kinds


def misread_scales_kl(directory, stored, prompts):
    model = load(directory)
    names = {name: parameter for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, weight in nano_fp8.misread_scales(stored):
            if name in names:  # the experts are fused in memory, the attention's projections are not
                names[name].copy_(weight)
    return mean_kl([p.logits for p in prompts], [forward(model, p.ids)[0] for p in prompts])


def misread_groups_kl(directory, case, stored, names, prompts):
    nano_four_bit.write_twin(directory, case, stored, names, misread=True)
    model = load(directory)
    return mean_kl([p.logits for p in prompts], [forward(model, p.ids)[0] for p in prompts])


def sensitivity(case, directory, prompts):
    """Mean KL caused by making each kind of tensor neutral, and by each wrong config key."""
    reference = [prompt.logits for prompt in prompts]
    moved = {}
    for kind, entries in neutral_variants(case, load(directory)).items():
        model = load(directory)
        parameters = dict(weights_of(model))
        with torch.no_grad():
            for name, value in entries:
                parameters[name].fill_(value)
        moved[kind] = mean_kl(reference, [forward(model, prompt.ids)[0] for prompt in prompts])
    for label, overrides in case.sensitivity:
        model = load(directory, **overrides)
        moved[label] = mean_kl(reference, [forward(model, prompt.ids)[0] for prompt in prompts])
    return moved


def write_vendor_config(case, directory):
    path = directory / "config.json"
    config = case.vendor(json.loads(path.read_text()))
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def build(case, seed, directory):
    with case.patched():
        return build_patched(case, seed, directory)


def build_patched(case, seed, directory):
    model_class, config = model_and_config(case)
    model = model_class(config)
    redraw(model, case, seed)
    save(model, case, directory)
    stored = nano_fp8.quantise(directory, case, seed) if case.fp8 else None
    if case.four_bit:
        packed, names = nano_four_bit.quantise(directory, case)
    model, bf16 = load(directory), load(directory, torch.bfloat16)
    prompts = choose_prompts(case, model, bf16, seed)
    if prompts is None:
        return None
    bf16_kl = mean_kl([p.logits for p in prompts], [forward(bf16, p.ids)[0] for p in prompts])
    moved = sensitivity(case, directory, prompts)
    if stored:
        moved["weight_scale_inv"] = misread_scales_kl(directory, stored, prompts)
    if case.four_bit:
        moved["group_scales"] = misread_groups_kl(directory, case, packed, names, prompts)
    needed = SENSITIVITY_RATIO * max(3 * bf16_kl, KL_FLOOR)
    weak = {label: kl for label, kl in moved.items() if kl < needed}
    if weak:
        print(f"{case.name} seed {seed}: needs KL {needed:.2e}, too weak: {weak}", file=sys.stderr)
        return None
    layers = RouterTap(model).layers
    if stored:
        nano_fp8.write(directory, case, stored)
    if case.four_bit:
        nano_four_bit.write(directory, case, packed)
    if case.vendor:
        write_vendor_config(case, directory)
    return prompts, bf16_kl, moved, layers


def write_golden(case, seed, result, out):
    prompts, bf16_kl, moved, moe_layers = result
    tensors, described = {}, []
    for index, prompt in enumerate(prompts):
        tensors[f"logits.{index}"] = prompt.logits.contiguous()
        if len(prompt.ids) <= 5:
            tensors[f"hidden.{index}"] = prompt.hidden.contiguous()
        if prompt.routing:
            tensors[f"experts.{index}"] = torch.stack(
                [experts for _, _, experts in prompt.routing]
            ).int()
            tensors[f"expert_weights.{index}"] = torch.stack(
                [weights for _, weights, _ in prompt.routing]
            )
        described.append(
            dict(
                ids=prompt.ids,
                greedy=prompt.continuation,
                greedy_gaps=[round(gap, 6) for gap in prompt.gaps],
                min_router_gap=prompt.router_gap and round(prompt.router_gap, 6),
            )
        )
        if prompt.index_gaps:
            described[-1]["index_gaps"] = prompt.index_gaps
    out.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, out / f"{case.name}.safetensors")
    golden = dict(
        case=case.name,
        model_class=case.model_class,
        seed=seed,
        transformers=transformers.__version__,
        torch=torch.__version__.split("+")[0],
        prompts=described,
        bf16_kl=bf16_kl,
        moe_layers=moe_layers,
        sensitivity_kl={label: float(f"{kl:.4g}") for label, kl in moved.items()},
    )
    (out / f"{case.name}.json").write_text(json.dumps(golden, indent=1) + "\n")


def make(case, out):
    for seed in range(BASE_SEED, BASE_SEED + SEED_TRIES):
        result = build(case, seed, out / "nano" / case.name)
        if result:
            write_golden(case, seed, result, out / "golden")
            print(
                f"{case.name}: seed {seed}, bf16 KL {result[1]:.2e}, "
                f"weakest sensitivity {min(result[2].values()):.2e}"
            )
            return
    sys.exit(f"{case.name}: no seed of {SEED_TRIES} passed; loosen the case, not the checks")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", choices=[case.name for case in nano_cases.CASES])
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for case in nano_cases.CASES:
        if not args.only or case.name in args.only:
            make(case, args.out)


if __name__ == "__main__":
    main()
