# Matrix products.
essor_cc_library(NAME linear_reference SRCS linear_reference.cc HDRS linear_reference.h
                 DEPS essor::packed_matrix essor::float16)
