// DeepSeek V3.2's prompts. The checkpoint has no chat template; the form of its prompts, DSML, is
// defined by a Python program beside it, encoding/encoding_dsv32.py of deepseek-ai/DeepSeek-V3.2
// (MIT License). The texts and the order here are that program's.
#pragma once

#include <memory>

#include "model/chat/chat_template.h"

namespace essor::model {

// A ChatTemplate without a template; it knows its special tokens itself. Beside `role` and
// `content` (a string, null, or parts of type "text", joined by newlines) messages may have
//   system, developer: `tools` and `response_format` (a JSON schema),
//   assistant: `reasoning_content` (or `reasoning`), shown behind the last user message only, and
//     `tool_calls` of {"function": {"name", "arguments"}}; arguments are an object or its JSON
//     text.
// ChatInput::tools_json goes to the first message if that is a system message, otherwise to an
// empty one before it. Variables: `thinking` or `enable_thinking` (booleans, false by default), or
// `thinking_mode` ("chat" or "thinking"); others are ignored, as templates ignore them. A user
// message is always followed by the beginning of an answer: add_generation_prompt changes nothing.
//
// Render() returns InvalidArgument naming the message, also for what the reference refuses: results
// without a call before them, an unknown role, an empty developer message, and (thinking) an answer
// to the last user message that has neither reasoning nor calls. The reference also fails on a
// developer message before the last user message when thinking; here it is rendered.
std::unique_ptr<ChatTemplate> MakeDeepSeekV32Encoder();

}  // namespace essor::model
