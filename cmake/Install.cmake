# cmake --install, and packages by CPack: a relocatable archive (TGZ) and a Debian package (DEB).
#
#   PREFIX/bin/ratplus
#   PREFIX/lib/ratplus/        Apache Arrow, where it is that of .deps
#   PREFIX/share/ratplus/      configs/, jobs/ (batch jobs, launchers), ratplus.def (a container)
#   PREFIX/share/modulefiles/  a module file for Lmod and Environment Modules
#   PREFIX/share/man/man1/, share/bash-completion/, share/zsh/, share/fish/: of the program's own options
#   PREFIX/share/doc/ratplus/  documentation
#
# Nothing of it holds PREFIX: the tree may be moved.
include(GNUInstallDirs)
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)  # the program alone: cpack builds no tests

install(TARGETS ratplus RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
# Libraries outside of Debian's directories are found by the paths that the program was linked with.
if(RATPLUS_WITH_CUDA OR NOT "${MPI_C_LIBRARIES}" MATCHES "^/usr/")
  set_target_properties(ratplus PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
endif()
# Apache Arrow of .deps goes along.
if(RATPLUS_WITH_PARQUET AND NOT Parquet_FOUND)
  install(FILES ${parquet_library} ${arrow_library} DESTINATION lib/ratplus)
  set_target_properties(ratplus PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/ratplus")
endif()

install(DIRECTORY configs DESTINATION share/ratplus)
set(ratplus_scripts jobs/mpirun.sh jobs/reproduce.sh jobs/container.sh jobs/slurm/chain.sh jobs/slurm/ruler_chain.sh jobs/slurm/reproduce_chain.sh
                    jobs/evaluate/commonsense.sh jobs/evaluate/longbench.sh jobs/evaluate/ruler.sh)
foreach(script IN LISTS ratplus_scripts)
  cmake_path(GET script PARENT_PATH directory)
  install(PROGRAMS ${script} DESTINATION share/ratplus/${directory})
endforeach()
install(FILES jobs/common.sh jobs/phases.sh jobs/README.md DESTINATION share/ratplus/jobs)
install(DIRECTORY jobs/slurm DESTINATION share/ratplus/jobs FILES_MATCHING PATTERN "batch.sh" PATTERN "parts.sh")
install(DIRECTORY jobs/slurm DESTINATION share/ratplus/jobs
        FILE_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE
        FILES_MATCHING PATTERN "*.sbatch")

set(RATPLUS_REQUIRED_MODULES "" CACHE STRING "Modules that the module file loads before, such as openmpi/4.1 cuda/12.8")
configure_file(packaging/modulefile.in ${CMAKE_BINARY_DIR}/modulefile @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/modulefile DESTINATION share/modulefiles/ratplus RENAME ${PROJECT_VERSION})
install(FILES packaging/ratplus.def DESTINATION share/ratplus)

install(FILES README.md DESTINATION share/doc/ratplus)
install(DIRECTORY docs/ DESTINATION share/doc/ratplus/docs FILES_MATCHING PATTERN "*.md" PATTERN "*.svg")
install(FILES packaging/copyright DESTINATION share/doc/ratplus)

set(RATPLUS_PACKAGER "ratplus <root@localhost>" CACHE STRING "Maintainer of the Debian package, as Name <address>")
configure_file(packaging/changelog.in ${CMAKE_BINARY_DIR}/changelog @ONLY)

# The program writes its own pages and completions.
install(CODE "set(ratplus_program \"$<TARGET_FILE:ratplus>\")
set(ratplus_made \"${CMAKE_BINARY_DIR}/made-by-ratplus\")
set(ratplus_changes \"${CMAKE_BINARY_DIR}/changelog\")")
install(SCRIPT ${CMAKE_SOURCE_DIR}/cmake/InstallPages.cmake)

set(CPACK_GENERATOR "TGZ;DEB")
set(CPACK_PACKAGE_VENDOR "ratplus")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "distributed training of RAT+ language models over MPI")
set(CPACK_PACKAGE_DESCRIPTION
    "RAT+ is a transformer whose attention is augmented by a gated linear\n\
recurrence. ratplus pretrains such models on MPI ranks, adapts them to\n\
sparse attention patterns, evaluates and serves them.")
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_INSTALL_DIRECTORY ratplus)
set(ratplus_kind "")
if(RATPLUS_WITH_CUDA)
  string(APPEND ratplus_kind "-cuda")
endif()
if(RATPLUS_NATIVE)
  string(APPEND ratplus_kind "-native")  # for processors like the one that built it
endif()
set(CPACK_PACKAGE_FILE_NAME ratplus-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}${ratplus_kind})
# Debian's package lies in /usr; the archive in a directory of its name.
set(CPACK_PACKAGING_INSTALL_PREFIX "")
set(CPACK_DEBIAN_PACKAGE_NAME ratplus)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "${RATPLUS_PACKAGER}")
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libopenblas0-openmp")  # of the libraries that provide libopenblas0
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "openmpi-bin")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "slurm-client, environment-modules | lmod")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_PROJECT_CONFIG_FILE ${CMAKE_SOURCE_DIR}/cmake/PackageKinds.cmake)
include(CPack)
