// A cluster as `ratplus check --json` has measured it.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "lib/plan/cluster.h"

namespace ratplus::plan {

/// The cluster of a check's "cluster" object: nodes, GPUs of a node, and rates of links where they were measured. `gpu`
/// becomes its kind at the measured rates of products and copies; the cluster points to it. Throws Error for a kind that
/// is not known, CPUs among them, and for an object that is no check's.
Cluster measured_cluster(const nlohmann::ordered_json& check, Gpu& gpu);

}  // namespace ratplus::plan
