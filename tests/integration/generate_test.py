"""A prompt goes over gRPC through coordinator and worker processes and comes back as tokens."""

import concurrent.futures
import json
import pathlib
import shutil
import struct
import tempfile
import unittest

from cluster import NANO, Serve, essor, golden, ids_file


def read_logits(path):
    """{name: (shape, floats)} of a safetensors file of float32 tensors."""
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin:8 + size + end]
        tensors[name] = (entry["shape"], struct.unpack(f"<{len(raw) // 4}f", raw))
    return tensors


def with_draft_layer(directory, name):
    """A copy of a nano checkpoint in float32 whose last layer stands behind itself as a draft layer too."""
    target = pathlib.Path(directory) / name
    shutil.copytree(NANO / name, target)
    config = json.loads((target / "config.json").read_text())
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    config["num_nextn_predict_layers"] = 1
    (target / "config.json").write_text(json.dumps(config))
    prefix = f"model.layers.{layers}."
    path = target / "model.safetensors"
    tensors = read_logits(path)
    for tensor, value in list(tensors.items()):
        last = f"model.layers.{layers - 1}."
        if tensor.startswith(last):
            tensors[prefix + tensor.removeprefix(last)] = value
    for tensor in ["enorm", "hnorm", "shared_head.norm"]:
        tensors[f"{prefix}{tensor}.weight"] = ([hidden], [1.0] * hidden)
    tensors[f"{prefix}eh_proj.weight"] = ([hidden, 2 * hidden], [0.5] * (2 * hidden * hidden))
    header, data = {}, b""
    for tensor, (shape, values) in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        header[tensor] = dict(dtype="F32", shape=shape, data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return target


class GenerateTest(unittest.TestCase):
    def check_greedy(self, model, *flags):
        case = golden(model)
        with ids_file([prompt["ids"] for prompt in case["prompts"]]) as ids:
            result = essor("generate", "--model", NANO / model, "--tokens", ids, "--ignore-eos",
                           "--max-new-tokens", 16, "--json", *flags)
        self.assertEqual(result.returncode, 0, result.stderr)
        answer = json.loads(result.stdout)
        for prompt, sequence in zip(case["prompts"], answer["sequences"], strict=True):
            self.assertEqual(sequence["token_ids"], prompt["greedy"])
            self.assertEqual(sequence["finish_reason"], "length")

    def test_plans_over_processes_give_the_tokens_of_transformers(self):
        for model, plan in [("qwen3_moe", "ep=2"), ("mixtral", "tp=2,ep=2"), ("mixtral", "pp=2,tp=2"),
                            ("llama_tied", "tp=3"), ("qwen3", "pp=2"), ("qwen3_moe", "dp=2,ep=2"),
                            ("deepseek_v3", "pp=2,dp=2,ep=2"), ("llama", "dp=2")]:
            with self.subTest(model=model, plan=plan):
                self.check_greedy(model, "--plan", plan)

    def test_two_ranks_in_one_worker(self):
        self.check_greedy("mixtral", "--plan", "tp=2", "--workers", 1)

    def test_draft_layers_are_held_and_change_nothing(self):
        case = golden("deepseek_v3")
        with tempfile.TemporaryDirectory() as directory, ids_file(
                [prompt["ids"] for prompt in case["prompts"]]) as ids:
            model = with_draft_layer(directory, "deepseek_v3")
            for plan in ["tp=2", "pp=2"]:
                result = essor("generate", "--model", model, "--tokens", ids, "--ignore-eos",
                               "--max-new-tokens", 16, "--json", "--plan", plan,
                               "--draft-layers", "load")
                self.assertEqual(result.returncode, 0, result.stderr)
                sequences = json.loads(result.stdout)["sequences"]
                self.assertEqual([sequence["token_ids"] for sequence in sequences],
                                 [prompt["greedy"] for prompt in case["prompts"]])

    def test_the_planner_uses_all_workers(self):
        self.check_greedy("qwen3_moe", "--workers", 2)

    def test_score_gives_log_probabilities_and_logits(self):
        case = golden("llama")
        ids = case["prompts"][2]["ids"]
        out = self.id().split(".")[-1] + ".safetensors"
        import os
        with tempfile.TemporaryDirectory() as directory, ids_file([ids, ids[:3]]) as tokens:
            path = os.path.join(directory, out)
            result = essor("score", "--model", NANO / "llama", "--tokens", tokens, "--logits", path,
                           "--json", "--plan", "tp=2")
            self.assertEqual(result.returncode, 0, result.stderr)
            logits = read_logits(path)
        self.assertEqual(sorted(logits), ["logits.0", "logits.1"])
        self.assertEqual(logits["logits.0"][0], [len(ids), 288])
        scores = json.loads(result.stdout)["sequences"]
        self.assertEqual(len(scores[0]["logprobs"]), len(ids) - 1)
        # The log-probabilities are the log-softmax of the logits that came with them.
        import math
        for position, logprob in enumerate(scores[0]["logprobs"]):
            row = logits["logits.0"][1][position * 288:(position + 1) * 288]
            top = max(row)
            norm = top + math.log(sum(math.exp(value - top) for value in row))
            self.assertAlmostEqual(logprob, row[ids[position + 1]] - norm, places=4)


class ConcurrencyTest(unittest.TestCase):
    def test_sixteen_streams_give_the_tokens_of_one_at_a_time(self):
        from essor.v1 import inference_pb2, inference_pb2_grpc

        prompts = [golden("qwen3_moe")["prompts"][i % 3]["ids"][:1 + i] for i in range(16)]

        def request(index):
            sampling = dict(max_new_tokens=24, ignore_eos=True, seed=1000 + index)
            # Greedy, plain temperature, and filtered sampling in turn.
            if index % 3 == 0:
                sampling["temperature"] = 0.0
            elif index % 3 == 1:
                sampling["temperature"] = 0.9
            else:
                sampling.update(temperature=1.1, top_p=0.9, top_k=50)
            return inference_pb2.GenerateRequest(tokens={"ids": prompts[index]}, sampling=sampling)

        with Serve(NANO / "qwen3_moe", "--plan", "ep=2") as serve, serve.channel() as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)

            def tokens(index):
                return [token for part in stub.Generate(request(index), timeout=60)
                        for token in part.token_ids]

            alone = [tokens(index) for index in range(16)]
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                together = list(pool.map(tokens, range(16)))
            self.assertEqual(together, alone)
            self.assertTrue(all(len(part) == 24 for part in alone))
            self.assertEqual(serve.stop(), 0)


if __name__ == "__main__":
    unittest.main()
