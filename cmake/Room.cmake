# ratplus_room(DIR [SEES room ...] [LIBRARIES lib ...] [PRIVATE lib ...] [SOURCES file ...] [WITHOUT file ...] [APART file ...] [LIGHT]
# [LOOPS] [FUZZED] [OWN_FLAGS]): the sources of one directory as a static library, ratplus_DIR with _ for /. It is compiled with the
# headers of its own and of the rooms that it sees, and with no others: each room's headers are linked into a directory of their
# own. An include of a room above does not compile; tests/house reads the same list. SOURCES come beside the directory's own
# *.cpp; WITHOUT leaves some of those out; LIBRARIES show in headers; APART sources have helpers of
# another's name, and are compiled alone where tests/lint.sh and tests/run.sh --sanitize and --unity compile the others as one. LIGHT: nothing in it takes time but to compile, so
# that a release has it at -O1. LOOPS: tests spend their time in it, so that a build with sanitizers has it at -O1, and the others
# at -O0. FUZZED: tests/fuzz feeds it, so that a build with clang's sanitizers has it at -O1 and counts its branches for
# libFuzzer. OWN_FLAGS: the room is compiled with more flags, and without precompiled headers.
define_property(GLOBAL PROPERTY RATPLUS_ROOMS BRIEF_DOCS "room:seen,seen" FULL_DOCS "each room and those that it sees")

if(NOT RATPLUS_SANITIZE)
  set(RATPLUS_LIGHT $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>)
endif()

# ratplus_link_headers(DIR VARIABLE): the directory to include, in which DIR/*.h alone are found.
function(ratplus_link_headers dir variable)
  string(REPLACE "/" "_" name ${dir})
  set(root ${CMAKE_BINARY_DIR}/rooms/${name})
  file(GLOB headers CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/${dir}/*.h
       ${CMAKE_SOURCE_DIR}/${dir}/cpu/*.h ${CMAKE_SOURCE_DIR}/${dir}/cuda/*.h ${CMAKE_SOURCE_DIR}/${dir}/cuda/*.cuh)
  file(REMOVE_RECURSE ${root})
  foreach(header IN LISTS headers)
    cmake_path(GET header PARENT_PATH parent)
    file(MAKE_DIRECTORY ${root}/${parent})
    file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${header} ${root}/${header} SYMBOLIC)
  endforeach()
  set(${variable} ${root} PARENT_SCOPE)
endfunction()

function(ratplus_room dir)
  cmake_parse_arguments(ARG "LIGHT;LOOPS;FUZZED;OWN_FLAGS" "" "SEES;LIBRARIES;PRIVATE;SOURCES;WITHOUT;APART" ${ARGN})
  string(REPLACE "/" "_" name ${dir})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*.cpp)
  foreach(file IN LISTS ARG_WITHOUT)
    list(REMOVE_ITEM sources ${CMAKE_SOURCE_DIR}/${dir}/${file})
  endforeach()
  foreach(file IN LISTS ARG_SOURCES)
    cmake_path(ABSOLUTE_PATH file BASE_DIRECTORY ${CMAKE_SOURCE_DIR}/${dir})
    list(APPEND sources ${file})
  endforeach()
  add_library(ratplus_${name} STATIC ${sources})
  list(TRANSFORM ARG_APART PREPEND ${CMAKE_SOURCE_DIR}/${dir}/)
  set_source_files_properties(${ARG_APART} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  if(ARG_LIGHT)
    target_compile_options(ratplus_${name} PRIVATE ${RATPLUS_LIGHT})
  endif()
  if(RATPLUS_SANITIZE AND (ARG_LOOPS OR ARG_FUZZED))
    target_compile_options(ratplus_${name} PRIVATE -O1)
    set(ARG_OWN_FLAGS ON)
  endif()
  if(RATPLUS_FUZZERS AND ARG_FUZZED)
    target_compile_options(ratplus_${name} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
  if(NOT ARG_OWN_FLAGS AND COMMAND ratplus_use_precompiled)
    ratplus_use_precompiled(ratplus_${name} ratplus_headers)
  endif()
  ratplus_link_headers(${dir} headers)
  target_include_directories(ratplus_${name} PUBLIC ${headers})
  set(seen "")
  foreach(room IN LISTS ARG_SEES)
    string(REPLACE "/" "_" target ${room})
    list(APPEND seen ratplus_${target})
  endforeach()
  target_link_libraries(ratplus_${name} PUBLIC ratplus_options ${seen} ${ARG_LIBRARIES} PRIVATE ${ARG_PRIVATE})
  string(REPLACE ";" "," sees "${ARG_SEES}")
  set_property(GLOBAL APPEND PROPERTY RATPLUS_ROOMS "${dir}:${sees}")
endfunction()
