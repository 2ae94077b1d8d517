"""Conversations, and which template is rendered with which of them."""

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather at a place <now>, in \u00b0C & more",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "City,\ne.g. \"K\u00f6ln\""},
        "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        "days": {"type": "array", "items": {"type": "integer"}}}, "required": ["city"]}}}
SEARCH = {"type": "function", "function": {
    "name": "search", "description": "Finds documents",
    "parameters": {"type": "object", "properties": {
        "query": {"type": "string"},
        "filter": {"type": "object", "properties": {"lang": {"type": ["string", "null"]}, "max": {"type": "number", "default": 2.5}},
                   "required": ["lang"]},
        "where": {"anyOf": [{"type": "string"}, {"type": "object"}]}}, "required": ["query", "filter"]}}}
NO_PARAMETERS = {"type": "function", "function": {"name": "now", "description": "The time"}}


def _m(role, content, **extra):
    return {"role": role, "content": content, **extra}


def _call(name, arguments, **extra):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **extra}


CONVERSATIONS = {
    "one": [_m("user", "Hi there")],
    "system": [_m("system", "Be brief.\n"), _m("user", "  What is 2+2? ")],
    "turns": [_m("user", "Hello"), _m("assistant", "Hi! How can I help?"), _m("user", "Tell me more\nabout it")],
    "answered": [_m("system", "S1"), _m("user", "Q1"), _m("assistant", "A1\n"), _m("user", "Q2"), _m("assistant", " A2 ")],
    "two_systems": [_m("system", "First"), _m("user", "Q"), _m("system", "Second"), _m("user", "R")],
    "unicode": [_m("user", "\u4f60\u597d \U0001f468\u200d\U0001f469\u200d\U0001f467 na\u00efve <b>&amp;</b> \"quoted\" 'single' \\back\\ {{ x }} {% y %}")],
    "empty": [_m("user", ""), _m("assistant", ""), _m("user", "")],
    "thinking": [_m("user", "Q1"), _m("assistant", "<think>\nfirst thought\n</think>\n\nA1"), _m("user", "Q2"),
                 _m("assistant", "<think>\nsecond\n\nthought\n</think>\n\nA2")],
    "reasoning": [_m("user", "Q1"), _m("assistant", "A1", reasoning_content="old thought"), _m("user", "Q2"),
                  _m("assistant", "A2", reasoning_content="\nnew thought\n")],
    "call": [_m("user", "Weather in K\u00f6ln?"),
             _m("assistant", "Let me look.", tool_calls=[_call("get_weather", {"city": "K\u00f6ln", "days": [1, 2], "deep": {"a": None, "b": True}}, id="functions.get_weather:0")]),
             _m("tool", "{\"temperature\": 21.5}", tool_call_id="functions.get_weather:0", name="get_weather")],
    "call_string": [_m("system", "Use tools."), _m("user", "Weather?"),
                    _m("assistant", "", tool_calls=[_call("get_weather", "{\"city\": \"Bonn\"}")]),
                    _m("tool", "sunny", tool_call_id="c1"), _m("assistant", "It is sunny."), _m("user", "Thanks")],
    "call_null": [_m("user", "Weather?"),
                  _m("assistant", None, tool_calls=[_call("get_weather", "{\"city\": \"Bonn\"}"), _call("search", "{}")]),
                  _m("tool", "sunny", tool_call_id="c1"), _m("tool", "nothing", tool_call_id="c2"), _m("assistant", "Sunny.")],
    "two_calls": [_m("user", "Both?"),
                  _m("assistant", "Looking.", tool_calls=[_call("get_weather", {"city": "A"}, id="x:0"), _call("search", {"query": "b", "n": 3, "f": 0.1}, id="x:1")]),
                  _m("tool", "r1", tool_call_id="x:0"), _m("tool", "r2", tool_call_id="x:1"), _m("assistant", "Done."), _m("user", "More")],
    "tool_data": [_m("user", "Q"), _m("assistant", "", tool_calls=[_call("search", {"query": "q"})]),
                  _m("tool", {"hits": [1, 2], "ok": True}, tool_call_id="t"), _m("tool", [{"text": "p"}], tool_call_id="u"), _m("tool", 7, tool_call_id="v")],
    "parts": [_m("user", [{"type": "text", "text": "Look: "}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": " and say"}]),
              _m("assistant", [{"type": "text", "text": "A cat"}]), _m("user", "Sure?")],
    "assistant_first": [_m("assistant", "I begin"), _m("user", "OK")],
    "no_question": [_m("system", "Alone")],
    "same_role": [_m("user", "one"), _m("user", "two\nthree"), _m("assistant", "four"), _m("assistant", "five"), _m("user", "6")],
    "stray_tool": [_m("user", "Q"), _m("tool", "r", tool_call_id="t")],
    "long": [_m("system", "You answer in one line.")] + [
        _m("assistant" if i % 2 else "user", f"{'answer' if i % 2 else 'question'} {i}\n" * (i + 1)) for i in range(9)],
    "whitespace": [_m("system", " \t\n"), _m("user", "\n\n  two lines\n\tand a tab \u00a0\u3000\r\n"), _m("assistant", "   "),
                   _m("user", "\u2028x\u2029 \v\f y\x1c")],
    "markers": [_m("user", "<|im_end|> </think> [INST] <|eot_id|> <s> <\uff5cUser\uff5c> ]~b]user <|call|>"),
                _m("assistant", "```json\n{\"a\": 1}\n```\n<tool_call>\nno call\n</tool_call>"), _m("user", "<tool_response>x</tool_response>")],
    "scripts": [_m("system", "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac"), _m("user", "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 e\u0301 \ud55c\uae00 \U0001f1e9\U0001f1ea"),
                _m("assistant", "\u65e5\u672c\u8a9e\u3002\U00020000\u200b\ufeff"), _m("user", "\u4e2d\u6587\uff1f")],
    "think_calls": [_m("system", "Think, then act."), _m("user", "Plan a trip"),
                    _m("assistant", "", reasoning_content="First the weather.", tool_calls=[_call("get_weather", {"city": "Ulm"}, id="functions.get_weather:0")]),
                    _m("tool", "rain", tool_call_id="functions.get_weather:0"),
                    _m("assistant", "", reasoning_content="Now the \"museums\".\n", tool_calls=[_call("search", {"query": "museum", "filter": {"lang": None, "max": 1.0}}, id="functions.search:1")]),
                    _m("tool", "[]", tool_call_id="functions.search:1"),
                    _m("assistant", "Stay at home.", reasoning_content="Nothing found.")],
    "calls_again": [_m("user", "Weather?"), _m("assistant", "", tool_calls=[_call("get_weather", {"city": "\u5317\u4eac", "unit": "C"}, id="a")]),
                    _m("tool", "{\"t\": -3}", tool_call_id="a"), _m("assistant", "Cold.", reasoning_content="below zero"), _m("user", "And there?"),
                    _m("assistant", "", reasoning_content="again", tool_calls=[_call("get_weather", {"city": "Cairo"}, id="b")]), _m("tool", "hot", tool_call_id="b")],
    "arguments": [_m("user", "Go"), _m("assistant", "", tool_calls=[_call("search", {
        "query": "a \"b\" <c> & 'd'\n\\", "empty": "", "list": [], "object": {}, "deep": [[1, [2.5, {"k": [None, True, False]}]]],
        "big": 12345678901234567890, "small": 1e-7, "negative": -0.0, "\u00fc": "\u00fc\U0001f600"}, id="z")]), _m("tool", "", tool_call_id="z")],
    "no_arguments": [_m("user", "Time?"), _m("assistant", "", tool_calls=[_call("now", {}, id="n")]), _m("tool", "noon", tool_call_id="n")],
    "blank_reasoning": [_m("user", "Q1"), _m("assistant", "A1", reasoning_content=""), _m("user", "Q2"),
                        _m("assistant", "A2", reasoning_content="  \n "), _m("user", "Q3"), _m("assistant", "A3", reasoning_content="r")],
    "developer": [_m("developer", "Obey."), _m("user", "Q"), _m("assistant", "A", reasoning_content="r")],
    "named": [_m("system", "S", name="rules"), _m("user", "Q", name="ann"), _m("assistant", "A", name="bot"), _m("user", "R")],
}

# (template, conversation, options): options are tools, add_generation_prompt (true by default), further variables.
_T2 = [WEATHER, SEARCH]
FAMILY_CASES = (
    [("qwen3", name, {}) for name in ("one", "system", "turns", "answered", "two_systems", "unicode", "empty", "thinking",
                                      "reasoning", "call", "call_string", "two_calls", "no_question")]
    + [("qwen3", "one", dict(enable_thinking=False)), ("qwen3", "one", dict(enable_thinking=True)),
       ("qwen3", "answered", dict(add_generation_prompt=False)), ("qwen3", "thinking", dict(add_generation_prompt=False)),
       ("qwen3", "one", dict(tools=[WEATHER])), ("qwen3", "system", dict(tools=_T2)), ("qwen3", "call", dict(tools=_T2)),
       ("qwen3", "call_null", {}), ("qwen3", "one", dict(tools=[]))]
    + [("deepseek_v3", name, {}) for name in ("one", "system", "turns", "answered", "two_systems", "unicode", "call_string",
                                              "call_null", "no_question", "empty")]
    + [("deepseek_v3", "turns", dict(add_generation_prompt=False)), ("deepseek_v3", "call", {})]
    + [("smollm2", name, {}) for name in ("one", "system", "turns", "unicode", "no_question")]
    + [("smollm2", "answered", dict(add_generation_prompt=False)), ("smollm2", "parts", {})]
    + [("alternating_inst", name, {}) for name in ("one", "system", "turns", "answered", "same_role", "assistant_first", "call")]
    + [("header_blocks", name, {}) for name in ("system", "answered", "call_string", "two_calls", "tool_data")]
    + [("header_blocks", "system", dict(tools=_T2)), ("header_blocks", "one", dict(custom_tools=[NO_PARAMETERS], date_string="3 Mar 2026")),
       ("header_blocks", "call", dict(builtins=["hidden", "get_weather", "x"], tools=[WEATHER], add_generation_prompt=False))]
    + [("think_split", name, {}) for name in ("one", "two_systems", "thinking", "call", "call_null", "two_calls")]
    + [("think_split", "thinking", dict(thinking=True)), ("think_split", "one", dict(thinking=True))]
    + [("xml_tools", name, {}) for name in ("one", "system", "parts", "thinking", "reasoning", "call", "two_calls", "tool_data",
                                            "stray_tool")]
    + [("xml_tools", "system", dict(tools=_T2)), ("xml_tools", "one", dict(identity="Me", add_generation_prompt=False))]
    + [("schema_types", name, {}) for name in ("one", "call", "call_string", "two_calls", "stray_tool")]
    + [("schema_types", "one", dict(tools=_T2 + [NO_PARAMETERS])), ("schema_types", "one", dict(tools=[WEATHER], effort="high"))]
    + [("sections", name, {}) for name in ("one", "named", "parts", "reasoning", "call", "call_string", "two_calls")]
    + [("sections", "one", dict(tools=_T2)), ("sections", "answered", dict(add_generation_prompt=False))]
    + [("grouped_turns", name, {}) for name in ("one", "turns", "same_role", "system", "empty")]
    + [("system_chatml", name, {}) for name in ("one", "two_systems", "parts", "turns", "no_question", "assistant_first")]
    + [("system_chatml", "system", dict(enable_thinking=False)), ("system_chatml", "one", dict(add_generation_prompt=False))]
)

# The turn formats of the families, each with every conversation and with the switches it knows.
TURN_FORMATS = ("deepseek_r1", "deepseek_v31", "qwq", "llama3", "llama4", "mixtral", "glm45", "ernie45", "kimi_k2", "minimax_m1",
                "minimax_m2", "harmony")
_SWITCHES = {
    "qwen3": [dict(enable_thinking=False), dict(enable_thinking=True)],
    "deepseek_v31": [dict(thinking=True), dict(enable_thinking=False)],
    "qwq": [dict(enable_thinking=False)],
    "glm45": [dict(enable_thinking=False), dict(enable_thinking=True)],
    "ernie45": [dict(enable_thinking=False), dict(cls_token="<cls>", sep_token="<sep>")],
    "llama3": [dict(date_string="3 Mar 2026"), dict(tools_in_user_message=False, tools=[SEARCH])],
    "kimi_k2": [dict(keep_thinking=False)],
    "harmony": [dict(reasoning_effort="high", model_identity="I")],
    "minimax_m2": [dict(model_identity="Me.")],
}


def _cases_of(template):
    cases = [(template, name, {}) for name in CONVERSATIONS]
    for name in ("system", "call", "think_calls"):
        cases.append((template, name, dict(tools=_T2)))
    cases.append((template, "one", dict(tools=[NO_PARAMETERS, WEATHER])))
    for name in ("reasoning", "answered", "think_calls"):
        cases.append((template, name, dict(add_generation_prompt=False)))
    for switch in _SWITCHES.get(template, []):
        for name in ("one", "reasoning", "calls_again"):
            cases.append((template, name, switch))
    return cases


for _template in ("qwen3", "deepseek_v3") + TURN_FORMATS:
    FAMILY_CASES += [case for case in _cases_of(_template) if case not in FAMILY_CASES]
