// Finds the end of a JSON object byte by byte.
#pragma once

#include <string>

namespace essor::model {

// How deep objects and lists in a call's arguments may hold each other.
inline constexpr int kCallDepthMax = 64;

enum class ScanResult { kMore, kDone, kFailed };

// Accepts exactly the texts that begin with white space and one JSON object (RFC 8259) nested at
// most kCallDepthMax deep; escapes and UTF-8 inside strings are left to whoever reads the text.
// Thread-compatible.
class JsonScanner {
 public:
  // kDone with the closing brace, kFailed with the first byte that cannot belong to an object.
  // Neither may be followed by another call.
  ScanResult Push(char c);

  // The outermost object's key that ended with the last byte, without its quotes, escapes as
  // written and cut to kKeyBytesMax; null if none did.
  const std::string* ended_key() const { return key_ended_ ? &key_ : nullptr; }

 private:
  static constexpr size_t kKeyBytesMax = 32;
  enum class State { kObject, kValue, kFirstItem, kFirstKey, kKey, kColon, kComma, kScalar };
  enum class Number { kNone, kSign, kZero, kInteger, kPoint, kFraction, kE, kESign, kExponent };

  ScanResult PushStructure(char c);
  ScanResult PushInString(char c);
  ScanResult PushScalar(char c);
  ScanResult BeginValue(char c);
  ScanResult Open(char closer);
  ScanResult Close(char c);
  void BeginString(bool key);
  bool ExtendNumber(char c);
  bool ScalarIsWhole() const;

  std::string closers_;  // of the open objects and lists
  State state_ = State::kObject;
  bool in_string_ = false;
  bool in_key_ = false;
  bool escaped_ = false;
  Number number_ = Number::kNone;
  std::string literal_;
  std::string key_;
  bool key_ended_ = false;
};

}  // namespace essor::model
