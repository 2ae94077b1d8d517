#include "model/spec/config_view.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ConfigView ViewOf(const std::string& json) {
  auto view = ConfigView::Parse(json, "config.json");
  EXPECT_TRUE(view.ok()) << view.status();
  return *view;
}

template <typename T>
void ExpectInvalid(const absl::StatusOr<T>& result, const std::string& message) {
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(message));
}

TEST(ConfigViewTest, ReadsNumbersThatPythonWrites) {
  const ConfigView view = ViewOf(R"({"huge": 1000000000000000019884624838656, "none": NaN})");
  EXPECT_EQ(view.Number("huge").value(), 1e30);
  ExpectInvalid(view.Size("huge", 10), "huge: expected a whole number from 1 to 10");
  EXPECT_FALSE(view.Has("none"));
}

TEST(ConfigViewTest, ListsKeysThatHoldSomething) {
  const ConfigView view = ViewOf(R"({"b": 1, "a": null, "c": {"d": 2}})");
  EXPECT_THAT(view.Keys(), ElementsAre("b", "c"));
  EXPECT_THAT(view.Object("c")->Keys(), ElementsAre("d"));
  EXPECT_THAT(ViewOf("{}").Keys(), IsEmpty());
}

TEST(ConfigViewTest, ReadsEveryType) {
  const ConfigView view = ViewOf(R"({"size": 7, "float_size": 128256.0, "number": 1e-5, "yes": true,
                                     "text": "abc", "one": 3, "many": [1, 2], "names": ["a", "b"]})");
  EXPECT_EQ(view.Size("size", 10).value(), 7u);
  EXPECT_EQ(view.Size("float_size", 1 << 20).value(), 128256u);
  EXPECT_EQ(view.Number("number").value(), 1e-5);
  EXPECT_EQ(view.Number("size").value(), 7.0);
  EXPECT_TRUE(view.BoolOr("yes", false).value());
  EXPECT_EQ(view.String("text").value(), "abc");
  EXPECT_THAT(view.Integers("one").value(), ElementsAre(3));
  EXPECT_THAT(view.Integers("many").value(), ElementsAre(1, 2));
  EXPECT_THAT(view.Strings("names").value(), ElementsAre("a", "b"));
}

// transformers writes null for "not set".
TEST(ConfigViewTest, NullCountsAsAbsent) {
  const ConfigView view = ViewOf(R"({"a": null})");
  EXPECT_FALSE(view.Has("a"));
  EXPECT_EQ(view.SizeOr("a", 10, 5).value(), 5u);
  EXPECT_EQ(view.NumberOr("a", 0.5).value(), 0.5);
  EXPECT_EQ(view.StringOr("a", "x").value(), "x");
  EXPECT_THAT(view.Integers("a").value(), IsEmpty());
  ExpectInvalid(view.Size("a", 10), "config.json: a: missing");
}

TEST(ConfigViewTest, RefusesNumbersOutsideTheirRange) {
  const ConfigView view = ViewOf(
      R"({"zero": 0, "negative": -4, "huge": 99999999999, "beyond": 1e300, "half": 1.5, "text": "7"})");
  ExpectInvalid(view.Size("zero", 10), "config.json: zero: 0 is outside 1 to 10");
  ExpectInvalid(view.Size("negative", 10), "negative: -4 is outside 1 to 10");
  ExpectInvalid(view.Size("huge", 10), "huge: 99999999999 is outside 1 to 10");
  ExpectInvalid(view.Size("beyond", 10), "beyond: expected a whole number from 1 to 10");
  ExpectInvalid(view.Size("half", 10), "half: expected a whole number from 1 to 10");
  ExpectInvalid(view.Size("text", 10), "text: expected a whole number from 1 to 10");
  ExpectInvalid(view.PositiveOr("zero", 1), "zero: 0 is not above 0");
  ExpectInvalid(view.Number("text"), "text: expected a number");
  ExpectInvalid(view.BoolOr("zero", true), "zero: expected true or false");
  ExpectInvalid(view.String("zero"), "zero: expected a string");
  ExpectInvalid(view.Integers("half"), "half: expected a whole number or a list of them");
  ExpectInvalid(view.Strings("text"), "text: expected a list of strings");
}

TEST(ConfigViewTest, NamesTheWholePathInsideObjects) {
  const ConfigView view = ViewOf(R"({"rope_scaling": {"factor": "x"}, "list": [{"n": 1}]})");
  const auto inner = view.Object("rope_scaling");
  ASSERT_TRUE(inner.ok());
  ExpectInvalid(inner->Number("factor"), "config.json: rope_scaling.factor: expected a number");
  const auto list = view.Objects("list");
  ASSERT_TRUE(list.ok());
  ExpectInvalid(list->front().String("n"), "config.json: list[0].n: expected a string");
  ExpectInvalid(view.Object("list"), "list: expected an object");
}

// A view outlives the view it came from.
TEST(ConfigViewTest, InnerViewsKeepTheDocument) {
  ConfigView inner = [] { return *ViewOf(R"({"a": {"b": 5}})").Object("a"); }();
  EXPECT_EQ(inner.Size("b", 9).value(), 5u);
}

TEST(ConfigViewTest, RefusesWhatIsNotAnObject) {
  ExpectInvalid(ConfigView::Parse("{\"a\": ", "x.json"), "x.json: not valid JSON");
  ExpectInvalid(ConfigView::Parse("", "x.json"), "x.json: not valid JSON");
  ExpectInvalid(ConfigView::Parse("[1]", "x.json"), "x.json: not a JSON object");
  ExpectInvalid(ConfigView::Parse("{\"a\": \"\xff\"}", "x.json"), "x.json: not valid JSON");
}

}  // namespace
}  // namespace essor::model
