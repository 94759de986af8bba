# SPDX-License-Identifier: Apache-2.0
# LibTorch out of the PyPI wheel. Torch's own CMake package demands a CUDA toolkit when the wheel was
# built with CUDA; Halcyon needs none, so the few targets that it links are declared here.
#   LibTorch::cpu      c10 + libtorch_cpu (CUDA is loaded at run time, when a device asks for it)
#   LibTorch::python   libtorch_python, for the extension module
#   LibTorch_VERSION, LibTorch_LIBRARY_DIR, LibTorch_SITE_PACKAGES
set(_hints "${LibTorch_ROOT}" "$ENV{LibTorch_ROOT}")
file(GLOB _venv "${CMAKE_SOURCE_DIR}/.venv/lib/python3.*/site-packages/torch")
list(APPEND _hints ${_venv})
find_path(LibTorch_DIR_ROOT NAMES version.py PATHS ${_hints} NO_DEFAULT_PATH)
find_library(LibTorch_CPU_LIBRARY torch_cpu PATHS "${LibTorch_DIR_ROOT}/lib" NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 PATHS "${LibTorch_DIR_ROOT}/lib" NO_DEFAULT_PATH)
find_library(LibTorch_PYTHON_LIBRARY torch_python PATHS "${LibTorch_DIR_ROOT}/lib" NO_DEFAULT_PATH)
if(LibTorch_DIR_ROOT)
  file(STRINGS "${LibTorch_DIR_ROOT}/version.py" _line REGEX "^__version__")
  string(REGEX REPLACE ".*'([0-9.]+).*" "\\1" LibTorch_VERSION "${_line}")
  set(LibTorch_LIBRARY_DIR "${LibTorch_DIR_ROOT}/lib")
  get_filename_component(LibTorch_SITE_PACKAGES "${LibTorch_DIR_ROOT}" DIRECTORY)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY
                                  VERSION_VAR LibTorch_VERSION)
if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
  find_package(Threads REQUIRED)
  # The wheel carries headers of another fmt; the system's, which our libraries were built with, goes first.
  set(_shim "${CMAKE_BINARY_DIR}/system-headers")
  file(MAKE_DIRECTORY "${_shim}")
  find_path(_fmt_include fmt/format.h PATHS /usr/include NO_DEFAULT_PATH REQUIRED)
  file(CREATE_LINK "${_fmt_include}/fmt" "${_shim}/fmt" SYMBOLIC)
  add_library(LibTorch::c10 SHARED IMPORTED)
  set_target_properties(LibTorch::c10 PROPERTIES IMPORTED_LOCATION "${LibTorch_C10_LIBRARY}")
  add_library(LibTorch::cpu SHARED IMPORTED)
  set_target_properties(LibTorch::cpu PROPERTIES
    IMPORTED_LOCATION "${LibTorch_CPU_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES
      "${_shim};${LibTorch_DIR_ROOT}/include;${LibTorch_DIR_ROOT}/include/torch/csrc/api/include"
    INTERFACE_LINK_LIBRARIES "LibTorch::c10;Threads::Threads"
    # libtorch_cpu finds the CUDA runtime of the nvidia wheels by its own RPATH
    INTERFACE_LINK_OPTIONS "LINKER:--allow-shlib-undefined;LINKER:-rpath,${LibTorch_LIBRARY_DIR}")
  add_library(LibTorch::python SHARED IMPORTED)
  set_target_properties(LibTorch::python PROPERTIES
    IMPORTED_LOCATION "${LibTorch_PYTHON_LIBRARY}" INTERFACE_LINK_LIBRARIES LibTorch::cpu)
endif()
