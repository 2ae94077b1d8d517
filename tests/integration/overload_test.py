"""Ten times the load that a cluster can serve, and more contexts than its KV memory holds."""

import asyncio
import collections
import concurrent.futures
import json
import math
import os
import random
import re
import tempfile
import time
import unittest

import grpc

from cluster import Serve, essor, resident_bytes, wait_until, with_context

SECONDS = float(os.environ.get("ESSOR_OVERLOAD_SECONDS", 8))
OVERLOAD = 10
RUNNING, QUEUED = 6, 12
TENANTS = ["", "ada", "grace"]
VOCABULARY = 288
# Of prompts, in tokens: they are what takes the cluster's time, so that it is the cluster and not
# our client that has ten times too much to do.
CONTEXT, LONG, SHORT = 8192, (4000, 7500), (200, 1500)
# How much more a process may hold at the end than after the first fifth. Freed memory is not given
# back at once, so that what an allocator holds goes up and down by some MB.
GROWTH_MAX = int(os.environ.get("ESSOR_OVERLOAD_GROWTH_MB", 8)) << 20
# The rate is measured on a machine that other tests and our own client share.
SLACK = 2

OK, REFUSED, CANCELLED, EXPIRED = (
    grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED)
# What a client does, and how often among a hundred.
KINDS = {"plain": 48, "known": 8, "prefix": 8, "several": 4, "urgent": 3, "patient": 3,
         "cancel": 8, "deadline": 4, "unread": 3, "http": 6, "http_stream": 4, "http_hangup": 1}
# How else than with OK or a refusal may a request of the kind end?
OTHER_ENDS = {"cancel": {CANCELLED}, "unread": {CANCELLED}, "http_hangup": {CANCELLED},
              "deadline": {EXPIRED}, "patient": {EXPIRED}}

Outcome = collections.namedtuple("Outcome", "kind code retry_s total_s tokens")


def retry_delay(trailing_metadata):
    """Seconds of the google.rpc.RetryInfo that came with a status, or None."""
    from google.rpc import error_details_pb2, status_pb2
    for key, value in trailing_metadata:
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                return info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return None


def percentile(values, share):
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else math.nan


