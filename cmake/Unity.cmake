option(RATPLUS_UNITY "Compile the sources of tests five at a time" ON)

# ratplus_unity(TARGET [APART file ...]): TARGET's sources are compiled five at a time, each APART alone: it has a file-local
# name that another has, too. Five files take half to seven tenths of the time that they take alone; a change of one compiles
# four others again, which takes 4 to 10 seconds of a compiler: RATPLUS_UNITY=OFF where one test is worked on.
function(ratplus_unity target)
  cmake_parse_arguments(ARG "" "" "APART" ${ARGN})
  if(RATPLUS_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 5)
    set_source_files_properties(${ARG_APART} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endfunction()
