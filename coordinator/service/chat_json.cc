#include "coordinator/service/chat_json.h"

#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace essor::coordinator {

std::string MessagesJson(const v1::ChatMessages& chat) {
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
  const auto put = [&writer](const char* key, const std::string& value) {
    writer.Key(key);
    writer.String(value.data(), static_cast<rapidjson::SizeType>(value.size()));
  };
  writer.StartArray();
  for (const v1::ChatMessage& message : chat.messages()) {
    writer.StartObject();
    put("role", message.role());
    put("content", message.content());
    writer.EndObject();
  }
  writer.EndArray();
  return std::string(buffer.GetString(), buffer.GetSize());
}

}  // namespace essor::coordinator