class Clients:
    """Sends requests of all kinds. The same seed makes the same requests."""

    def __init__(self, serve, channel, seed, patience_s):
        from essor.v1 import inference_pb2, inference_pb2_grpc
        self.serve, self.pb2 = serve, inference_pb2
        self.stub = inference_pb2_grpc.InferenceStub(channel)
        self.random = random.Random(seed)
        self.patience_s = patience_s  # what "patient" requests are given, in seconds
        self.known = {}               # expected tokens of "known" requests by their seed
        self.text = self.random.choices(range(3, VOCABULARY), k=1 << 18)  # prompts are parts of it
        self.prefix = self.ids(LONG)

    def ids(self, lengths):
        begin = self.random.randrange(len(self.text) - CONTEXT)
        return self.text[begin:begin + self.random.randint(*lengths)]

    def make(self, kind):
        """A request and the seconds after which its client does what it does."""
        prompt = self.ids(LONG if self.random.random() < 0.25 else SHORT)
        sampling = dict(max_new_tokens=self.random.randint(4, 32), ignore_eos=True,
                        temperature=self.random.choice([0.0, 0.8]), seed=self.random.getrandbits(32))
        if kind == "prefix":
            prompt = self.prefix + prompt[:100]
        if kind == "several":
            sampling["n"] = 3
        if kind == "known":
            prompt, sampling = self.known_request(self.random.choice(sorted(self.known)))
        request = self.pb2.GenerateRequest(
            tokens={"ids": prompt}, sampling=sampling, tenant=self.random.choice(TENANTS),
            priority={"urgent": 5, "patient": -5}.get(kind, 0))
        return request, self.random.uniform(0.0, 0.3)

    @staticmethod
    def known_request(seed):
        drawn = random.Random(seed)
        prompt = [drawn.randrange(3, VOCABULARY) for _ in range(40 * seed)]
        return prompt, dict(max_new_tokens=16, ignore_eos=True, temperature=0.7, seed=seed)

    async def tokens_alone(self):
        """The tokens of each of the known requests, by seed, from an idle cluster."""
        tokens = {}
        for seed in range(1, 9):
            prompt, sampling = self.known_request(seed)
            outcome = await self.over_grpc("alone", self.pb2.GenerateRequest(
                tokens={"ids": prompt}, sampling=sampling))
            assert outcome.code == OK, outcome
            tokens[seed] = outcome.tokens
        return tokens

    async def send(self, kind):
        """Sends a request of a kind and waits for its end."""
        request, moment = self.make(kind)
        if kind.startswith("http"):
            return await self.over_http(kind, request, moment)
        if kind in ("cancel", "unread"):
            return await self.given_up(kind, request, moment)
        timeout = {"deadline": moment, "patient": self.patience_s}.get(kind)
        return await self.over_grpc(kind, request, timeout)

    async def over_grpc(self, kind, request, timeout=None):
        tokens = collections.defaultdict(list)
        total_us = 0
        try:
            async for part in self.stub.Generate(request, timeout=timeout):
                tokens[part.index].extend(part.token_ids)
                total_us = max(total_us, part.timing.total_us)
        except grpc.aio.AioRpcError as error:
            return Outcome(kind, error.code(), retry_delay(error.trailing_metadata()), None, None)
        if kind == "known":
            assert dict(tokens) == self.known[request.sampling.seed], request
        return Outcome(kind, OK, None, total_us / 1e6, dict(tokens))

    async def given_up(self, kind, request, moment):
        """A call that is cancelled after a while, having been read or not."""
        call = self.stub.Generate(request)

        async def read():
            async for _ in call:
                pass

        reader = asyncio.create_task(read()) if kind == "cancel" else None
        await asyncio.sleep(moment)
        call.cancel()
        if reader is not None:
            await asyncio.gather(reader, return_exceptions=True)
        return Outcome(kind, await call.code(), retry_delay(await call.trailing_metadata()), None,
                       None)

    async def over_http(self, kind, request, moment):
        host, port = self.serve.http.rsplit(":", 1)
        sampling = request.sampling
        body = json.dumps({
            "prompt": list(request.tokens.ids), "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature, "seed": sampling.seed, "ignore_eos": True,
            "stream": kind == "http_stream"}).encode()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                     b"content-type: application/json\r\nx-essor-tenant: %s\r\n"
                     b"content-length: %d\r\n\r\n" % (request.tenant.encode(), len(body)) + body)
        try:
            if kind == "http_hangup":
                await asyncio.sleep(moment)
                return Outcome(kind, CANCELLED, None, None, None)
            answer = (await reader.read()).decode()
        finally:
            writer.close()
        head = answer.partition("\r\n\r\n")[0].lower()
        if head.startswith("http/1.1 429"):
            delay = re.search(r"\nretry-after: (\d+)\r?(\n|$)", head)
            return Outcome(kind, REFUSED, int(delay[1]) if delay else None, None, None)
        whole = head.startswith("http/1.1 200") and (
            '"finish_reason":"length"' in answer and ("[DONE]" in answer) == (kind == "http_stream"))
        assert whole, answer[-1000:]
        return Outcome(kind, OK, None, None, None)

    async def closed_loop(self, num_clients, seconds):
        """What the cluster serves, in requests a second, when it is always busy and never too busy."""
        num_served = 0
        began = time.monotonic()

        async def client():
            nonlocal num_served
            while time.monotonic() < began + seconds:
                outcome = await self.send("plain")
                assert outcome.code == OK, outcome
                num_served += 1

        await asyncio.gather(*(client() for _ in range(num_clients)))
        return num_served / (time.monotonic() - began)

    async def open_loop(self, rate, seconds):
        """`rate` requests a second, whatever becomes of them; (outcomes, seconds until the last)."""
        tasks = []
        kinds, weights = list(KINDS), list(KINDS.values())
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            wait = began + number / rate - time.monotonic()
            await asyncio.sleep(max(wait, 0))
            kind = self.random.choices(kinds, weights)[0]
            tasks.append(asyncio.create_task(self.send(kind)))
        sent_s = time.monotonic() - began
        # Nothing is stuck: whatever is still on its way ends within the time of a full queue.
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks), 120)
        return outcomes, sent_s


