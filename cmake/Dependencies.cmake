# Everything from Debian 12; jobs/setup.sh installs the packages. Header-only libraries may also lie in .deps/include.
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)

# Checksums of files and of zip archives' records.
find_path(LIBDEFLATE_INCLUDE libdeflate.h REQUIRED)
find_library(LIBDEFLATE_LIBRARY NAMES deflate REQUIRED)
add_library(ratplus_deflate INTERFACE)
target_include_directories(ratplus_deflate SYSTEM INTERFACE ${LIBDEFLATE_INCLUDE})
target_link_libraries(ratplus_deflate INTERFACE ${LIBDEFLATE_LIBRARY})

# MPI: the C interface only.
find_package(MPI REQUIRED COMPONENTS C)
add_library(ratplus_mpi INTERFACE)
target_link_libraries(ratplus_mpi INTERFACE MPI::MPI_C)
target_compile_definitions(ratplus_mpi INTERFACE OMPI_SKIP_MPICXX)

# BLAS: OpenBLAS in its OpenMP build, so that its threads and ours are the same ones.
find_path(OPENBLAS_INCLUDE cblas.h PATH_SUFFIXES openblas-openmp openblas x86_64-linux-gnu/openblas-openmp
                                                 x86_64-linux-gnu REQUIRED)
find_library(OPENBLAS_LIBRARY NAMES openblas
             PATHS /usr/lib/x86_64-linux-gnu/openblas-openmp /usr/lib/aarch64-linux-gnu/openblas-openmp REQUIRED)
add_library(ratplus_blas INTERFACE)
target_include_directories(ratplus_blas SYSTEM INTERFACE ${OPENBLAS_INCLUDE})
target_link_libraries(ratplus_blas INTERFACE ${OPENBLAS_LIBRARY})

# HDF5: the serial C library.
find_package(HDF5 REQUIRED COMPONENTS C)
add_library(ratplus_hdf5 INTERFACE)
target_include_directories(ratplus_hdf5 SYSTEM INTERFACE ${HDF5_INCLUDE_DIRS})
target_link_libraries(ratplus_hdf5 INTERFACE ${HDF5_LIBRARIES})

if(RATPLUS_STATIC_BOOST)
  set(Boost_USE_STATIC_LIBS ON)
endif()
find_package(Boost REQUIRED COMPONENTS program_options)

# Packed input, and zip archives.
find_package(ZLIB REQUIRED)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)

# JSON lines.
pkg_check_modules(SIMDJSON REQUIRED IMPORTED_TARGET simdjson)

# Regular expressions and Unicode normalization of tokenizer.json files.
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(ICU REQUIRED IMPORTED_TARGET icu-uc)

pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)

find_path(TOMLPLUSPLUS_INCLUDE toml++/toml.h PATHS ${CMAKE_SOURCE_DIR}/.deps/include REQUIRED)
add_library(ratplus_toml INTERFACE)
target_include_directories(ratplus_toml SYSTEM INTERFACE ${TOMLPLUSPLUS_INCLUDE})
