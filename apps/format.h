// Numbers as people read them: those of reports, in this room too.
#pragma once

#include "lib/report/format.h"

namespace ratplus::apps {

using report::format_bytes;
using report::format_count;
using report::format_duration;
using report::format_fixed;
using report::format_interval;
using report::format_rate;
using report::format_seconds;

}  // namespace ratplus::apps
