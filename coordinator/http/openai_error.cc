#include "coordinator/http/openai_error.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/error_details.h"
#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace essor::coordinator {
namespace {

struct Mapping {
  unsigned status;
  const char* type;
};

Mapping MappingOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:  // not 409: clients repeat that by themselves
    case absl::StatusCode::kUnimplemented:  // nor 501
      return {400, "invalid_request_error"};
    case absl::StatusCode::kNotFound:
      return {404, "invalid_request_error"};
    case absl::StatusCode::kUnauthenticated:
      return {401, "authentication_error"};
    case absl::StatusCode::kPermissionDenied:
      return {403, "permission_error"};
    case absl::StatusCode::kResourceExhausted:
      return {429, "rate_limit_exceeded"};
    case absl::StatusCode::kUnavailable:
      return {503, "service_unavailable"};
    case absl::StatusCode::kDeadlineExceeded:
      return {504, "timeout"};
    default:
      return {500, "server_error"};
  }
}

void PutString(rapidjson::Writer<rapidjson::StringBuffer>* writer, const char* key,
               const std::string& value, bool null_when_empty) {
  writer->Key(key);
  if (value.empty() && null_when_empty) {
    writer->Null();
  } else {
    writer->String(value.data(), static_cast<rapidjson::SizeType>(value.size()));
  }
}

std::string Body(const std::string& message, const std::string& type, const std::string& param,
                 const std::string& code) {
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
  writer.StartObject();
  writer.Key("error");
  writer.StartObject();
  PutString(&writer, "message", message, false);
  PutString(&writer, "type", type, false);
  PutString(&writer, "param", param, true);
  PutString(&writer, "code", code, true);
  writer.EndObject();
  writer.EndObject();
  return std::string(buffer.GetString(), buffer.GetSize());
}

std::string ParamOf(const std::string& field, const FieldNames& names) {
  if (field == "text" || field == "tokens.ids" || field == "input" || field == "chat" ||
      field.rfind("chat.", 0) == 0) {
    return names.prompt;
  }
  if (field == "sampling.max_new_tokens") return names.max_tokens;
  if (field == "sampling.min_new_tokens") return "min_tokens";
  if (field == "logprobs") return names.logprobs;
  if (field == "tenant") return "x-essor-tenant";
  if (field == "token_ids") return "tokens";
  constexpr char kSampling[] = "sampling.";
  return field.rfind(kSampling, 0) == 0 ? field.substr(sizeof(kSampling) - 1) : field;
}

}  // namespace

std::string ErrorBody(const absl::Status& status, const FieldNames& names) {
  const std::string field = FieldOf(status);
  const std::string param = ParamOf(field, names);
  std::string message(status.message());
  // The message begins with the proto's name of the field; clients of this API know another.
  if (!field.empty() && message.rfind(field + ":", 0) == 0) {
    message = param + message.substr(field.size());
  }
  return Body(message, MappingOf(status.code()).type, param,
              absl::AsciiStrToLower(ReasonOf(status)));
}

const FieldNames& DefaultFieldNames() {
  static const FieldNames* const kNames = new FieldNames();
  return *kNames;
}

HttpReply ErrorReply(const absl::Status& status, const FieldNames& names) {
  HttpReply reply{.status = MappingOf(status.code()).status,
                  .content_type = "application/json",
                  .body = ErrorBody(status, names)};
  if (reply.status == 429 || reply.status == 503) {
    const absl::Duration delay = RetryDelayOf(status).value_or(absl::Seconds(1));
    const int64_t seconds = absl::ToInt64Seconds(absl::Ceil(delay, absl::Seconds(1)));
    reply.headers.emplace_back("Retry-After", absl::StrCat(std::max<int64_t>(seconds, 1)));
  }
  if (reply.status == 500 || reply.status == 504) {
    reply.headers.emplace_back("x-should-retry", "false");
  }
  return reply;
}

HttpReply ProtocolErrorReply(unsigned status, const std::string& message) {
  return {.status = status,
          .content_type = "application/json",
          .body = Body(message, "invalid_request_error", "", "")};
}

}  // namespace essor::coordinator
