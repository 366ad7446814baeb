// Which program this is: for `ratplus --version`, and for the record of every run.
#pragma once

#include "lib/run/run_record.h"

namespace ratplus::apps {

/// Version, revision and build of this program.
run::ProgramRecord this_program();

/// The versions of this program and of its libraries at run time.
void print_version();

}  // namespace ratplus::apps
