# Compiler settings that hold for every target of ours: warnings are errors, ccache where it is
# installed, sanitizers by ESSOR_SANITIZE.

find_program(ESSOR_CCACHE ccache)
if(ESSOR_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${ESSOR_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${ESSOR_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${ESSOR_CCACHE})
endif()

set(ESSOR_WARNINGS -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  list(APPEND ESSOR_WARNINGS -Wthread-safety)
else()
  # g++ 12 reports these inside its own standard library when inlining (GCC bugs 105329, 105562).
  list(APPEND ESSOR_WARNINGS -Wno-restrict -Wno-maybe-uninitialized)
endif()

if(ESSOR_SANITIZE)
  add_compile_options(-fsanitize=${ESSOR_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${ESSOR_SANITIZE})
  if(ESSOR_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()

# Release hardening. -D_FORTIFY_SOURCE needs optimisation.
if(CMAKE_BUILD_TYPE MATCHES "Release|RelWithDebInfo" AND NOT ESSOR_SANITIZE)
  add_compile_options(-fstack-protector-strong -D_FORTIFY_SOURCE=2)
  add_link_options(-Wl,-z,relro,-z,now)
endif()
