"""Real weights: the upcycled MoE equals the dense model it was made of, under every plan, and the
perturbed MoE equals its own single-rank fp32 reference.

Uses the demo weights (SmolLM2-135M, fetched by scripts/quickstart) from the cache directory or the
file that ESSOR_DEMO_GGUF names; skipped with a message where there is neither.

Bounds: mean KL per position over 500 tokens of text, at most 1e-4 for the upcycled model (all experts
are copies, so only rounding differs) and at most 1e-3 for the perturbed one, whose routing may turn
at near-ties. A position counts as a near-tie when one of its layers has less than NEAR_TIE between the
second and third largest routing probability (bfloat16 keeps 8 bits, so two probabilities near 1/8
are told apart only down to some 5e-4); an independent forward pass in numpy finds and prints them,
and checks the reference itself.
"""

import json
import os
import pathlib
import struct
import sys
import tempfile
import unittest

from cluster import essor, ids_file

PLANS = ["tp=1", "tp=2", "tp=3", "ep=2", "ep=3", "pp=2", "pp=2,tp=2", "tp=2,ep=2"]
TOKENS = int(os.environ.get("ESSOR_UPCYCLING_TOKENS", "500"))
NEAR_TIE = 5e-4
TEXT = pathlib.Path(__file__).resolve().parents[2] / "docs/architecture.md"

try:
    import numpy
    import numpy_mixtral
except ImportError:
    numpy = None


def demo_weights():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    named = os.environ.get("ESSOR_DEMO_GGUF")
    if named:
        return pathlib.Path(named)
    return next(iter(sorted((cache / "essor").rglob("SmolLM2-135M-Instruct.Q4_1.gguf"))), None)


def logits_of(model, ids, *flags):
    with tempfile.TemporaryDirectory() as directory, ids_file([ids]) as tokens:
        path = pathlib.Path(directory) / "logits.safetensors"
        result = essor("score", "--model", model, "--tokens", tokens, "--logits", path, *flags,
                       timeout=600)
        if result.returncode != 0:
            raise AssertionError(result.stderr)
        data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8:8 + size])["logits.0"]
    begin, end = entry["data_offsets"]
    return numpy.frombuffer(data[8 + size + begin:8 + size + end],
                            "<f4").reshape(entry["shape"]).astype(numpy.float64)


def kl(p, q):
    """Per position, in nats."""
    p = p - p.max(1, keepdims=True)
    q = q - q.max(1, keepdims=True)
    p -= numpy.log(numpy.exp(p).sum(1, keepdims=True))
    q -= numpy.log(numpy.exp(q).sum(1, keepdims=True))
    return (numpy.exp(p) * (p - q)).sum(1)


class UpcyclingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        weights = demo_weights()
        cls.directory = tempfile.TemporaryDirectory()
        root = pathlib.Path(cls.directory.name)
        cls.dense, cls.moe, cls.perturbed = root / "dense", root / "moe", root / "perturbed"
        for target, flags in [(cls.dense, []), (cls.moe, ["--upcycle", "8x2"]),
                              (cls.perturbed, ["--upcycle", "8x2", "--perturb", 7])]:
            result = essor("convert", weights, target, "--to", "bf16", *flags, timeout=600)
            assert result.returncode == 0, result.stderr
        text = TEXT.read_text()
        ids = json.loads(essor("tokenize", "--model", cls.dense, stdin=json.dumps([text])).stdout)
        cls.ids = ids[0][:TOKENS]
        assert len(cls.ids) == TOKENS

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def test_upcycled_equals_dense_under_every_plan(self):
        dense = logits_of(self.dense, self.ids)
        for plan in PLANS:
            mean = kl(dense, logits_of(self.moe, self.ids, "--plan", plan)).mean()
            print(f"upcycled {plan}: mean KL {mean:.2e}", file=sys.stderr)
            self.assertLessEqual(mean, 1e-4, plan)

    def test_perturbed_agrees_with_its_fp32_reference_under_every_plan(self):
        reference = logits_of(self.perturbed, self.ids, "--dtype", "float32")
        oracle, gaps = numpy_mixtral.forward(self.perturbed, self.ids)
        ties = gaps < NEAR_TIE
        print(f"routing near-ties: {int(ties.sum())} of {TOKENS} positions; KL of the reference to "
              f"numpy: mean {kl(oracle.astype(numpy.float64), reference).mean():.2e}",
              file=sys.stderr)
        self.assertLess(kl(oracle.astype(numpy.float64), reference)[~ties].mean(), 1e-6)
        for plan in PLANS:
            per_position = kl(reference, logits_of(self.perturbed, self.ids, "--plan", plan))
            print(f"perturbed {plan}: mean KL {per_position.mean():.2e}, without near-ties "
                  f"{per_position[~ties].mean():.2e}, at near-ties "
                  f"{per_position[ties].mean() if ties.any() else 0:.2e}", file=sys.stderr)
            self.assertLessEqual(per_position.mean(), 1e-3, plan)


if __name__ == "__main__":
    if demo_weights() is None or numpy is None:
        print("skipped: " + ("no demo weights; run scripts/quickstart first"
                             if numpy is not None else "python3-numpy is not installed"),
              file=sys.stderr)
        sys.exit(77)
    unittest.main()