class Memory:
    """Watches what processes hold while a coroutine runs."""

    def __init__(self, pids):
        self.samples = {pid: [] for pid in pids}

    async def watch(self, seconds):
        began = time.monotonic()
        while True:
            for pid, samples in self.samples.items():
                samples.append((time.monotonic() - began, resident_bytes(pid)))
            await asyncio.sleep(seconds / 50)

    def growth(self, seconds):
        """{pid: (bytes after the first fifth, bytes at the end)}, medians of a tenth of the time."""
        def median(samples, begin, end):
            return percentile([held for at, held in samples if begin <= at / seconds < end], 0.5)
        return {pid: (median(samples, 0.2, 0.3), median(samples, 0.9, 1.0))
                for pid, samples in self.samples.items()}


class OverloadTest(unittest.TestCase):
    def test_ten_times_the_load(self):
        with tempfile.TemporaryDirectory() as directory, Serve(
                with_context(directory, "mixtral", CONTEXT), "--plan", "tp=2",
                "--max-running-requests", RUNNING, "--max-queued-requests", QUEUED,
                "--device-memory", "36MB") as serve:
            asyncio.run(self.storm(serve))
            self.assertEqual(serve.stop(), 0)

    async def storm(self, serve):
        pids = serve.children("coordinat") + serve.children("worker")
        self.assertEqual(len(pids), 3)
        async with grpc.aio.insecure_channel(serve.grpc) as channel:
            clients = Clients(serve, channel, seed=1, patience_s=2)
            clients.known = await clients.tokens_alone()
            rate = await clients.closed_loop(RUNNING + QUEUED, max(SECONDS / 4, 2))
            memory = Memory(pids)
            watch = asyncio.create_task(memory.watch(SECONDS))
            outcomes, sent_s = await clients.open_loop(OVERLOAD * rate, SECONDS)
            watch.cancel()
            await asyncio.to_thread(wait_until, serve.idle)
            self.assertEqual(await clients.tokens_alone(), clients.known)
        self.report(rate, outcomes, sent_s, memory)
        self.check_ends(rate, outcomes)
        self.check_latency(rate, outcomes, sent_s)
        for pid, (early, late) in memory.growth(SECONDS).items():
            self.assertLess(late - early, GROWTH_MAX, f"process {pid} grew from {early} to {late}")

    def check_ends(self, rate, outcomes):
        self.assertEqual(len(outcomes), int(OVERLOAD * rate * SECONDS))  # nothing is lost
        for outcome in outcomes:
            self.assertIn(outcome.code, {OK, REFUSED} | OTHER_ENDS.get(outcome.kind, set()), outcome)
            if outcome.code == REFUSED:
                self.assertIsNotNone(outcome.retry_s, outcome)
                self.assertTrue(1 <= outcome.retry_s <= 30, outcome)
        ends = collections.Counter((outcome.kind, outcome.code) for outcome in outcomes)
        self.assertGreater(sum(ends[kind, REFUSED] for kind in KINDS), len(outcomes) / 2)
        self.assertTrue(all(ends[kind, REFUSED] for kind in ("plain", "http", "several")), ends)
        self.assertGreater(ends["plain", OK], 0)

    def check_latency(self, rate, outcomes, sent_s):
        """An admitted request waits for at most QUEUED + RUNNING others of its tenant, and while one
        of those is served, fairness serves one of each other tenant: as many requests in all as
        bound_s counts, at the rate at which requests are served. That is at least a third of the
        rate without overload: turning the others away takes time too, on the same cores."""
        served = [outcome for outcome in outcomes if outcome.code == OK]
        storm_rate = len(served) / sent_s
        self.assertGreater(storm_rate, rate / 3)
        bound_s = SLACK * len(TENANTS) * (QUEUED + RUNNING + 1) / min(rate, storm_rate)
        totals = [outcome.total_s for outcome in served
                  if outcome.total_s is not None and outcome.kind != "patient"]
        self.assertLess(max(totals), bound_s)

    def report(self, rate, outcomes, sent_s, memory):
        ends = collections.Counter(outcome.code.name for outcome in outcomes)
        totals = [outcome.total_s for outcome in outcomes if outcome.total_s is not None]
        delays = [outcome.retry_s for outcome in outcomes if outcome.retry_s is not None]
        print(f"\nalone {rate:.1f} requests/s; offered {len(outcomes) / sent_s:.0f}/s for "
              f"{sent_s:.1f} s, served {ends['OK'] / sent_s:.1f}/s: {dict(ends)}; "
              f"latency p50 {percentile(totals, 0.5):.3f} s, p99 {percentile(totals, 0.99):.3f} s, "
              f"max {max(totals):.3f} s; retry delays {min(delays)} to {max(delays)} s; memory "
              + ", ".join(f"{early / 1e6:.1f} to {late / 1e6:.1f} MB"
                          for early, late in memory.growth(SECONDS).values()))


