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
    if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
      add_compile_options(-fsanitize-ignorelist=${CMAKE_CURRENT_LIST_DIR}/ubsan_ignorelist.txt)
    endif()
  endif()
endif()

# Fuzz targets steer by the coverage of the libraries, so these are instrumented, too.
if(ESSOR_BUILD_FUZZERS)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# Debian's Abseil is not instrumented: ThreadSanitizer learns what its mutex orders from
# common/tsan_absl_mutex.cc, which every test and binary of ours links (see EssorTargets.cmake).
if(ESSOR_SANITIZE STREQUAL "thread")
  set(ESSOR_TSAN_WRAPPED
      _ZN4absl7debian35Mutex4LockEv
      _ZN4absl7debian35Mutex10ReaderLockEv
      _ZN4absl7debian35Mutex6UnlockEv
      _ZN4absl7debian35Mutex12ReaderUnlockEv
      _ZN4absl7debian35Mutex7TryLockEv
      _ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE
      _ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE
      _ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE
      _ZN4absl7debian37CondVar4WaitEPNS0_5MutexE
      _ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE
      _ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE
      _ZN4absl7debian312Notification6NotifyEv
      _ZNK4absl7debian312Notification19WaitForNotificationEv
      _ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE)
  foreach(symbol ${ESSOR_TSAN_WRAPPED})
    add_link_options(-Wl,--wrap=${symbol})
  endforeach()
endif()

# Release hardening. -D_FORTIFY_SOURCE needs optimisation.
if(CMAKE_BUILD_TYPE MATCHES "Release|RelWithDebInfo" AND NOT ESSOR_SANITIZE)
  add_compile_options(-fstack-protector-strong -D_FORTIFY_SOURCE=2)
  add_link_options(-Wl,-z,relro,-z,now)
endif()
