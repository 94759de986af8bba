# SPDX-License-Identifier: Apache-2.0
include(CMakePackageConfigHelpers)
install(TARGETS halcyon halcyon_plots EXPORT halcyonTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET halcyon_nccl)
  install(TARGETS halcyon_nccl LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(TARGETS halcyon_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY halcyon DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
set(HALCYON_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/halcyon)
install(EXPORT halcyonTargets NAMESPACE halcyon:: DESTINATION ${HALCYON_PACKAGE_DIR})
configure_package_config_file(cmake/halcyonConfig.cmake.in halcyonConfig.cmake
  INSTALL_DESTINATION ${HALCYON_PACKAGE_DIR})
write_basic_package_version_file(halcyonConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/halcyonConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/halcyonConfigVersion.cmake cmake/FindLibTorch.cmake
        DESTINATION ${HALCYON_PACKAGE_DIR})
