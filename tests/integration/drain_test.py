"""SIGTERM: what runs finishes, nothing new starts, and everybody leaves with 0."""

import json
import signal
import socket
import threading
import time
import unittest

import grpc

from cluster import NANO, Serve, wait_until

# Long enough to be under way when the signal comes, on any machine.
BODY = {"prompt": [5, 6, 7], "max_tokens": 100, "ignore_eos": True, "stream": True}


class SlowReader:
    """A streaming completion over a raw socket that is read only when asked to."""

    def __init__(self, address, body=BODY):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        data = json.dumps(body).encode()
        self.socket.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
                            b"content-type: application/json\r\nconnection: close\r\n"
                            b"content-length: %d\r\n\r\n%s" % (len(data), data))

    def read_first_event(self):
        data = b""
        while b"data:" not in data:
            part = self.socket.recv(65536)
            assert part, data
            data += part

    def read_all(self):
        data = b""
        while part := self.socket.recv(65536):
            data += part
        self.socket.close()
        return data.decode()


class DrainTest(unittest.TestCase):
    def test_streams_finish_and_new_requests_are_refused(self):
        with Serve(NANO / "mixtral", "--plan", "tp=2") as serve:
            children = serve.children("")
            readers = [SlowReader(serve.http) for _ in range(24)]
            readers[0].read_first_event()
            signalled = time.monotonic()
            serve.signal(signal.SIGTERM)
            refused = []

            def probe():
                while time.monotonic() < signalled + 30:
                    try:
                        status, headers, _ = serve.request("/readyz", timeout=5)
                        if status == 503:
                            refused.append(time.monotonic() - signalled)
                            break
                    except OSError:
                        break
                    time.sleep(0.01)

            thread = threading.Thread(target=probe)
            thread.start()
            texts = [reader.read_all() for reader in readers]
            thread.join()
            for text in texts[1:]:
                if text.startswith("HTTP/1.1 200"):
                    self.assertIn("[DONE]", text)
                    self.assertIn('"finish_reason":"length"', text)
                else:
                    self.assertTrue(text.startswith("HTTP/1.1 503"), text[:200])
                    self.assertIn("retry-after", text.lower())
            self.assertEqual(serve.process.wait(30), 0)
            if refused:
                self.assertLess(refused[0], 1.0)
            self.assertEqual(serve.children(""), [])
            import pathlib
            self.assertFalse([pid for pid in children if pathlib.Path(f"/proc/{pid}").exists()])

    def test_a_second_signal_ends_streams_with_an_error(self):
        with Serve(NANO / "mixtral", "--plan", "tp=2") as serve:
            readers = [SlowReader(serve.http) for _ in range(24)]
            readers[0].read_first_event()
            serve.signal(signal.SIGTERM)
            time.sleep(0.05)
            serve.signal(signal.SIGTERM)
            signalled = time.monotonic()
            for reader in readers[1:]:
                text = reader.read_all()
                if '"error"' in text:
                    self.assertNotIn("[DONE]", text)
            self.assertEqual(serve.process.wait(10), 0)
            self.assertLess(time.monotonic() - signalled, 10)

    def test_health_turns_not_serving(self):
        with Serve(NANO / "llama") as serve, serve.channel() as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            wait_until(lambda: check(b"", timeout=10) == b"\x08\x01", 2)  # SERVING
            service = b"\x0a\x18essor.v1.Inference"
            self.assertEqual(check(service[:1] + bytes([len(service) - 2]) + service[2:],
                                   timeout=10), b"\x08\x01")
            readers = [SlowReader(serve.http) for _ in range(24)]
            readers[0].read_first_event()
            serve.signal(signal.SIGTERM)

            def not_serving():
                try:
                    return check(b"", timeout=10) == b"\x08\x02"
                except grpc.RpcError:
                    return True  # the drain was over before we looked

            wait_until(not_serving, 5)
            for reader in readers:
                reader.read_all()
            self.assertEqual(serve.process.wait(30), 0)


if __name__ == "__main__":
    unittest.main()
