#!/usr/bin/env python3
"""Decoding through the whole cluster: real processes, one client, batch 1.

    serving_benchmark.py --bin build/release/bin --model DIR_OR_GGUF [--rounds 5]

Starts three clusters side by side (one worker with two threads; two workers with one thread each under
tp=2 and under ep=2), of which only one works at a time, and measures them in turn, so that the ratios
hold although the machine's speed drifts. Prints, with median, minimum and maximum over the rounds:

  overhead         (client's time per token - longest worker's computing time) / computing time
  two_workers_*    tokens/s of two workers with one thread each / one worker with two threads
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
TOKENS = 96


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    build = pathlib.Path(options.bin).resolve().parent
    os.environ.update(ESSOR_BIN=str(build / "bin"), ESSOR_PROTO_PYTHON=str(build / "proto_python"))
    import cluster
    from essor.v1 import inference_pb2, inference_pb2_grpc

    def request(tokens):
        return inference_pb2.GenerateRequest(
            text="Once upon a time", sampling=dict(max_new_tokens=tokens, ignore_eos=True,
                                                   temperature=0.0))

    def decode(serve):
        """(seconds per token at the client, computing seconds per step)."""
        with serve.channel() as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)
            list(stub.Generate(request(4), timeout=120))
            before = [serve.metric(f"essor_step_compute_seconds_{part}") for part in ("sum", "count")]
            first = last = 0.0
            for part in stub.Generate(request(TOKENS), timeout=120):
                last = time.monotonic()
                first = first or last
            after = [serve.metric(f"essor_step_compute_seconds_{part}") for part in ("sum", "count")]
        return (last - first) / (TOKENS - 1), (after[0] - before[0]) / (after[1] - before[1])

    flags = {"one": ["--workers", 1, "--threads", 2],
             "tp": ["--plan", "tp=2", "--threads", 1], "ep": ["--plan", "ep=2", "--threads", 1]}
    serves = {}
    try:
        for name, arguments in flags.items():
            serves[name] = cluster.Serve(options.model, "--max-context", 1024, *arguments)
        results = {"overhead": [], "two_workers_tp2": [], "two_workers_ep2": [], "tokens_per_s": []}
        for _ in range(options.rounds):
            one, computing = decode(serves["one"])
            tp, _ = decode(serves["tp"])
            ep, _ = decode(serves["ep"])
            results["overhead"].append((one - computing) / computing)
            results["two_workers_tp2"].append(one / tp)
            results["two_workers_ep2"].append(one / ep)
            results["tokens_per_s"].append(1 / one)
        for name, values in results.items():
            print(f"{name:18s} median {statistics.median(values):.3f} "
                  f"min {min(values):.3f} max {max(values):.3f}")
    finally:
        for serve in serves.values():
            serve.kill()


if __name__ == "__main__":
    main()
