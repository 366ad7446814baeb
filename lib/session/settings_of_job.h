// The settings of a session and of each step, from a job.
#pragma once

#include <string>
#include <vector>

#include "lib/config/job.h"
#include "lib/optim/schedule.h"
#include "lib/session/session_parts.h"

namespace ratplus::session {

/// One update of a step: its pattern.
struct Update {
  std::string name;
  model::PatternPlan pattern;
};
/// The updates that a job's recipe makes on each batch, in order.
std::vector<Update> updates(const config::JobConfig& job);
/// The learning rates that a job asks for; its steps are to be known (complete_schedule).
optim::Schedule schedule_of(const config::JobConfig& job);
/// The settings of a job's session.
SessionSettings session_settings(const config::JobConfig& job);

}  // namespace ratplus::session