class ShortMemoryTest(unittest.TestCase):
    """Requests that can begin together and cannot go on together."""

    NUM_REQUESTS, NEW_TOKENS, CONTEXT = 12, 400, 1024
    # As many sequences as slots: essor-coordinator has 16 at least.
    LIMITS = ["--max-running-requests", 16, "--max-step-tokens", 256]

    def memory_for(self, model, plan, share):
        """Bytes of a device that has room for `share` of the KV memory that all slots could use."""
        result = essor("plan", "--model", model, "--devices", 2, "--device-memory", "1GB", "--plan",
                       plan, "--kv-dtype", "float32", "--json", *self.LIMITS)
        self.assertEqual(result.returncode, 0, result.stderr)
        ranks = json.loads(result.stdout)["ranks"]
        return int(max(rank["total_bytes"] - (1 - share) * rank["kv_bytes"] for rank in ranks))

    def request(self, index):
        from essor.v1 import inference_pb2
        drawn = random.Random(index)
        sampling = dict(max_new_tokens=self.NEW_TOKENS, ignore_eos=True, seed=index,
                        temperature=index % 3 * 0.5, n=1 + index % 4 // 3)
        if index % 5 == 4:
            sampling.update(frequency_penalty=0.5, repetition_penalty=1.2, top_k=40)
        ids = [drawn.randrange(3, VOCABULARY) for _ in range(50 + 25 * index)]
        return inference_pb2.GenerateRequest(tokens={"ids": ids}, sampling=sampling,
                                             priority=index % 2)

    def check(self, name, plan, share):
        from essor.v1 import inference_pb2_grpc
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        model = with_context(directory.name, name, self.CONTEXT)
        # Blocks are promised for few new tokens, so that more begins than can end.
        with Serve(model, "--plan", plan, "--device-memory", self.memory_for(model, plan, share),
                   *self.LIMITS, env={"ESSOR_RESERVE_NEW_TOKENS": "16"}) as serve, \
                serve.channel() as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)

            def tokens(index):
                found = collections.defaultdict(list)
                for part in stub.Generate(self.request(index), timeout=60):
                    found[part.index].extend(part.token_ids)
                return dict(found)

            alone = [tokens(index) for index in range(self.NUM_REQUESTS)]
            self.assertEqual(serve.metric("essor_preemptions_total"), 0)
            with concurrent.futures.ThreadPoolExecutor(self.NUM_REQUESTS) as pool:
                together = list(pool.map(tokens, range(self.NUM_REQUESTS)))
            self.assertGreater(serve.metric("essor_preemptions_total"), 0)
            self.assertEqual(together, alone)
            for answer in together:
                self.assertTrue(all(len(ids) == self.NEW_TOKENS for ids in answer.values()))
            wait_until(serve.idle)
            self.assertEqual(serve.stop(), 0)

    def test_blocks_of_all_positions(self):
        self.check("mixtral", "tp=2", 0.2)

    def test_window_blocks(self):
        self.check("gpt_oss", "pp=2", 0.2)

    def test_states_of_linear_attention(self):
        self.check("qwen3_next", "dp=2,ep=2", 0.1)


if __name__ == "__main__":
    unittest.main()
