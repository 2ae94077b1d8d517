// The model that this coordinator serves, as its services need it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/core/request_validation.h"
#include "coordinator/core/scheduler.h"
#include "model/chat/chat_template.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::coordinator {

// Immutable while services use it. Tokenizer and template are borrowed.
struct ServedModel {
  std::string name;  // what clients call it
  std::string family;
  uint64_t num_parameters = 0;
  std::string weight_format;
  std::string fingerprint;
  int64_t created_unix_s = 0;
  ModelLimits limits{};
  const model::Tokenizer* tokenizer = nullptr;         // null: token ids only
  const model::ChatTemplate* chat_template = nullptr;  // null: no chat

  OutputModel output_model() const {
    return {
        .tokenizer = tokenizer, .eos_tokens = limits.eos_tokens, .vocab_size = limits.vocab_size};
  }
};

}  // namespace essor::coordinator
