"""Each bad input ends in one clear sentence, the right status, and harms nobody else."""

import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile
import unittest

import grpc

from cluster import BIN, NANO, Serve, essor, golden, ids_file, wait_until


def changed_copy(directory, model, **config):
    """A copy of a nano checkpoint in `directory` with other config values."""
    target = pathlib.Path(directory) / model
    shutil.copytree(NANO / model, target)
    path = target / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return target


def rewrite_header(path, change):
    """Applies `change` to the JSON header of a safetensors file."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:])


class ModelFilesTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)

    def test_draft_layers_that_are_not_there(self):
        self.fails(NANO / "llama", 'draft layers were asked for, but "llama" has none here',
                   flags=("--draft-layers", "load"))

    def fails(self, model, *needles, flags=()):
        """`essor generate` ends with 1, nothing on stdout, and a message with all needles."""
        result = essor("generate", "--model", model, "--prompt", "x", "--max-new-tokens", 1, *flags)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(result.stdout, "")
        for needle in needles:
            self.assertIn(needle, result.stderr)
        return result.stderr

    def test_missing_directory(self):
        self.fails("/nonexistent/model", "/nonexistent/model")

    def test_unknown_family_lists_the_known_ones(self):
        self.fails(changed_copy(self.directory.name, "llama", model_type="quux"),
                   "quux", "llama", "mixtral", "qwen3_moe")

    def test_truncated_weights_name_file_and_tensor(self):
        model = changed_copy(self.directory.name, "llama")
        path = model / "model.safetensors"
        os.truncate(path, path.stat().st_size - 100)
        self.fails(model, "model.safetensors: tensor model.", "lie outside the")

    def test_a_header_that_lies_about_its_length(self):
        model = changed_copy(self.directory.name, "llama")
        path = model / "model.safetensors"
        path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])
        self.fails(model, "model.safetensors", "header")

    def test_a_missing_tensor_is_named(self):
        model = changed_copy(self.directory.name, "llama")

        def drop(header):
            entry = header.pop("model.layers.1.mlp.up_proj.weight")
            header["unrelated"] = entry

        rewrite_header(model / "model.safetensors", drop)
        self.fails(model, "model.layers.1.mlp.up_proj.weight")

    def test_a_shape_that_contradicts_the_config(self):
        config = json.loads((NANO / "llama/config.json").read_text())
        model = changed_copy(self.directory.name, "llama",
                             intermediate_size=config["intermediate_size"] + 1)
        self.fails(model, "mlp.down_proj.weight: its shape is [64, 64]", "config.json asks for",
                   f"[64, {config['intermediate_size'] + 1}]")

    def test_weights_that_are_not_numbers(self):
        model = changed_copy(self.directory.name, "llama")
        path = model / "model.safetensors"
        data = bytearray(path.read_bytes())
        start = 8 + struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:start])
        begin, end = header["model.layers.1.mlp.down_proj.weight"]["data_offsets"]
        data[start + begin:start + end] = b"\xff" * (end - begin)
        path.write_bytes(data)
        self.fails(model, "the model's logits are not finite numbers")

    def test_config_that_is_not_json(self):
        model = changed_copy(self.directory.name, "llama")
        (model / "config.json").write_text("{")
        self.fails(model, "config.json")

    def test_truncated_gguf(self):
        path = pathlib.Path(self.directory.name) / "model.gguf"
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 5))
        self.fails(path, "model.gguf")

    def test_impossible_plans_say_why(self):
        for plan, why in [("tp=5", "attention heads"), ("pp=9", "layers"), ("ep=2", "experts"),
                          ("dp=2,tp=5", "attention heads")]:
            with self.subTest(plan=plan):
                self.fails(NANO / "llama", why, flags=["--plan", plan])

    def test_malformed_plan_is_bad_usage(self):
        for plan, why in [("tp=x", "tp"), ("zp=2", "zp"), ("tp=2,ep=3", "multiple")]:
            with self.subTest(plan=plan):
                result = essor("generate", "--model", NANO / "llama", "--prompt", "x", "--plan", plan)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertIn(why, result.stderr)


class UsageTest(unittest.TestCase):
    def test_bad_usage_ends_with_2_and_an_empty_stdout(self):
        for arguments in [["generate"], ["generate", "--model", "m"], ["--nonsense"], ["quux"],
                          ["generate", "--model", "m", "--server", "s", "--prompt", "x"],
                          ["serve"], ["plan"], ["quux", "--help"],
                          ["serve", "--model", "m", "--listen-grpc", "nonsense"],
                          ["status", "--server", "127.0.0.1:99999"],
                          ["chat", "--server", "nonsense", "hi"], ["generate", "--prompt"]]:
            with self.subTest(arguments=arguments):
                result = essor(*arguments)
                self.assertEqual((result.returncode, result.stdout), (2, ""), result.stderr)
                self.assertNotEqual(result.stderr, "")

    def test_bad_scheduling_flags_end_with_2_and_one_sentence(self):
        for flag in ["--prefix-cache=most", "--reserve-new-tokens=-1", "--reserve-new-tokens=few",
                     "--target-step-ms=-1", "--target-step-ms=1.5", "--tenant-weight=blue",
                     "--tenant-weight=blue=0", "--tenant-weight=blue=nan", "--kv-dtype=int4"]:
            for command in [["essor-coordinator"], ["essor", "serve"],
                            ["essor", "generate", "--prompt", "x"]]:
                with self.subTest(flag=flag, command=command):
                    result = subprocess.run([BIN / command[0], *command[1:], "--model", "m", flag],
                                            capture_output=True, text=True, timeout=30, check=False)
                    self.assertEqual((result.returncode, result.stdout), (2, ""), result.stderr)
                    self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
                    self.assertIn(flag.split("=")[0], result.stderr)

    def test_help_lists_scheduling_flags(self):
        for command in [["essor-coordinator"], ["essor", "serve"], ["essor", "chat"],
                        ["essor", "generate"], ["essor", "score"]]:
            result = subprocess.run([BIN / command[0], *command[1:], "--help"], text=True,
                                    capture_output=True, timeout=30, check=False)
            for flag in ["--prefix-cache", "--reserve-new-tokens", "--target-step-ms",
                         "--tenant-weight", "--kv-dtype"]:
                with self.subTest(flag=flag, command=command):
                    self.assertIn(f"  {flag} ", result.stdout)

    def test_help_and_version_end_with_0(self):
        for binary in ["essor", "essor-coordinator", "essor-worker"]:
            for flag in ["--help", "--version"]:
                result = subprocess.run([BIN / binary, flag], capture_output=True, timeout=30,
                                        check=False)
                self.assertEqual(result.returncode, 0)
                self.assertNotEqual(result.stdout, b"")
        for command in ["serve", "chat", "generate", "score", "tokenize", "detokenize", "render",
                        "plan", "status", "convert"]:
            self.assertEqual(essor(command, "--help").returncode, 0, command)

    def test_ids_that_are_not_ids_name_the_place(self):
        for text, needle in [("[[1,-2]]", "-2"), ("[[1,\"x\"]]", "array"), ("[1]", "array"),
                             ("[[1", "JSON")]:
            with self.subTest(text=text), tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                file.write(text)
                file.flush()
                result = essor("score", "--model", NANO / "llama", "--tokens", file.name)
                self.assertIn(result.returncode, (1, 2))
                self.assertEqual(result.stdout, "")
                self.assertIn(file.name, result.stderr)

    def test_a_port_in_use_is_named(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            for flag in ["--listen-grpc", "--listen-http", "--listen-cluster"]:
                with self.subTest(flag=flag):
                    listen = {"--listen-grpc": "127.0.0.1:0", "--listen-http": "127.0.0.1:0",
                              "--listen-cluster": "127.0.0.1:0", flag: address}
                    result = essor("serve", "--model", NANO / "llama",
                                   *[part for pair in listen.items() for part in pair])
                    self.assertEqual(result.returncode, 1)
                    self.assertIn(address, result.stderr)


class RequestTest(unittest.TestCase):
    """Requests that are refused by a running cluster, which goes on serving the others."""

    @classmethod
    def setUpClass(cls):
        cls.serve = Serve(NANO / "llama", "--workers", 2, "--max-queued-requests", 4)
        cls.channel = cls.serve.channel()

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.serve.kill()

    def stubs(self):
        from essor.v1 import inference_pb2, inference_pb2_grpc
        return inference_pb2, inference_pb2_grpc.InferenceStub(self.channel)

    def refused(self, code, *needles, **fields):
        messages, stub = self.stubs()
        with self.assertRaises(grpc.RpcError) as caught:
            list(stub.Generate(messages.GenerateRequest(**fields), timeout=30))
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        for needle in needles:
            self.assertIn(needle, caught.exception.details())

    def tearDown(self):
        # Whatever was refused: the next one is served, and nothing is left counted.
        messages, stub = self.stubs()
        parts = list(stub.Generate(messages.GenerateRequest(
            tokens={"ids": [5, 6]}, sampling={"max_new_tokens": 3, "ignore_eos": True,
                                              "temperature": 0}), timeout=30))
        self.assertEqual(sum(len(part.token_ids) for part in parts), 3)
        wait_until(lambda: self.serve.metric("essor_requests_running") == 0, 2)

    def test_sampling_values(self):
        nan = float("nan")
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        for field, value in [("temperature", nan), ("temperature", -1), ("temperature", 2.5),
                             ("temperature", float("inf")), ("top_p", 0), ("top_p", nan),
                             ("top_p", 1.5), ("top_k", -1), ("min_p", 2), ("min_p", nan),
                             ("n", 0), ("n", 1000), ("max_new_tokens", 0)]:
            with self.subTest(field=field, value=value):
                self.refused(invalid, f"sampling.{field}", tokens={"ids": [1]},
                             sampling={field: value})

    def test_ids_outside_the_vocabulary(self):
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "tokens", "288", tokens={"ids": [1, 288]})

    def test_a_prompt_longer_than_the_context(self):
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "128", tokens={"ids": [1] * 129})
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "128", tokens={"ids": [1] * 100},
                     sampling={"max_new_tokens": 100})

    def test_no_input_and_an_empty_one(self):
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "input")
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "tokens", tokens={"ids": []})

    def test_an_unknown_model(self):
        self.refused(grpc.StatusCode.NOT_FOUND, "quux", model="quux", tokens={"ids": [1]})

    def test_http_names_the_field(self):
        for body, param in [({"prompt": "x", "temperature": -1}, "temperature"),
                            ({"prompt": "x", "temperature": "hot"}, "temperature"),
                            ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
                            ({"prompt": [1, 999999]}, "prompt"),
                            ({"prompt": "x", "n": 100000}, "n"),
                            ({}, "prompt")]:
            with self.subTest(body=body):
                status, answer = self.serve.post("/v1/completions", body)
                self.assertEqual(status, 400, answer)
                self.assertEqual(answer["error"]["param"], param, answer)
        status, answer = self.serve.post("/v1/completions", {"prompt": [1] * 100, "max_tokens": 100})
        self.assertEqual((status, answer["error"]["code"]), (400, "context_length_exceeded"))
        status, answer = self.serve.post("/v1/completions", {"prompt": "x", "model": "quux"})
        self.assertEqual((status, answer["error"]["code"]), (404, "model_not_found"))
        for body in [b"{", b"[]", b"\"x\"", b"{\"prompt\":" + b"[" * 100000]:
            status, _, _ = self.serve.request("/v1/completions", body)
            self.assertEqual(status, 400)

    def test_a_worker_of_another_build_is_refused_by_name(self):
        from essor.v1 import cluster_pb2, cluster_pb2_grpc
        with grpc.insecure_channel(self.serve.cluster) as channel:
            stub = cluster_pb2_grpc.ClusterStub(channel)
            hello = cluster_pb2.WorkerMessage(hello={"build": "9.9.9", "incarnation": "test",
                                                     "num_devices": 1, "host": "elsewhere"})
            with self.assertRaises(grpc.RpcError) as caught:
                list(stub.Join(iter([hello]), timeout=20))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
            self.assertIn("build", caught.exception.details())
            self.assertIn("9.9.9", caught.exception.details())

    def test_the_cluster_service_is_not_on_the_public_port(self):
        from essor.v1 import cluster_pb2, cluster_pb2_grpc
        stub = cluster_pb2_grpc.ClusterStub(self.channel)
        with self.assertRaises(grpc.RpcError) as caught:
            list(stub.Join(iter([cluster_pb2.WorkerMessage(hello={})]), timeout=20))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_the_wrong_port_of_a_coordinator_is_named(self):
        result = essor("status", "--server", self.serve.cluster)
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"{self.serve.cluster} does not serve essor.v1", result.stderr)
        worker = subprocess.run([BIN / "essor-worker", "--coordinator", self.serve.grpc,
                                 "--listen-health", "off"],
                                capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(worker.returncode, 1)
        self.assertIn(f"{self.serve.grpc} does not serve essor.v1.Cluster", worker.stderr)

    def test_a_full_queue_is_resource_exhausted_with_a_retry_delay(self):
        import concurrent.futures
        body = {"prompt": [5, 6], "max_tokens": 100, "ignore_eos": True}
        with concurrent.futures.ThreadPoolExecutor(120) as pool:
            answers = list(pool.map(lambda _: self.serve.request("/v1/completions", body), range(120)))
        statuses = [status for status, _, _ in answers]
        self.assertLessEqual(set(statuses), {200, 429})
        self.assertIn(200, statuses)
        for status, headers, answer in answers:
            if status == 429:
                retry = {key.lower(): value for key, value in headers.items()}["retry-after"]
                self.assertGreaterEqual(int(retry), 1)
                self.assertIn("error", json.loads(answer))


class DifferentModelTest(unittest.TestCase):
    def test_a_worker_that_sees_other_weights_says_so(self):
        """The coordinator opened one checkpoint; the files change before the worker looks."""
        with tempfile.TemporaryDirectory() as directory:
            model = changed_copy(directory, "llama")
            ports = pathlib.Path(directory) / "ports.json"
            coordinator = subprocess.Popen(
                [BIN / "essor-coordinator", "--model", model, "--workers", "1",
                 "--listen-grpc", "127.0.0.1:0", "--listen-http", "127.0.0.1:0",
                 "--listen-cluster", "127.0.0.1:0", "--ports-file", ports],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            try:
                wait_until(lambda: ports.exists() and ports.read_text())
                cluster = wait_until(lambda: json.loads(ports.read_text() or "{}").get("cluster"))
                rewrite_header(model / "model.safetensors",
                               lambda header: header.setdefault("__metadata__", {}).update(x="y"))
                worker = subprocess.run(
                    [BIN / "essor-worker", "--coordinator", cluster, "--listen-health", "off"],
                    capture_output=True, text=True, timeout=30, check=False)
                self.assertNotEqual(worker.returncode, 0)
                self.assertIn("model_fingerprint", worker.stderr)
            finally:
                coordinator.kill()
                coordinator.communicate()


if __name__ == "__main__":
    unittest.main()
