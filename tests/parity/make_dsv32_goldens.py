#!/usr/bin/env python3
"""Makes the goldens of DeepSeek V3.2's prompts by running the encoder that its checkpoint ships.

    make_dsv32_goldens.py OUT --encoder encoding_dsv32.py

The file is encoding/encoding_dsv32.py of deepseek-ai/DeepSeek-V3.2 or a copy of it, as serving engines carry (the committed
goldens: the copy in the PyPI wheel sglang 0.5.23, sglang/srt/entrypoints/openai). OUT/deepseek_v32_golden.json: cases with
messages, tools, thinking_mode and the text; without a text the encoder refuses the conversation.
"""

import argparse
import copy
import hashlib
import importlib.util
import json
import pathlib

import chat_cases

# What the reference only takes as text, and what it prints Python's way.
SKIPPED = ("parts", "tool_data", "call_null")
SCHEMA = {"type": "object", "properties": {"\u00fc": {"type": "number"}}}


def load(path):
    spec = importlib.util.spec_from_file_location("encoding_dsv32", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_json_arguments(messages):
    messages = copy.deepcopy(messages)
    for message in messages:
        for call in message.get("tool_calls") or []:
            if not isinstance(call["function"]["arguments"], str):
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return messages


def with_tools(messages, tools):
    """Where Essor puts a request's tools: with the first message, which is made a system message."""
    if not tools:
        return messages
    if not messages or messages[0]["role"] != "system":
        messages = [{"role": "system", "content": ""}] + messages
    return [messages[0] | {"tools": tools}] + messages[1:]


def conversations():
    for name, messages in chat_cases.CONVERSATIONS.items():
        if name not in SKIPPED:
            yield name, messages, None
    both = [chat_cases.WEATHER, chat_cases.SEARCH]
    for name in ("one", "system", "think_calls", "two_calls", "calls_again"):
        yield f"{name} with tools", chat_cases.CONVERSATIONS[name], both
    developer = {"role": "developer", "content": "D", "tools": both, "response_format": SCHEMA}
    yield "developer with tools", [developer], None
    system = {"role": "system", "content": "S", "response_format": SCHEMA}
    yield "response format", [system, {"role": "user", "content": "Q"}], None
    yield "response format with tools", [system, {"role": "user", "content": "Q"}], [chat_cases.NO_PARAMETERS]
    yield "no messages", [], None


def outcome(encoder, messages, thinking_mode):
    try:
        return {"text": encoder.encode_messages(messages, thinking_mode=thinking_mode)}
    except Exception as error:  # its own class, AssertionError in older copies, and KeyError
        return {"reason": f"{type(error).__name__}: {error}"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--encoder", type=pathlib.Path, required=True)
    args = parser.parse_args()
    encoder = load(args.encoder)
    cases = []
    for name, messages, tools in conversations():
        messages = with_json_arguments(messages)
        for mode in ("chat", "thinking"):
            if (name, mode) == ("developer", "thinking"):
                continue  # the reference drops the message and then runs past its own list
            case = {"name": f"{name} {mode}", "thinking_mode": mode, "messages": messages}
            if tools:
                case["tools"] = tools
            cases.append(case | outcome(encoder, with_tools(messages, tools), mode))
    digest = hashlib.sha256(args.encoder.read_bytes()).hexdigest()
    lines = ",\n".join(json.dumps(case) for case in cases)
    path = args.out / "deepseek_v32_golden.json"
    path.write_text(f'{{"encoder_sha256": "{digest}",\n "cases": [\n{lines}\n]}}\n')
    print(f"{len(cases)} cases, {sum('text' not in case for case in cases)} of them refused")


if __name__ == "__main__":
    main()
