// Check: whether the machine that a job is started on is in order, in less than a minute, before a long run.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lib/check/report.h"
#include "lib/config/job.h"
#include "parallel/world.h"

namespace ratplus::check {

/// Measures, on all ranks of the job at once, the rates of their devices and links, of the checkpoint directory and of the
/// data, and asks the hosts for clocks, memory, limits, errors and versions. By all ranks together; the reports of all, on
/// all. A quantity that a rank cannot measure is not told, or a problem of it; a device that is not there is an Error, on
/// all ranks alike. A rank that hangs is reported by the watchdog. `program`: versions of the program itself; `seconds`: of each
/// measurement of a directory, at most; `phase` is
/// called with the name of each part before it begins.
std::vector<RankReport> check_job(const config::JobConfig& job, const parallel::World& world,
                                  const std::map<std::string, std::string>& program, double seconds,
                                  const std::function<void(const std::string&)>& phase);

}  // namespace ratplus::check
