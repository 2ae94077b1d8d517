"""The OpenAI endpoints in their first form, over real sockets."""

import json
import socket
import time
import unittest

from cluster import NANO, Serve, golden, wait_until


def events(body):
    """The data of each server-sent event."""
    return [line[len("data: "):] for line in body.decode().split("\n") if line.startswith("data: ")]


class HttpTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.serve = Serve(NANO / "qwen3_moe", "--plan", "ep=2", "--served-model-name", "nano")
        cls.prompt = golden("qwen3_moe")["prompts"][2]

    @classmethod
    def tearDownClass(cls):
        cls.serve.kill()

    def test_models(self):
        status, _, body = self.serve.request("/v1/models")
        answer = json.loads(body)
        self.assertEqual((status, answer["object"], answer["data"][0]["id"]), (200, "list", "nano"))
        self.assertEqual(self.serve.request("/v1/models/nano")[0], 200)
        self.assertEqual(self.serve.request("/v1/models/quux")[0], 404)

    def test_completion(self):
        status, answer = self.serve.post("/v1/completions", {
            "model": "nano", "prompt": self.prompt["ids"], "max_tokens": 16, "temperature": 0,
            "ignore_eos": True, "return_token_ids": True})
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["object"], "text_completion")
        self.assertEqual(answer["choices"][0]["token_ids"], self.prompt["greedy"])
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        details = answer["usage"].pop("prompt_tokens_details")
        self.assertLess(details["cached_tokens"], 37)
        self.assertEqual(answer["usage"], {"prompt_tokens": 37, "completion_tokens": 16,
                                           "total_tokens": 53})

    def test_streamed_completion_equals_the_whole_one(self):
        body = {"prompt": self.prompt["ids"], "max_tokens": 16, "temperature": 0,
                "ignore_eos": True, "return_token_ids": True}
        whole = self.serve.post("/v1/completions", body)[1]["choices"][0]
        status, headers, raw = self.serve.request("/v1/completions", {
            **body, "stream": True, "stream_options": {"include_usage": True}})
        self.assertEqual(status, 200)
        self.assertIn("text/event-stream", {k.lower(): v for k, v in headers.items()}["content-type"])
        parts = events(raw)
        self.assertEqual(parts[-1], "[DONE]")
        chunks = [json.loads(part) for part in parts[:-1]]
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 16)
        choices = [chunk["choices"][0] for chunk in chunks[:-1]]
        self.assertEqual("".join(choice["text"] for choice in choices), whole["text"])
        self.assertEqual([token for choice in choices for token in choice.get("token_ids") or []],
                         whole["token_ids"])
        self.assertEqual([choice["finish_reason"] for choice in choices if choice["finish_reason"]],
                         ["length"])

    def test_chat_streamed_and_not(self):
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "seed": 3,
                "ignore_eos": True}
        status, answer = self.serve.post("/v1/chat/completions", body)
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["object"], "chat.completion")
        message = answer["choices"][0]["message"]
        self.assertEqual(message["role"], "assistant")
        _, _, raw = self.serve.request("/v1/chat/completions", {**body, "stream": True})
        chunks = [json.loads(part) for part in events(raw)[:-1]]
        self.assertEqual(chunks[0]["object"], "chat.completion.chunk")
        self.assertEqual(chunks[0]["choices"][0]["delta"].get("role"), "assistant")
        self.assertEqual("".join(chunk["choices"][0]["delta"].get("content") or ""
                                 for chunk in chunks), message["content"])

    def test_several_prompts_and_continuations(self):
        status, answer = self.serve.post("/v1/completions", {
            "prompt": [[5, 6], [7]], "n": 2, "max_tokens": 4, "seed": 1, "ignore_eos": True})
        self.assertEqual(status, 200, answer)
        self.assertEqual([choice["index"] for choice in answer["choices"]], [0, 1, 2, 3])

    def test_tokenize_and_back(self):
        status, answer = self.serve.post("/tokenize", {"prompt": "hello", "add_special_tokens": False})
        self.assertEqual(status, 200, answer)
        status, back = self.serve.post("/detokenize", {"tokens": answer["tokens"]})
        self.assertEqual((status, back["prompt"]), (200, "hello"))

    def test_probes_and_request_id(self):
        for path in ["/livez", "/readyz", "/version"]:
            status, headers, _ = self.serve.request(path)
            self.assertEqual(status, 200)
        headers = {key.lower(): value for key, value in headers.items()}
        self.assertTrue(headers["x-request-id"])

    def test_metrics_have_help(self):
        text = self.serve.request("/metrics")[2].decode()
        for name in ["essor_requests_running", "essor_requests_waiting", "essor_epoch",
                     "essor_generated_tokens_total"]:
            self.assertIn(f"# HELP {name} ", text)
            self.assertIn(f"# TYPE {name} ", text)
        self.assertGreaterEqual(self.serve.metric("essor_epoch"), 1)

    def test_unknown_paths_and_methods(self):
        self.assertEqual(self.serve.request("/nonsense")[0], 404)
        self.assertEqual(self.serve.request("/v1/completions", method="GET")[0], 405)

    def test_a_body_over_the_limit_is_refused_from_its_header(self):
        host, port = self.serve.http.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
                               b"content-length: 1000000000\r\n\r\n")
            self.assertTrue(connection.recv(4096).startswith(b"HTTP/1.1 413"))

    def test_running_returns_to_0_when_clients_hang_up(self):
        host, port = self.serve.http.rsplit(":", 1)
        body = json.dumps({"prompt": [5], "max_tokens": 120, "ignore_eos": True, "stream": True})
        request = (f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                   f"content-length: {len(body)}\r\n\r\n{body}").encode()
        sockets = []
        for _ in range(16):
            connection = socket.create_connection((host, int(port)), timeout=10)
            connection.sendall(request)
            sockets.append(connection)
        sockets[0].recv(1000)
        for connection in sockets:
            connection.close()
        closed = time.monotonic()
        wait_until(lambda: self.serve.metric("essor_requests_running") == 0 and
                   self.serve.metric("essor_requests_waiting") == 0, 5)
        self.assertLess(time.monotonic() - closed, 1.5)


if __name__ == "__main__":
    unittest.main()
