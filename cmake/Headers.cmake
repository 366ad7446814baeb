# ratplus_precompile(NAME LIBRARIES lib ... HEADERS <header> ...): compiles headers of others once, under the flags that the
# caller's directory and LIBRARIES give. ratplus_use_precompiled(TARGET NAME): TARGET's C++ sources start from them; its flags
# must be the same, or the compiler refuses. A source still includes all that it uses: tests/lint.sh compiles without
# (CMAKE_DISABLE_PRECOMPILE_HEADERS).
function(ratplus_precompile name)
  cmake_parse_arguments(ARG "" "" "LIBRARIES;HEADERS" ${ARGN})
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp CONTENT "")
  add_library(${name} OBJECT ${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp)
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES})
  set(headers ${ARG_HEADERS})
  list(TRANSFORM headers REPLACE "(.+)" "$<$<COMPILE_LANGUAGE:CXX>:<\\1$<ANGLE-R>>")
  target_precompile_headers(${name} PRIVATE ${headers})
endfunction()

function(ratplus_use_precompiled target name)
  if(TARGET ${name} AND NOT CMAKE_DISABLE_PRECOMPILE_HEADERS)
    target_precompile_headers(${target} REUSE_FROM ${name})
    # Out of precompiled headers, GCC counts its false alarms inside std::string (GCC's bug 105651) as ours.
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread>)
  endif()
endfunction()

# ccache keeps what was compiled with precompiled headers only where it is told that neither their macros nor their times
# matter.
foreach(language C CXX)
  if(CMAKE_${language}_COMPILER_LAUNCHER MATCHES "(^|/)ccache$")
    list(PREPEND CMAKE_${language}_COMPILER_LAUNCHER env CCACHE_SLOPPINESS=pch_defines,time_macros)
  endif()
endforeach()

# Includes of most sources, by the seconds of a compiler that they take: 0.4 of 0.7 to 2.
set(RATPLUS_COMMON_HEADERS
    fmt/core.h algorithm array cmath cstdint cstring filesystem fstream functional limits memory optional span string
    string_view utility vector)
