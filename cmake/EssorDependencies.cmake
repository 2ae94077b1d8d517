# Third-party packages, all from Debian 12 (see docs/architecture.md, "Dependencies").

find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(simdjson CONFIG REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(ICU REQUIRED IMPORTED_TARGET icu-uc)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)

find_path(RAPIDJSON_INCLUDE_DIR rapidjson/writer.h REQUIRED)
add_library(essor_rapidjson INTERFACE)
target_include_directories(essor_rapidjson SYSTEM INTERFACE ${RAPIDJSON_INCLUDE_DIR})
add_library(essor::rapidjson ALIAS essor_rapidjson)

if(NOT ESSOR_CORES_ONLY)
  find_package(Protobuf REQUIRED)  # MODULE mode: Debian ships no protobuf-config.cmake
  find_package(gRPC CONFIG REQUIRED)
  find_package(prometheus-cpp CONFIG REQUIRED)
  find_package(Boost 1.74 REQUIRED)
  find_package(CLI11 CONFIG REQUIRED)
endif()

if(ESSOR_BUILD_TESTS)
  find_package(GTest CONFIG REQUIRED)
  find_package(rapidcheck CONFIG REQUIRED)
  find_package(nlohmann_json REQUIRED)  # test code only
  find_package(Python3 COMPONENTS Interpreter)
  include(GoogleTest)
endif()
if(ESSOR_BUILD_BENCHMARKS)
  find_package(benchmark CONFIG REQUIRED)
endif()
