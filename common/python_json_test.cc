#include "common/python_json.h"

#include <gtest/gtest.h>

#include <string>

namespace essor {
namespace {

using simdjson::dom::element;
using simdjson::dom::parser;

// `json`, read and written again; or the error.
std::string Reread(const std::string& json) {
  parser reader;
  element value;
  const auto error = ParsePythonJson(json, &reader).get(value);
  return error != simdjson::SUCCESS ? simdjson::error_message(error) : simdjson::to_string(value);
}

TEST(PythonJsonTest, HugeWholeNumbersAreDoubles) {
  parser reader;
  const auto number = [&](const std::string& json) {
    return double{ParsePythonJson(json, &reader).at_pointer("/a/1/b")};
  };
  EXPECT_EQ(number(R"({"a": [0, {"b": 1000000000000000019884624838656}]})"), 1e30);
  EXPECT_EQ(number(R"({"a":[0,{"b":-1000000000000000019884624838656}]})"), -1e30);
  EXPECT_EQ(number(R"({"a": [0, {"b": 18446744073709551616}]})"), 18446744073709551616.0);
  EXPECT_EQ(number(R"({"a": [0, {"b": -9223372036854775809}]})"), -9223372036854775808.0);
  EXPECT_EQ(double{ParsePythonJson("100000000000000000000", &reader)}, 1e20);
}

TEST(PythonJsonTest, OtherNumbersStayAsTheyAre) {
  // The last one makes the parser look again.
  EXPECT_EQ(Reread("[9999999999999999999,9223372036854775807,-12,0.5,NaN]"),
            "[9999999999999999999,9223372036854775807,-12,0.5,null]");
  EXPECT_EQ(Reread("[1.00000000000000000000000000,100000000000000000000e1,"
                   "1000000000000000000000E-20,NaN]"),
            Reread("[1.0,1e21,10.0,null]"));
  // What needs no second look keeps its exact value.
  EXPECT_EQ(Reread("[18446744073709551615,-9223372036854775808]"),
            "[18446744073709551615,-9223372036854775808]");
}

TEST(PythonJsonTest, NumbersThatAreNotFiniteAreNull) {
  EXPECT_EQ(Reread(R"({"a":NaN,"b":[Infinity, -Infinity ],"c":-1})"),
            R"({"a":null,"b":[null,null],"c":-1})");
}

TEST(PythonJsonTest, StringsAreLeftAlone) {
  EXPECT_EQ(Reread(R"({"NaN":"Infinity","\"NaN":"\\","k\\":"1000000000000000019884624838656",)"
                   R"("x":NaN})"),
            R"({"NaN":"Infinity","\"NaN":"\\","k\\":"1000000000000000019884624838656","x":null})");
}

TEST(PythonJsonTest, MalformedDocumentsStayErrors) {
  for (const char* json :
       {"", "nan", "-NaN", "NaNx", "xNaN", "1NaN", "[1000000000000000019884624838656",
        "[\"1000000000000000019884624838656", "[\"\\", "000000000000000000000001", "-",
        "--Infinity", "+1000000000000000019884624838656", "1-0000000000000000000000", "[NaN",
        "\"NaN"}) {
    parser reader;
    EXPECT_NE(ParsePythonJson(json, &reader).error(), simdjson::SUCCESS) << json;
  }
  // Beyond double too.
  EXPECT_NE(Reread(std::string(400, '9')).find("number"), std::string::npos);
}

}  // namespace
}  // namespace essor
