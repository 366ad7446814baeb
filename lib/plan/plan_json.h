// A plan as JSON, as `ratplus plan --json` writes it.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "lib/plan/plan.h"

namespace ratplus::plan {

/// Seconds, bytes, operations and tokens; of a plan that does not fit its memory, the memory and the way to fit alone.
nlohmann::ordered_json to_json(const Plan& plan, const Cluster& cluster);

}  // namespace ratplus::plan
