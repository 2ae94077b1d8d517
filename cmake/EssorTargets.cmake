# One call declares one target, so that a folder's CMakeLists.txt reads as a list of what it holds.
#
#   essor_cc_library(NAME plan SRCS plan.cc HDRS plan.h DEPS essor::spec absl::status)
#     -> target essor_plan, alias essor::plan. Without SRCS it is an INTERFACE library.
#        COPTS adds compile options to this target only.
#   essor_cc_test(NAME plan_test SRCS plan_test.cc DEPS essor::plan [LABELS x] [TIMEOUT s] [DATA dir])
#     -> one executable; every TEST() is listed to ctest on its own. The macro ESSOR_SOURCE_DIR is
#        the repository root.
#   essor_cc_binary(NAME essor-worker SRCS main.cc DEPS ...)      -> build/<preset>/bin/essor-worker
#   essor_cc_benchmark(NAME gemm_benchmark SRCS ... DEPS ...)     -> built, never run by ctest
#   essor_cc_fuzz(NAME x_fuzz SRCS x_fuzz.cc DEPS ... [CORPUS dir]) -> libFuzzer where ESSOR_BUILD_FUZZERS
include_guard()

# Everything that essor_cc_fuzz declares.
add_custom_target(essor_fuzzers)

function(essor_configure_target target scope)
  target_include_directories(${target} ${scope} ${PROJECT_SOURCE_DIR})
  if(NOT scope STREQUAL "INTERFACE")
    target_compile_options(${target} PRIVATE ${ESSOR_WARNINGS})
  endif()
endfunction()

# What the tsan preset's executables need besides their own dependencies (see EssorToolchain.cmake).
set(ESSOR_TSAN_SOURCES)
set(ESSOR_TSAN_DEPS)
if(ESSOR_SANITIZE STREQUAL "thread")
  set(ESSOR_TSAN_SOURCES ${PROJECT_SOURCE_DIR}/common/tsan_absl_mutex.cc)
  set(ESSOR_TSAN_DEPS absl::synchronization)
endif()

function(essor_cc_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;HDRS;DEPS;COPTS" ${ARGN})
  set(target essor_${ARG_NAME})
  if(ARG_SRCS)
    add_library(${target} STATIC ${ARG_SRCS} ${ARG_HDRS})
    essor_configure_target(${target} PUBLIC)
    target_link_libraries(${target} PUBLIC ${ARG_DEPS})
    target_compile_options(${target} PRIVATE ${ARG_COPTS})
  else()
    add_library(${target} INTERFACE)
    essor_configure_target(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE ${ARG_DEPS})
  endif()
  add_library(essor::${ARG_NAME} ALIAS ${target})
endfunction()

# For a library whose sources hold Boost.Asio coroutines: clang 14 has C++20 coroutines, but neither
# libstdc++ 12 nor Boost 1.74 believes it; and its function sanitizer cannot be used in a coroutine.
function(essor_use_coroutines name)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    return()
  endif()
  target_compile_options(essor_${name} PRIVATE
                         -D__cpp_impl_coroutine=201902L -DBOOST_ASIO_HAS_CO_AWAIT
                         -DBOOST_ASIO_HAS_STD_COROUTINE -Wno-builtin-macro-redefined)
  if(ESSOR_SANITIZE MATCHES "undefined")
    target_compile_options(essor_${name} PRIVATE -fno-sanitize=function)
  endif()
endfunction()

function(essor_cc_binary)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS} ${ESSOR_TSAN_SOURCES})
  essor_configure_target(${ARG_NAME} PRIVATE)
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS} ${ESSOR_TSAN_DEPS})
endfunction()

function(essor_cc_test)
  if(NOT ESSOR_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;DATA" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS} ${ESSOR_TSAN_SOURCES})
  essor_configure_target(${ARG_NAME} PRIVATE)
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS} ${ESSOR_TSAN_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${ARG_NAME} PRIVATE ESSOR_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                             ESSOR_BINARY_DIR="${PROJECT_BINARY_DIR}")
  set_target_properties(${ARG_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  gtest_discover_tests(${ARG_NAME} DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

function(essor_cc_benchmark)
  if(NOT ESSOR_BUILD_BENCHMARKS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  essor_configure_target(${ARG_NAME} PRIVATE)
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS})
  set_target_properties(${ARG_NAME} PROPERTIES
                        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/benchmarks)
endfunction()

function(essor_cc_fuzz)
  if(NOT ESSOR_BUILD_FUZZERS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "NAME;CORPUS" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  essor_configure_target(${ARG_NAME} PRIVATE)
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS} -fsanitize=fuzzer)
  set_target_properties(${ARG_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz)
  add_dependencies(essor_fuzzers ${ARG_NAME})
  # A short run under ctest; the corpus directory is read only, new inputs go to the build tree.
  set(scratch ${PROJECT_BINARY_DIR}/fuzz/${ARG_NAME}_corpus)
  file(MAKE_DIRECTORY ${scratch})
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME} -max_total_time=10 -rss_limit_mb=2048 -timeout=10
           ${scratch} ${ARG_CORPUS})
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS fuzz TIMEOUT 120)
endfunction()
