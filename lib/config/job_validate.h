// Checks of a whole job: relations between its keys.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "lib/config/job.h"

namespace ratplus::config {

/// The place of a key for a message: "configs/pretrain/1b.toml:12", "--set data.batch=10", or the file alone.
using PlaceOf = std::function<std::string(std::string_view key)>;

/// Throws Error for a combination of keys that no run could have.
void validate_job(const JobConfig& job, const PlaceOf& place_of);

}  // namespace ratplus::config
