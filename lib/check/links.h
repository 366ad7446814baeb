// Rates of the links between ranks, by the job's own collectives.
#pragma once

#include "kernels/ops.h"
#include "lib/check/quantities.h"
#include "lib/config/job.h"
#include "parallel/world.h"

namespace ratplus::check {

/// Bytes a second that this rank sends, in gathers of weights and reduce-scatters of gradients as large as those of the
/// job's largest block (of a part of it where a block takes above 1.5 s): with one other rank of its host (each in turn with two neighbours: the faster), with all of its
/// host at once, and with the same place on another host (likewise), all ranks at the same time. By all ranks together;
/// what has no partner stays empty.
void measure_links(Ops& ops, const config::JobConfig& job, const parallel::World& world, Values& values);

}  // namespace ratplus::check
