// Work on the lines of a file, with a progress line and an end in order.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "lib/generate/line_work.h"

namespace ratplus::apps {

/// generate::do_lines with a progress line of the root ("generating: 12 of 500 lines, ..."), and the exit status: 0, or
/// exit_interrupted where a StopSignal ended it, with a message on how to go on.
int do_lines_with_progress(const generate::LineJob& job, generate::LineWorker& worker,
                           const parallel::World& world, const char* verb,
                           const std::function<void(const nlohmann::ordered_json&)>& each);

}  // namespace ratplus::apps
