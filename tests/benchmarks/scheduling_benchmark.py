#!/usr/bin/env python3
"""What the scheduler gives to clients: real processes, many streams.

    scheduling_benchmark.py --bin build/release/bin --model DIR_OR_GGUF [--rounds 3] [--only NAME ...]

  overhead   (time of a step - longest worker's computing time) / computing time, at batch 1 and 32
  streams    tokens/s of 32 streams that decode / of one
  prefix     time to first token of a prompt of 4,000 tokens, new / again
  gaps       16 streams while prompts keep arriving: largest gap between two tokens / median gap

Each measure is taken in every round; prints median, minimum and maximum over the rounds. The clients share
the machine with the cluster.
"""

import argparse
import asyncio
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

SECONDS = 3  # of decoding that are measured


class Bench:
    def __init__(self, serve, pb, stub_class, aio, cluster):
        self.serve, self.pb, self.aio, self.cluster = serve, pb, aio, cluster
        self.stub_class = stub_class
        self.random = random.Random(1)

    def request(self, prompt, tokens):
        return self.pb.GenerateRequest(
            tokens=dict(ids=prompt),
            sampling=dict(max_new_tokens=tokens, ignore_eos=True, temperature=0.0))

    def prompt(self, length):
        return [self.random.randrange(1000, 40000) for _ in range(length)]

    async def stream(self, stub, request):
        """Times at which tokens came."""
        times = []
        async for part in stub.Generate(request, timeout=600):
            times += [time.monotonic()] * len(part.token_ids)
        return times

    def run(self, coroutine):
        async def inside():
            async with self.aio.insecure_channel(self.serve.grpc) as channel:
                return await coroutine(self.stub_class(channel))
        return asyncio.run(inside())

    def decoding(self, batch):
        """While `batch` streams decode: tokens/s, and the overhead of a step. The client is `essor
        generate`: one in Python would take more of the machine than the coordinator does."""
        metric = self.serve.metric

        def counters():
            return (time.monotonic(), metric("essor_generated_tokens_total"),
                    metric("essor_step_compute_seconds_sum"),
                    metric("essor_step_compute_seconds_count"))

        tokens_before = metric("essor_generated_tokens_total")
        with self.cluster.ids_file([self.prompt(16) for _ in range(batch)]) as path:
            client = subprocess.Popen(
                [str(self.cluster.BIN / "essor"), "generate", "--server", self.serve.grpc,
                 "--tokens", path, "--max-new-tokens", str(SECONDS * 400), "--temperature", "0",
                 "--ignore-eos", "--json"], stdout=subprocess.DEVNULL)
            try:
                self.cluster.wait_until(
                    lambda: metric("essor_requests_running") == batch and
                    metric("essor_generated_tokens_total") > tokens_before + 8 * batch)
                first = counters()
                time.sleep(SECONDS)
                last = counters()
                assert metric("essor_requests_running") == batch, "too few tokens to decode"
            finally:
                client.kill()
                client.wait()
        self.cluster.wait_until(lambda: metric("essor_requests_running") == 0)
        seconds, tokens, computing, steps = (b - a for a, b in zip(first, last))
        return tokens / seconds, (seconds - computing) / computing

    def prefix(self):
        async def go(stub):
            prompt = self.prompt(4000)
            waits = []
            for _ in range(2):
                start = time.monotonic()
                waits.append((await self.stream(stub, self.request(prompt, 1)))[0] - start)
            return waits[0] / waits[1]
        return self.run(go)

    def gaps(self):
        """Each client sends a prompt of some 100 tokens as soon as it has its 64 tokens."""
        async def client(stub, until, gaps):
            while time.monotonic() < until:
                length = self.random.randrange(50, 150)
                times = await self.stream(stub, self.request(self.prompt(length), 64))
                gaps += [b - a for a, b in zip(times, times[1:])]

        async def go(stub):
            gaps = []
            until = time.monotonic() + 20
            await asyncio.gather(*[client(stub, until, gaps) for _ in range(16)])
            return gaps
        gaps = [gap for gap in self.run(go) if gap > 0]
        return max(gaps) / statistics.median(gaps), statistics.median(gaps), max(gaps)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["streams", "prefix", "gaps"])
    parser.add_argument("--flags", default="--workers 1 --threads 2", help="of essor serve")
    options = parser.parse_args()
    build = pathlib.Path(options.bin).resolve().parent
    os.environ.update(ESSOR_BIN=str(build / "bin"), ESSOR_PROTO_PYTHON=str(build / "proto_python"))
    import cluster
    from essor.v1 import inference_pb2, inference_pb2_grpc
    import grpc

    results = {}
    with cluster.Serve(options.model, *options.flags.split()) as serve:
        bench = Bench(serve, inference_pb2, inference_pb2_grpc.InferenceStub, grpc.aio, cluster)
        for _ in range(options.rounds):
            def add(name, value):
                results.setdefault(name, []).append(value)
            if "streams" in options.only:
                one, overhead = bench.decoding(1)
                add("overhead_batch1", overhead)
                many, overhead = bench.decoding(32)
                add("overhead_batch32", overhead)
                add("streams_1_tokens_per_s", one)
                add("streams_32_tokens_per_s", many)
                add("streams_32_of_1", many / one)
            if "prefix" in options.only:
                add("prefix_speedup", bench.prefix())
            if "gaps" in options.only:
                ratio, median, largest = bench.gaps()
                add("gap_max_of_median", ratio)
                add("gap_median_ms", 1e3 * median)
                add("gap_max_ms", 1e3 * largest)
    for name, values in results.items():
        print(f"{name:24s} median {statistics.median(values):.3f} "
              f"min {min(values):.3f} max {max(values):.3f}")


if __name__ == "__main__":
    main()
