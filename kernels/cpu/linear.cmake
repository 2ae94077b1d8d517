# Packed matrices and their products: packed_matrix.h and linear.h.

essor_cc_library(NAME packed_matrix SRCS pack.cc HDRS nibble_values.h pack_layout.h ../packed_matrix.h
                 DEPS essor::check essor::float16 essor::float4 essor::float8)

set(linear_srcs expert_rows.cc linear.cc linear_kernels.cc linear_portable.cc moe.cc)
# No contraction of a * b + c by the compiler: which of two equal expressions it fuses depends on
# the code around it, and the same row must give the same bits from every instantiation.
set_source_files_properties(linear_portable.cc PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND linear_srcs linear_avx2.cc linear_avx512.cc)
  set_source_files_properties(linear_avx2.cc PROPERTIES COMPILE_OPTIONS
                              "-ffp-contract=off;-mavx2;-mfma;-mf16c")
  # g++ 12 and clang 14 know no -march of the processors that have all of these. g++ 12 takes the
  # deliberately undefined operands inside its own intrinsics for a mistake (GCC bug 105593).
  set_source_files_properties(
    linear_avx512.cc PROPERTIES COMPILE_OPTIONS
    "-ffp-contract=off;-mavx2;-mfma;-mf16c;-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vbmi;-mavx512bf16;-mavx512vnni;-Wno-uninitialized")
endif()
essor_cc_library(NAME linear SRCS ${linear_srcs} HDRS ../expert_rows.h ../linear.h linear_block_inl.h linear_bytes_inl.h linear_driver.h linear_kernels.h
                 linear_kernels_inl.h linear_multiply_inl.h linear_multiply_scaled_inl.h linear_panels_inl.h
                 DEPS essor::cpu_stream essor::linear_reference essor::packed_matrix essor::check essor::float16
                      essor::float4 essor::float8)

if(ESSOR_BUILD_TESTS)
  essor_cc_library(NAME linear_test_support SRCS linear_test_support.cc HDRS linear_test_support.h
                   DEPS essor::linear essor::float16 essor::float8)
endif()
essor_cc_test(NAME pack_test SRCS pack_test.cc
              DEPS essor::linear_test_support essor::float16 essor::float8)
essor_cc_test(NAME linear_test SRCS linear_test.cc
              DEPS essor::linear_test_support essor::linear_reference)
essor_cc_test(NAME linear_fp8_test SRCS linear_fp8_test.cc
              DEPS essor::linear_test_support essor::linear_reference essor::float8)
essor_cc_test(NAME expert_rows_test SRCS expert_rows_test.cc
              DEPS essor::linear_test_support essor::linear_reference essor::float16)
essor_cc_test(NAME moe_test SRCS moe_test.cc
              DEPS essor::linear_test_support essor::linear_reference)
