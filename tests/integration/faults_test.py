"""Workers and coordinators that die or stop while requests run."""

import os
import pathlib
import signal
import threading
import time
import unittest

import grpc

from cluster import NANO, Serve, wait_until

LONG = {"max_new_tokens": 100, "ignore_eos": True, "temperature": 0.0}


def essor_shared_memory():
    """Names in /dev/shm and socket files in /tmp that could be ours."""
    return {str(path) for folder in ("/dev/shm", "/tmp") for path in pathlib.Path(folder).glob("*")
            if "essor" in path.name and not path.name.startswith("essor-ports") and
            (path.is_socket() or folder == "/dev/shm")}


class Stream(threading.Thread):
    """A Generate call in the background: its tokens, its status and when it ended."""

    def __init__(self, channel, sampling):
        super().__init__(daemon=True)
        from essor.v1 import inference_pb2, inference_pb2_grpc
        self.request = inference_pb2.GenerateRequest(tokens={"ids": [5, 6, 7]}, sampling=sampling)
        self.stub = inference_pb2_grpc.InferenceStub(channel)
        self.tokens, self.code, self.finished, self.ended = [], None, False, None
        self.start()

    def run(self):
        try:
            for part in self.stub.Generate(self.request, timeout=60):
                self.tokens.extend(part.token_ids)
                self.finished |= part.finish_reason != 0
            self.code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            self.code = error.code()
        self.ended = time.monotonic()


class FaultTest(unittest.TestCase):
    def setUp(self):
        self.before = essor_shared_memory()
        self.serve = Serve(NANO / "mixtral", "--plan", "tp=2")
        self.addCleanup(self.serve.kill)
        self.channel = self.serve.channel()
        self.addCleanup(self.channel.close)

    def epoch(self):
        return self.serve.metric("essor_epoch")

    def ready(self):
        return self.serve.request("/readyz")[0] == 200

    def serves(self):
        stream = Stream(self.channel, {**LONG, "max_new_tokens": 5})
        stream.join(30)
        return stream.code == grpc.StatusCode.OK and len(stream.tokens) == 5

    def streams_under_way(self):
        """Endless streams (each is restarted when it ends) until the returned list is stopped."""
        streams = [Stream(self.channel, LONG) for _ in range(8)]
        wait_until(lambda: any(stream.tokens for stream in streams))
        return streams

    def lose_a_worker(self, number):
        epoch = self.epoch()
        workers = self.serve.children("worker")
        # New ones are added until the signal, so that some are in flight when it comes.
        streams = self.streams_under_way()
        os.kill(workers[0], number)
        lost = time.monotonic()
        streams += [Stream(self.channel, LONG) for _ in range(2)]
        for stream in streams:
            stream.join(15)
        cut = [stream for stream in streams if stream.code != grpc.StatusCode.OK]
        for stream in cut:
            self.assertEqual(stream.code, grpc.StatusCode.UNAVAILABLE)
            self.assertFalse(stream.finished, "a cut stream must not look whole")
        wait_until(lambda: self.epoch() > epoch and self.ready(), 30)
        self.assertTrue(self.serves())
        after = self.serve.children("worker")
        self.assertEqual(len(after), 2)
        self.assertIn(workers[1], after, "the surviving worker was restarted")
        self.assertNotIn(workers[0], after)
        self.assertEqual(essor_shared_memory(), self.before)
        return cut, lost

    def test_a_killed_worker_ends_requests_with_unavailable_and_is_replaced(self):
        cut, lost = self.lose_a_worker(signal.SIGKILL)
        for stream in cut:
            self.assertLess(stream.ended - lost, 2.0)
        self.assertEqual(self.serve.logged().count("weights loaded"), 3)  # two, then the new one

    def test_a_stopped_worker_is_killed_and_replaced(self):
        self.lose_a_worker(signal.SIGSTOP)

    def test_workers_keep_their_weights_when_the_coordinator_dies(self):
        workers = self.serve.children("worker")
        [coordinator] = self.serve.children("coordinat")
        os.kill(coordinator, signal.SIGKILL)
        wait_until(lambda: self.serve.children("coordinat") not in ([], [coordinator]), 20)

        def back():
            try:
                return self.ready()
            except OSError:
                return False

        wait_until(back, 30)
        self.assertTrue(self.serves())
        self.assertEqual(self.serve.children("worker"), workers)
        self.assertEqual(self.serve.logged().count("weights loaded"), 2)

    def test_readyz_turns_503_within_2_s_of_a_stuck_step(self):
        for worker in self.serve.children("worker"):
            os.kill(worker, signal.SIGSTOP)
        stream = Stream(self.channel, LONG)
        stopped = time.monotonic()
        wait_until(lambda: not self.ready(), 5)
        self.assertLess(time.monotonic() - stopped, 2.5)
        stream.join(20)
        self.assertEqual(stream.code, grpc.StatusCode.UNAVAILABLE)

    def test_no_process_survives_a_killed_serve(self):
        children = self.serve.children("")
        self.assertEqual(len(children), 3)
        self.serve.signal(signal.SIGKILL)
        self.serve.process.wait(10)
        wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in children), 10)


if __name__ == "__main__":
    unittest.main()
