# A script: writes HEADER with the git revision of SOURCE, and whether tracked files differ from it; "unknown" where
# SOURCE is no git checkout (a tarball, also one that lies inside another checkout) or git is missing. The file is left
# alone where it says so already.
set(revision unknown)
set(modified false)
find_program(GIT git)
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE} rev-parse --show-toplevel RESULT_VARIABLE failed OUTPUT_VARIABLE top
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  file(REAL_PATH ${SOURCE} source)
  if(NOT failed AND top STREQUAL source)
    execute_process(COMMAND ${GIT} -C ${SOURCE} rev-parse --verify HEAD RESULT_VARIABLE failed OUTPUT_VARIABLE head
                    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(NOT failed)
      set(revision ${head})
      # Without taking the lock of the index, which somebody else's git may want just now.
      execute_process(COMMAND ${GIT} --no-optional-locks -C ${SOURCE} status --porcelain --untracked-files=no
                      OUTPUT_VARIABLE changes OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      if(NOT changes STREQUAL "")
        set(modified true)
      endif()
    endif()
  endif()
endif()

set(text "// Made by cmake/Revision.cmake.
#pragma once

#define RATPLUS_REVISION \"${revision}\"
#define RATPLUS_MODIFIED ${modified}
")
set(before "")
if(EXISTS ${HEADER})
  file(READ ${HEADER} before)
endif()
if(NOT text STREQUAL before)
  file(WRITE ${HEADER} "${text}")
endif()
