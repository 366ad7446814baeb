#include "lib/session/session_parts.h"

#include <fmt/core.h>

#include <utility>

#include "base/units.h"
#include "lib/model/parameters.h"

namespace ratplus::session {

SessionParts::SessionParts(const SessionSettings& settings, Ops& ops, const parallel::MeshGroups& groups,
                           SumOverRanks sum_over_ranks, parallel::Watchdog& watchdog, Arena& arena)
    : sum(std::move(sum_over_ranks)) {
  store = std::make_unique<parallel::ParameterStore>(ops, groups, model::unit_layouts(settings.model),
                                                     settings.parallel, settings.use, watchdog, arena);
  if (settings.use == parallel::Use::training) {
    optimizer = std::make_unique<optim::Optimizer>(settings.optimizer, ops, watchdog, *store, arena);
  }
  model = std::make_unique<model::Model>(settings.model, settings.shapes, settings.use, ops, *store, arena);
  arena.category("scratch");
  scratch = arena.allocate(DType::u8, {ops.scratch_bytes(settings.shapes.ops(settings.model))});
}

std::string describe_memory(const Arena& arena) {
  std::string parts;
  for (const auto& entry : arena.plan()) {
    parts += fmt::format("{}{} {:.1f}", parts.empty() ? "" : ", ", entry.category, gib(entry.bytes));
  }
  return parts;
}

std::vector<SessionSettings> smaller(const SessionSettings& settings) {
  using model::Recompute;
  std::vector<SessionSettings> result;
  auto base = settings;
  base.parallel.keep_weights = false;
  if (settings.parallel.keep_weights) result.push_back(base);
  for (const auto recompute : {Recompute::none, Recompute::cheap, Recompute::block}) {
    for (auto batch = settings.shapes.batch; batch >= 1; --batch) {
      if (settings.shapes.batch % batch != 0) continue;  // what divides the batch still does
      auto next = base;
      next.shapes.batch = batch;
      next.shapes.recompute = recompute;
      const bool less = batch < settings.shapes.batch || recompute > settings.shapes.recompute;
      const bool useful = settings.use == parallel::Use::training || recompute == Recompute::none;
      if (less && useful) result.push_back(next);
    }
  }
  return result;
}

std::string way_to_fit(const SessionSettings& settings, std::int64_t available,
                       const std::function<std::int64_t(const SessionSettings&)>& bytes_of) {
  for (const auto& candidate : smaller(settings)) {
    const auto bytes = bytes_of(candidate);
    if (bytes > available) continue;
    const auto way =
        settings.use == parallel::Use::training
            ? fmt::format("data.micro_batch = {} with job.recompute = \"{}\"{} fits", candidate.shapes.batch,
                          to_string(candidate.shapes.recompute),
                          settings.parallel.keep_weights ? " and parallel.keep_weights = false" : "")
            : fmt::format("a micro-batch of {} (--micro-batch) fits", candidate.shapes.batch);
    return fmt::format("{} ({:.1f} GiB)", way, gib(bytes));
  }
  return "";
}

}  // namespace ratplus::session
