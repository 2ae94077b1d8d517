#include "coordinator/http/openapi.h"

#include "absl/strings/str_replace.h"
#include "common/version.h"

namespace essor::coordinator {
namespace {

constexpr char kDocument[] = R"json({
"openapi":"3.1.0",
"info":{"title":"Essor","version":"@VERSION@","license":{"name":"Apache-2.0","identifier":"Apache-2.0"}},
"paths":{
"/v1/completions":{"post":{"summary":"Continue prompts","parameters":[{"name":"x-essor-tenant","in":"header","schema":{"type":"string","maxLength":128}}],"requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/CompletionRequest"}}}},"responses":{"200":{"description":"The completion, or server-sent events with stream"},"default":{"$ref":"#/components/responses/Error"}}}},
"/v1/chat/completions":{"post":{"summary":"Answer a conversation","parameters":[{"name":"x-essor-tenant","in":"header","schema":{"type":"string","maxLength":128}}],"requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/ChatCompletionRequest"}}}},"responses":{"200":{"description":"The completion, or server-sent events with stream"},"default":{"$ref":"#/components/responses/Error"}}}},
"/v1/models":{"get":{"summary":"The served models","responses":{"200":{"description":"A list of one"}}}},
"/v1/models/{id}":{"get":{"summary":"One model","parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string"}}],"responses":{"200":{"description":"The model"},"default":{"$ref":"#/components/responses/Error"}}}},
"/tokenize":{"post":{"summary":"Text to token ids","requestBody":{"required":true,"content":{"application/json":{"schema":{"type":"object","required":["prompt"],"properties":{"prompt":{"type":"string"},"model":{"type":"string"},"add_special_tokens":{"type":"boolean","default":true}}}}}},"responses":{"200":{"description":"tokens"},"default":{"$ref":"#/components/responses/Error"}}}},
"/detokenize":{"post":{"summary":"Token ids to text","requestBody":{"required":true,"content":{"application/json":{"schema":{"type":"object","required":["tokens"],"properties":{"tokens":{"type":"array","items":{"type":"integer","minimum":0}},"model":{"type":"string"}}}}}},"responses":{"200":{"description":"prompt"},"default":{"$ref":"#/components/responses/Error"}}}},
"/version":{"get":{"summary":"Version and build","responses":{"200":{"description":"version, build"}}}},
"/livez":{"get":{"summary":"The process answers","responses":{"200":{"description":"alive"}}}},
"/readyz":{"get":{"summary":"A step can be served","responses":{"200":{"description":"ready"},"503":{"description":"why not"}}}},
"/metrics":{"get":{"summary":"Prometheus metrics","responses":{"200":{"description":"text format 0.0.4"}}}}
},
"components":{
"responses":{"Error":{"description":"What went wrong","content":{"application/json":{"schema":{"type":"object","required":["error"],"properties":{"error":{"type":"object","required":["message","type","param","code"],"properties":{"message":{"type":"string"},"type":{"type":"string"},"param":{"type":["string","null"]},"code":{"type":["string","null"]}}}}}}}}},
"schemas":{
"Sampling":{"type":"object","properties":{"model":{"type":"string"},"stream":{"type":"boolean","default":false},"stream_options":{"type":"object","properties":{"include_usage":{"type":"boolean"}}},"max_tokens":{"type":"integer","minimum":1},"max_completion_tokens":{"type":"integer","minimum":1},"temperature":{"type":"number","minimum":0,"maximum":2},"top_p":{"type":"number","exclusiveMinimum":0,"maximum":1},"top_k":{"type":"integer","minimum":-1},"min_p":{"type":"number","minimum":0,"maximum":1},"n":{"type":"integer","minimum":1,"maximum":16},"seed":{"type":"integer"},"stop":{"oneOf":[{"type":"string"},{"type":"array","maxItems":16,"items":{"type":"string"}},{"type":"null"}]},"stop_token_ids":{"type":"array","maxItems":16,"items":{"type":"integer","minimum":0}},"ignore_eos":{"type":"boolean","default":false},"min_tokens":{"type":"integer","minimum":0},"typical_p":{"type":"number","exclusiveMinimum":0,"maximum":1},"repetition_penalty":{"type":"number","minimum":0.01,"maximum":10},"presence_penalty":{"type":"number","minimum":-2,"maximum":2},"frequency_penalty":{"type":"number","minimum":-2,"maximum":2},"logit_bias":{"type":["object","null"],"maxProperties":1024,"additionalProperties":{"type":"number","minimum":-100,"maximum":100}},"prompt_logprobs":{"type":["integer","null"],"minimum":0,"maximum":20},"best_of":{"type":["integer","null"],"minimum":1,"maximum":16},"priority":{"type":"integer","minimum":-100,"maximum":100,"default":0,"description":"Higher ones first"},"cache_salt":{"type":"string","maxLength":128},"return_token_ids":{"type":"boolean","default":false}}},
"CompletionRequest":{"allOf":[{"$ref":"#/components/schemas/Sampling"},{"type":"object","required":["prompt"],"properties":{"logprobs":{"type":["integer","null"],"minimum":0,"maximum":20},"echo":{"type":"boolean","default":false},"prompt":{"oneOf":[{"type":"string"},{"type":"array","items":{"type":"string"}},{"type":"array","items":{"type":"integer","minimum":0}},{"type":"array","items":{"type":"array","items":{"type":"integer","minimum":0}}}]}}}]},
"ChatCompletionRequest":{"allOf":[{"$ref":"#/components/schemas/Sampling"},{"type":"object","required":["messages"],"properties":{"logprobs":{"type":["boolean","null"],"default":false},"top_logprobs":{"type":["integer","null"],"minimum":0,"maximum":20},"messages":{"type":"array","minItems":1,"items":{"type":"object","required":["role"],"properties":{"role":{"type":"string"},"content":{"oneOf":[{"type":"string"},{"type":"array"},{"type":"null"}]}}}},"chat_template_kwargs":{"type":"object"}}}]}
}}
})json";

}  // namespace

const std::string& OpenApiDocument() {
  static const std::string* const kText =
      new std::string(absl::StrReplaceAll(kDocument, {{"@VERSION@", Version().c_str()}}));
  return *kText;
}

}  // namespace essor::coordinator
