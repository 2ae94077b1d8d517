// The contract only grows: every message, field, enum value and method that was ever published is
// still there with its number and type. proto/published.txt lists them.
//
// After an addition, copy the listing that this test leaves in the build tree
// (descriptor_listing.txt) over proto/published.txt; a line may never be changed or removed.
#include <fstream>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "essor/v1/admin.pb.h"
#include "essor/v1/cluster.pb.h"
#include "essor/v1/inference.pb.h"
#include "gtest/gtest.h"

namespace essor {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;

std::string TypeOf(const FieldDescriptor& field) {
  if (field.message_type() != nullptr) return field.message_type()->full_name();
  if (field.enum_type() != nullptr) return field.enum_type()->full_name();
  return field.type_name();
}

std::string LabelOf(const FieldDescriptor& field) {
  if (field.is_repeated()) return "repeated ";
  if (field.has_optional_keyword()) return "optional ";
  return field.real_containing_oneof() != nullptr
             ? absl::StrCat("oneof ", field.real_containing_oneof()->name(), " ")
             : "";
}

void List(const EnumDescriptor& type, std::set<std::string>* lines) {
  for (int i = 0; i < type.value_count(); ++i) {
    lines->insert(absl::StrCat("value ", type.full_name(), " ", type.value(i)->name(), " = ",
                               type.value(i)->number()));
  }
}

void List(const Descriptor& type, std::set<std::string>* lines) {
  lines->insert(absl::StrCat("message ", type.full_name()));
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    lines->insert(absl::StrCat("field ", field.full_name(), " = ", field.number(), " ",
                               LabelOf(field), TypeOf(field)));
  }
  for (int i = 0; i < type.nested_type_count(); ++i) List(*type.nested_type(i), lines);
  for (int i = 0; i < type.enum_type_count(); ++i) List(*type.enum_type(i), lines);
}

void List(const FileDescriptor& file, std::set<std::string>* lines) {
  for (int i = 0; i < file.message_type_count(); ++i) List(*file.message_type(i), lines);
  for (int i = 0; i < file.enum_type_count(); ++i) List(*file.enum_type(i), lines);
  for (int i = 0; i < file.service_count(); ++i) {
    for (int k = 0; k < file.service(i)->method_count(); ++k) {
      const auto& method = *file.service(i)->method(k);
      lines->insert(absl::StrCat(
          "method ", method.full_name(), " ", method.client_streaming() ? "stream " : "",
          method.input_type()->full_name(), " -> ", method.server_streaming() ? "stream " : "",
          method.output_type()->full_name()));
    }
  }
}

std::set<std::string> Current() {
  std::set<std::string> lines;
  for (const FileDescriptor* file :
       {v1::TokenIds::descriptor()->file(), v1::GenerateRequest::descriptor()->file(),
        v1::RankInfo::descriptor()->file(), v1::Hello::descriptor()->file()}) {
    List(*file, &lines);
  }
  return lines;
}

TEST(DescriptorTest, NothingPublishedIsChangedOrRemoved) {
  const std::set<std::string> current = Current();
  std::ofstream listing(ESSOR_BINARY_DIR "/descriptor_listing.txt");
  for (const std::string& line : current) listing << line << "\n";
  std::ifstream published(ESSOR_SOURCE_DIR "/proto/published.txt");
  ASSERT_TRUE(published.is_open());
  std::string line;
  int num_lines = 0;
  while (std::getline(published, line)) {
    ++num_lines;
    EXPECT_TRUE(current.contains(line)) << "changed or removed: " << line;
  }
  EXPECT_GT(num_lines, 100);
}

// A number freed by a removed field or value is never given to another one; two names for one
// number would be caught by protoc, a silently renamed field is caught above.
TEST(DescriptorTest, EveryEnumBeginsWithUnspecified) {
  for (const std::string& line : Current()) {
    if (line.rfind("value ", 0) != 0 || !line.ends_with(" = 0")) continue;
    EXPECT_NE(line.find("_UNSPECIFIED"), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace essor
