# SPDX-License-Identifier: Apache-2.0
find_package(GTest REQUIRED)

# halcyon_test(NAME x SOURCES a.cpp b.cpp [LABELS large]): one executable test_x, one ctest entry.
# Counts come from the JSON file that googletest writes for each (tools/run_tests.py).
function(halcyon_test)
  cmake_parse_arguments(T "" "NAME" "SOURCES;LABELS;LIBS" ${ARGN})
  add_executable(test_${T_NAME} ${T_SOURCES})
  target_link_libraries(test_${T_NAME} PRIVATE halcyon halcyon_options halcyon_test_support GTest::gtest_main ${T_LIBS})
  target_precompile_headers(test_${T_NAME} REUSE_FROM halcyon_pch)
  if(HALCYON_SANITIZE STREQUAL "thread")
    target_sources(test_${T_NAME} PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/tsan_openmp.cpp)
    target_link_options(test_${T_NAME} PRIVATE -rdynamic)
  endif()
  add_test(NAME ${T_NAME} COMMAND test_${T_NAME}
    --gtest_output=json:${CMAKE_BINARY_DIR}/test-results/${T_NAME}.json)
  set_tests_properties(${T_NAME} PROPERTIES LABELS "${T_LABELS}" TIMEOUT 900)
endfunction()
