// The defaults of a job that begins with weights: their model, and the attention pattern that they were trained with.
#pragma once

#include <optional>

#include "lib/checkpoint/manifest.h"
#include "lib/config/job.h"

namespace ratplus::session {

/// For config::load_job: the weights of the run's own newest checkpoint (checkpoint::newest_present), else those of job.from.
/// Throws Error where the latter cannot be read.
bool start_defaults(const config::JobConfig& given, config::JobConfig& job);

/// The pattern that weights were trained with last; empty where they do not say.
std::optional<model::PatternPlan> trained_pattern(const checkpoint::Info& info);

/// One line where weights that were adapted or fine-tuned with a pattern are used with another one; else empty.
std::string other_pattern_note(const checkpoint::Info& info, const model::PatternPlan& used);

}  // namespace ratplus::session
