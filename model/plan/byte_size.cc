#include "model/plan/byte_size.h"

#include <array>
#include <cmath>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace essor::model {
namespace {

struct Unit {
  const char* name;  // lower case
  double bytes;
};
constexpr std::array<Unit, 14> kUnits = {{{"", 1},
                                          {"b", 1},
                                          {"k", 1e3},
                                          {"kb", 1e3},
                                          {"kib", 1024.0},
                                          {"m", 1e6},
                                          {"mb", 1e6},
                                          {"mib", 1048576.0},
                                          {"g", 1e9},
                                          {"gb", 1e9},
                                          {"gib", 1073741824.0},
                                          {"t", 1e12},
                                          {"tb", 1e12},
                                          {"tib", 1099511627776.0}}};
constexpr double kMaxBytes = 1152921504606846976.0;  // 2^60

absl::Status Refuse(const std::string& text) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is not a size such as 80GB, 80GiB or 512MB"));
}

}  // namespace

absl::StatusOr<uint64_t> ParseByteSize(const std::string& text) {
  // Digits and one point only: strtod alone would take signs, exponents, "inf" and hexadecimals.
  const size_t number_end = text.find_first_not_of("0123456789.");
  const std::string number = text.substr(0, number_end);
  if (number.empty() || number.front() == '.' || number.back() == '.' ||
      number.find('.') != number.rfind('.')) {
    return Refuse(text);
  }
  std::string unit = number_end == std::string::npos ? "" : text.substr(number_end);
  if (unit.size() > 1 && unit.front() == ' ') unit.erase(0, 1);
  absl::AsciiStrToLower(&unit);
  for (const Unit& known : kUnits) {
    if (unit != known.name) continue;
    const double bytes = std::strtod(number.c_str(), nullptr) * known.bytes;
    if (!(bytes >= 1) || bytes > kMaxBytes) return Refuse(text);
    return static_cast<uint64_t>(std::llround(bytes));
  }
  return Refuse(text);
}

std::string FormatByteSize(uint64_t bytes) {
  constexpr std::array<Unit, 5> kShown = {
      {{"PB", 1e15}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}}};
  for (const Unit& unit : kShown) {
    // What would round to 1000.0 belongs to the next larger unit.
    if (static_cast<double>(bytes) >= unit.bytes * 0.99995) {
      return absl::StrFormat("%.1f %s", static_cast<double>(bytes) / unit.bytes, unit.name);
    }
  }
  return absl::StrCat(bytes, " B");
}

}  // namespace essor::model
