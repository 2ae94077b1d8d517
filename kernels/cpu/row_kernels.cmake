# Elementwise operations, attention, routing and sampling: elementwise.h, attention.h,
# index_selection.h, latent_attention.h, linear_attention.h, memory_copy.h, routing.h, sampling.h.

set(row_srcs attention.cc attention_driver.cc attention_portable.cc elementwise.cc
             index_selection.cc latent_attention.cc linear_attention.cc
             linear_attention_portable.cc local_sampling.cc memory_copy.cc routing.cc
             row_kernels.cc row_kernels_portable.cc)
# No contraction of a * b + c by the compiler: what it fuses depends on the code around, and the
# same row must give the same bits from every instantiation.
set_source_files_properties(attention_portable.cc linear_attention_portable.cc local_sampling.cc
                            row_kernels_portable.cc PROPERTIES
                            COMPILE_OPTIONS "-ffp-contract=off")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND row_srcs attention_avx2.cc attention_avx512.cc linear_attention_avx2.cc
                       linear_attention_avx512.cc row_kernels_avx2.cc
                       row_kernels_avx512.cc)
  set_source_files_properties(attention_avx2.cc linear_attention_avx2.cc row_kernels_avx2.cc PROPERTIES COMPILE_OPTIONS
                              "-ffp-contract=off;-mavx2;-mfma;-mf16c")
  # g++ 12 takes the deliberately undefined operands inside its own AVX-512 intrinsics for mistakes
  # of ours (GCC bug 105593).
  set_source_files_properties(
    attention_avx512.cc linear_attention_avx512.cc row_kernels_avx512.cc PROPERTIES COMPILE_OPTIONS
    "-ffp-contract=off;-mavx2;-mfma;-mf16c;-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-Wno-uninitialized")
endif()
essor_cc_library(NAME row_kernels SRCS ${row_srcs}
                 HDRS ../attention.h ../elementwise.h ../index_selection.h ../latent_attention.h
                      ../linear_attention.h ../memory_copy.h ../routing.h
                 DEPS essor::attention_temperature essor::cpu_stream essor::float8 essor::kv_type
                      essor::row_reference essor::sampling essor::check)

essor_cc_test(NAME elementwise_test SRCS elementwise_test.cc
              DEPS essor::row_kernels essor::rope_table essor::packed_matrix)
essor_cc_test(NAME memory_copy_test SRCS memory_copy_test.cc DEPS essor::row_kernels)
essor_cc_test(NAME layer_norm_test SRCS layer_norm_test.cc DEPS essor::row_kernels)
essor_cc_test(NAME routing_test SRCS routing_test.cc DEPS essor::row_kernels)
essor_cc_test(NAME sampling_test SRCS sampling_test.cc DEPS essor::row_kernels essor::sampling)
essor_cc_test(NAME filtered_sampling_test SRCS filtered_sampling_test.cc
              DEPS essor::row_kernels essor::sampling)
essor_cc_test(NAME logit_adjustment_test SRCS logit_adjustment_test.cc DEPS essor::row_kernels)
essor_cc_test(NAME index_selection_test SRCS index_selection_test.cc DEPS essor::row_kernels)
essor_cc_test(NAME latent_attention_test SRCS latent_attention_test.cc
              DEPS essor::row_kernels essor::float16)
essor_cc_test(NAME attention_test SRCS attention_test.cc DEPS essor::row_kernels essor::float16)
essor_cc_test(NAME linear_attention_test SRCS linear_attention_test.cc DEPS essor::row_kernels)
essor_cc_test(NAME quantised_cache_test SRCS quantised_cache_test.cc
              DEPS essor::row_kernels essor::float16 essor::float8)
