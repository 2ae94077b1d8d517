#!/usr/bin/env python3
"""Makes the chat template goldens with transformers' own Jinja environment.

    make_chat_goldens.py OUT --tokenizers DIR --smollm2-gguf FILE

OUT/golden.json: templates, and cases with the rendered text or the error. Format: README.md beside this file.
"""

import argparse
import json
import lzma
import pathlib
import sys

import gguf
import jinja2
import tokenizers
import transformers
from transformers.utils import chat_template_utils

import chat_cases
import chat_snippets

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SNIPPET_MESSAGES = [{"role": "user", "content": "Hi <b>"}]


def real_templates(tokenizers_dir, gguf_path):
    """The templates of real models, with the special tokens that those models have."""
    found = {}
    for name in ("deepseek_v3", "qwen3"):
        config = json.loads((tokenizers_dir / name / "tokenizer_config.json").read_text())
        tokens = {}
        for key in ("bos_token", "eos_token", "pad_token"):
            value = config.get(key)
            if value is not None:
                tokens[key] = value if isinstance(value, str) else value["content"]
        found[name] = (config["chat_template"], tokens)
    fields = gguf.GGUFReader(gguf_path).fields
    vocabulary = fields["tokenizer.ggml.tokens"].contents()
    tokens = {
        f"{key}_token": vocabulary[fields[f"tokenizer.ggml.{key}_token_id"].contents()]
        for key in ("bos", "eos")
    }
    found["smollm2"] = (fields["tokenizer.chat_template"].contents(), tokens)
    return found


def real_tokenizers(tokenizers_dir):
    return {
        name: tokenizers.Tokenizer.from_str(
            lzma.open(tokenizers_dir / name / "tokenizer.json.xz", "rt", encoding="utf-8").read()
        )
        for name in ("deepseek_v3", "qwen3")
    }


def own_templates():
    directory = pathlib.Path(__file__).parent / "chat_templates"
    return {path.stem: (path.read_text(), TOKENS) for path in sorted(directory.glob("*.jinja"))}


def render(template, case):
    rendered, _ = chat_template_utils.render_jinja_template(
        conversations=[case.get("messages") or chat_cases.CONVERSATIONS[case["conversation"]]],
        tools=case.get("tools"),
        chat_template=template,
        add_generation_prompt=case["add_generation_prompt"],
        **case.get("tokens", {}),
        **case.get("kwargs", {}),
    )
    return rendered[0]


def outcome(template, case):
    """{"text"}, or {"error"}: what raise_exception was given; empty where any error will do."""
    try:
        return {"text": render(template, case)}
    except jinja2.exceptions.TemplateError as error:
        raised = type(error) is jinja2.exceptions.TemplateError
        return {"error": str(error) if raised else "", "reason": f"{type(error).__name__}: {error}"}
    except (TypeError, ValueError, OverflowError, ZeroDivisionError, RecursionError) as error:
        return {"error": "", "reason": f"{type(error).__name__}: {error}"}


def family_cases(templates):
    for template, conversation, options in chat_cases.FAMILY_CASES:
        variables = {
            key: value
            for key, value in options.items()
            if key not in ("tools", "add_generation_prompt")
        }
        case = {
            "conversation": conversation,
            "add_generation_prompt": options.get("add_generation_prompt", True),
            "tokens": templates[template][1],
        }
        if "tools" in options:
            case["tools"] = options["tools"]
        if variables:
            case["kwargs"] = variables
        label = "".join(
            f" {key}={len(value) if isinstance(value, list) else value}"
            for key, value in options.items()
        )
        yield f"{template} {conversation}{label}", template, case


def build(templates, real):
    cases = []
    for name, template, case in family_cases(templates):
        result = outcome(templates[template][0], case)
        # In one place special tokens are written by a user: that text has no ids of its own.
        if template in real and "text" in result and case["conversation"] != "markers":
            result["ids"] = real[template].encode(result["text"], add_special_tokens=False).ids
        cases.append({"name": name, "template": template, **case, **result})
    for name, source, options in chat_snippets.SNIPPETS:
        case = {"add_generation_prompt": options.get("add_generation_prompt", True)}
        full = case | {"messages": SNIPPET_MESSAGES, "tokens": TOKENS, "kwargs": chat_snippets.DATA}
        cases.append({"name": name, "source": source, **case, **outcome(source, full)})
    return cases


def check(cases):
    names = [case["name"] for case in cases]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        sys.exit(f"names must be unique: {doubled}")
    wrong = [
        case
        for case in cases
        if "source" in case and ("error" in case) != case["name"].startswith("error_")
    ]
    for case in wrong:
        print(f"{case['name']}: {case.get('reason', case.get('text'))}", file=sys.stderr)
    if wrong:
        sys.exit("snippets whose outcome their name does not announce")


def check_families(cases):
    """Each family renders at least 25 conversations."""
    for template in ("qwen3", "deepseek_v3") + chat_cases.TURN_FORMATS:
        rendered = [c for c in cases if c.get("template") == template and "text" in c]
        print(f"{template}: {len(rendered)} conversations")
        if len({case["text"] for case in rendered}) < 25:
            sys.exit(f"{template}: too few conversations")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tokenizers", type=pathlib.Path, required=True)
    parser.add_argument("--smollm2-gguf", type=pathlib.Path, required=True)
    args = parser.parse_args()
    templates = real_templates(args.tokenizers, args.smollm2_gguf) | own_templates()
    cases = build(templates, real_tokenizers(args.tokenizers))
    check(cases)
    check_families(cases)
    golden = {
        "transformers": transformers.__version__,
        "jinja2": jinja2.__version__,
        "conversations": chat_cases.CONVERSATIONS,
        "templates": {name: text for name, (text, _) in templates.items()},
        "snippet_messages": SNIPPET_MESSAGES,
        "snippet_tokens": TOKENS,
        "snippet_kwargs": chat_snippets.DATA,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    head = json.dumps(golden, indent=1)[:-2]
    lines = ",\n".join(json.dumps(case) for case in cases)
    (args.out / "golden.json").write_text(f'{head},\n "cases": [\n{lines}\n]}}\n')
    print(f"{len(cases)} cases, {sum('error' in case for case in cases)} of them errors")


if __name__ == "__main__":
    main()
