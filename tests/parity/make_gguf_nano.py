"""Writes nano checkpoints of tests/data/nano as GGUF, with llama.cpp's own converter.

    make_gguf_nano.py OUT --llama-cpp DIR [--only NAME]

DIR is a source tree of llama.cpp (its folders `conversion` and `gguf-py`); the committed files are from the tree inside
the PyPI source distribution llama_cpp_python 0.3.36. The converter knows tokenizers by a hash of what they answer, so it
is told what ours is: byte-level BPE behind GPT-2's pattern.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys
import tempfile

import numpy

NANO = pathlib.Path(__file__).parent.parent / "data" / "nano"


@dataclasses.dataclass(frozen=True)
class Conversion:
    name: str
    nano: str
    config: dict = dataclasses.field(default_factory=dict)  # added to config.json
    type: str = "ALL_F32"
    keys: dict = dataclasses.field(default_factory=dict)  # metadata that the converter does not write
    drafts: tuple = ()  # names of tensors of the layers that guess ahead, which nano checkpoints leave out
    unsplit_latent: bool = False  # one attn_kv_b, as before llama.cpp split it (May 2025)


# What published configs say and transformers does not write.
SIGMOID = dict(scoring_func="sigmoid")

CONVERSIONS = (
    Conversion("deepseek2", "deepseek_v3", SIGMOID),
    Conversion("deepseek2_unsplit", "deepseek_v3", SIGMOID, unsplit_latent=True),
    Conversion("deepseek2_dense", "moonlight_dense", SIGMOID),
    Conversion("deepseek32", "deepseek_v32", SIGMOID),
    Conversion("deepseek2_q8_0", "deepseek_v3", SIGMOID, type="MOSTLY_Q8_0"),
    Conversion("glm4moe", "glm4_moe", drafts=("blk.3.nextn.eh_proj.weight", "blk.3.attn_q.weight")),
    Conversion("glm4", "glm4"),
    Conversion("ernie4_5", "ernie4_5"),
    Conversion("ernie4_5-moe", "ernie4_5_moe"),
    Conversion(
        "llama4",
        "llama4_published",
        # Where they are not Llama 4's, the parameters of the scaling go beside its divisors, as `essor convert` does.
        keys={
            "llama4.rope.scaling.original_context_length": 16,
        },
    ),
    Conversion("minimax-m2", "minimax_m2"),
)


def unsplit_latent(model_class, base):
    """A converter class that writes latent attention as llama.cpp did at first."""

    class Unsplit(model_class):
        model_arch = model_class.model_arch

        def set_gguf_parameters(self):
            heads = self.hparams["num_attention_heads"]
            super().set_gguf_parameters()
            data = self.gguf_writer.kv_data[0]
            for part in ("key", "value"):
                mla = data.pop(f"deepseek2.attention.{part}_length_mla")
                data[f"deepseek2.attention.{part}_length"] = mla
            data["deepseek2.attention.head_count_kv"].value = heads

        def modify_tensors(self, data_torch, name, bid):
            if name.endswith("kv_b_proj.weight"):
                return base.ModelBase.modify_tensors(self, data_torch, name, bid)
            return super().modify_tensors(data_torch, name, bid)

    return Unsplit


def convert(conversion, out, modules):
    base, conversion_package, gguf = modules
    with tempfile.TemporaryDirectory() as temporary:
        source = pathlib.Path(temporary) / conversion.name
        shutil.copytree(NANO / conversion.nano, source)
        config = json.loads((source / "config.json").read_text()) | conversion.config
        (source / "config.json").write_text(json.dumps(config))
        model_class = conversion_package.get_model_class(config["architectures"][0])
        if conversion.unsplit_latent:
            model_class = unsplit_latent(model_class, base)
        model_class.set_vocab = base.TextModel._set_vocab_gpt2
        model_class.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
        file = out / f"nano_{conversion.name}.gguf"
        model = model_class(source, gguf.LlamaFileType[conversion.type], file, model_name=f"nano {conversion.nano}")
        for key, value in conversion.keys.items():
            model.gguf_writer.add_uint32(key, value)
        for name in conversion.drafts:
            model.gguf_writer.add_tensor(name, numpy.zeros((4, 8), numpy.float32))
        model.write()
        print(f"{file}: {file.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True)
    parser.add_argument("--only")
    args = parser.parse_args()
    sys.path[:0] = [str(args.llama_cpp), str(args.llama_cpp / "gguf-py")]
    import conversion
    import conversion.base
    import gguf

    for case in CONVERSIONS:
        if args.only in (None, case.name):
            convert(case, args.out, (conversion.base, conversion, gguf))


if __name__ == "__main__":
    main()
