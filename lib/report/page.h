// The report as one self-contained HTML page.
#pragma once

#include <ctime>
#include <string>
#include <vector>

#include "lib/report/job_settings.h"
#include "lib/report/metrics_reader.h"

namespace ratplus::report {

/// Progress of the runs, their curves, final losses, and settings with what differs between them. The page needs no
/// network and no script (with one, it shows values under the pointer), is well-formed as XML too, and its size is
/// bounded by the number of runs. `jobs` are the runs' in order; `made` is the time that the page names; `lead` is
/// HTML, well-formed as XML, that comes first.
std::string make_page(const std::vector<RunMetrics>& runs, const std::vector<JobSettings>& jobs,
                      std::time_t made, const std::string& lead = {});

}  // namespace ratplus::report
