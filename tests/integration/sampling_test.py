"""What clients ask of sampling and are told of probabilities, with a real model in real processes."""

import json
import unittest

from cluster import NANO, Serve, essor, golden, ids_file

# Greedy, the second prompt's continuation soon repeats one token for ever.
MODEL = "qwen3_moe"
PROMPTS = [prompt["ids"] for prompt in golden(MODEL)["prompts"]]
NEW_TOKENS = 16


def continuation_seed(seed, index):
    """As coordinator/core/seed.h says."""
    if index == 0:
        return seed
    mask = (1 << 64) - 1
    mixed = (seed + index * 0x9e3779b97f4a7c15) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94d049bb133111eb) & mask
    return mixed ^ (mixed >> 31)


class SamplingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.serve = Serve(NANO / MODEL, "--plan", "ep=2", "--served-model-name", "nano")

    @classmethod
    def tearDownClass(cls):
        cls.serve.kill()

    def command(self, name, sequences, *flags):
        """The `sequences` of the JSON that an `essor` command prints."""
        with ids_file(sequences) as ids:
            result = essor(name, "--server", self.serve.grpc, "--tokens", ids, "--json", *flags)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)["sequences"]

    def generate(self, prompts, *flags):
        return self.command("generate", prompts, "--max-new-tokens", NEW_TOKENS, *flags)

    def complete(self, **body):
        status, answer = self.serve.post("/v1/completions", {
            "model": "nano", "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True, **body})
        self.assertEqual(status, 200, answer)
        return answer

    def choice(self, **body):
        return self.complete(**body)["choices"][0]

    def assert_close(self, found, expected):
        self.assertEqual(len(found), len(expected))
        for one, other in zip(found, expected, strict=True):
            self.assertAlmostEqual(one, other, delta=1e-4)

    def test_logprobs_are_those_that_score_gives(self):
        told = self.generate(PROMPTS, "--ignore-eos", "--logprobs", 3, "--prompt-logprobs", 3)
        whole = [prompt + sequence["token_ids"]
                 for prompt, sequence in zip(PROMPTS, told, strict=True)]
        for sequence, score in zip(told, self.command("score", whole, "--top-n", 3), strict=True):
            parts = sequence["prompt_logprobs"] + sequence["logprobs"]
            self.assert_close([part["logprob"] for part in parts], score["logprobs"])
            for part, top in zip(parts, score["tops"], strict=True):
                self.assertEqual(part["top_ids"], top["top_ids"])
                self.assert_close(part["top_logprobs"], top["top_logprobs"])
            # Greedy: the tokens themselves are the most probable ones.
            self.assertEqual([part["top_ids"][0] for part in sequence["logprobs"]],
                             sequence["token_ids"])

    def test_echo_over_http_is_told_the_same(self):
        prompt = PROMPTS[2]
        told = self.generate([prompt], "--ignore-eos", "--logprobs", 0, "--prompt-logprobs", 0)[0]
        choice = self.choice(prompt=prompt, echo=True, logprobs=0)
        self.assertEqual(choice["token_ids"], told["token_ids"])
        first, *rest = choice["logprobs"]["token_logprobs"]
        self.assertIsNone(first)
        self.assert_close(rest, [part["logprob"]
                                 for part in told["prompt_logprobs"] + told["logprobs"]])
        self.assertTrue(choice["text"].endswith(told["text"]))
        self.assertGreater(len(choice["text"]), len(told["text"]))

    def test_frequency_penalty_ends_a_repetition(self):
        repeating = self.choice(prompt=PROMPTS[1])["token_ids"]
        token = max(repeating, key=repeating.count)
        self.assertGreater(repeating.count(token), NEW_TOKENS / 2)
        varied = self.choice(prompt=PROMPTS[1], frequency_penalty=2)["token_ids"]
        self.assertLess(varied.count(token), repeating.count(token))
        # Nothing has been generated before the first token, so nothing is taken from it.
        self.assertEqual(varied[0], repeating[0])

    def test_a_bias_forces_a_token_and_leaves_its_logprob(self):
        choice = self.choice(prompt=PROMPTS[0], logit_bias={"77": 100}, logprobs=0)
        self.assertEqual(choice["token_ids"], [77] * NEW_TOKENS)
        score = self.command("score", [PROMPTS[0] + choice["token_ids"]])[0]["logprobs"]
        self.assert_close(choice["logprobs"]["token_logprobs"], score[-NEW_TOKENS:])
        self.assertLess(min(score[-NEW_TOKENS:]), -0.5)

    def test_min_tokens_holds_ending_tokens_back(self):
        greedy = self.choice(prompt=PROMPTS[1])["token_ids"]
        stop = greedy[0]
        choice = self.choice(prompt=PROMPTS[1], stop_token_ids=[stop])
        self.assertEqual((choice["token_ids"], choice["finish_reason"]), ([stop], "stop"))
        choice = self.choice(prompt=PROMPTS[1], stop_token_ids=[stop], min_tokens=5)
        self.assertGreaterEqual(len(choice["token_ids"]), 5)
        self.assertNotIn(stop, choice["token_ids"][:5])

    def test_continuations_are_runs_with_seeds_of_their_own(self):
        flags = ["--temperature", 1, "--ignore-eos", "--logprobs", 0]
        together = self.generate([PROMPTS[0]], *flags, "--seed", 11, "--n", 3)
        alone = [self.generate([PROMPTS[0]], *flags, "--seed", continuation_seed(11, index))[0]
                 for index in range(3)]
        self.assertEqual(together, alone)
        self.assertNotEqual(together[0]["token_ids"], together[1]["token_ids"])

        def mean(sequence):
            return sum(part["logprob"] for part in sequence["logprobs"]) / NEW_TOKENS

        best = self.generate([PROMPTS[0]], *flags, "--seed", 11, "--n", 2, "--best-of", 3)
        self.assertEqual(best, sorted(alone, key=mean, reverse=True)[:2])

    def only_plain_text(self):
        """A logit_bias that leaves the tokens that are printable ASCII."""
        vocab_size = json.loads((NANO / MODEL / "config.json").read_text())["vocab_size"]
        result = essor("detokenize", "--model", NANO / MODEL, "--skip-special",
                       stdin=json.dumps([[token] for token in range(vocab_size)]))
        self.assertEqual(result.returncode, 0, result.stderr)
        return {str(token): -100 for token, text in enumerate(json.loads(result.stdout))
                if not (text and text.isascii() and text.isprintable())}

    def test_stop_strings_across_tokens(self):
        body = dict(prompt="hello", temperature=1, seed=5, logprobs=1,
                    logit_bias=self.only_plain_text())
        full = self.choice(**body)
        tokens = full["logprobs"]["tokens"]
        self.assertEqual("".join(tokens), full["text"])
        # The end of one token and the beginning of the next.
        stop = tokens[7][-1] + tokens[8][0]
        end = full["text"].find(stop) + len(stop)
        num_tokens = next(count for count in range(len(tokens))
                          if len("".join(tokens[:count])) >= end)
        self.assertEqual(len("".join(tokens[:num_tokens - 1])), end - 1)  # in the middle of it
        choice = self.choice(**body, stop=stop)
        self.assertEqual(choice["finish_reason"], "stop")
        self.assertEqual(choice["text"], full["text"][:end - len(stop)])
        self.assertEqual(choice["token_ids"], full["token_ids"][:num_tokens])
        for key, values in choice["logprobs"].items():
            self.assertEqual(values, full["logprobs"][key][:num_tokens], key)

    def test_cached_prompts_are_counted_and_change_nothing(self):
        body = dict(prompt=[7 + i % 50 for i in range(70)], logprobs=2, cache_salt="of-this-test")
        first, second = self.complete(**body), self.complete(**body)
        cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"]
                  for answer in [first, second]]
        self.assertEqual(cached[0], 0)
        self.assertGreater(cached[1], 0)
        self.assertEqual(second["choices"], first["choices"])


class SchedulingFlagsTest(unittest.TestCase):
    def test_serve_gives_them_to_the_coordinator(self):
        flags = ["--prefix-cache", "off", "--reserve-new-tokens", 8, "--target-step-ms", 50,
                 "--tenant-weight", "blue=2", "--tenant-weight", "green=0.5"]
        with Serve(NANO / "llama", *flags) as serve:
            body = {"prompt": [7] * 70, "max_tokens": 2}
            for _ in range(2):
                status, answer = serve.post("/v1/completions", body)
                self.assertEqual(status, 200, answer)
                details = answer["usage"]["prompt_tokens_details"]
                self.assertEqual(details["cached_tokens"], 0)


if __name__ == "__main__":
    unittest.main()
