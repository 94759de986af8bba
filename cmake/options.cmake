# SPDX-License-Identifier: Apache-2.0
# Compile options of our own code: warnings are errors, sanitizers on demand.
add_library(halcyon_options INTERFACE)
target_compile_options(halcyon_options INTERFACE -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor
  -Woverloaded-virtual -fopenmp)
target_link_options(halcyon_options INTERFACE -fopenmp)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(halcyon_options INTERFACE -fpch-preprocess -Winvalid-pch)
endif()
if(HALCYON_SANITIZE)
  # instrumented, g++ takes members of ATen's empty optionals for uninitialised
  target_compile_options(halcyon_options INTERFACE -fsanitize=${HALCYON_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(halcyon_options INTERFACE -fsanitize=${HALCYON_SANITIZE})
endif()
