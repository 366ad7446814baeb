#include "lib/train/not_finite.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/error.h"
#include "base/files/new_directories.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"

namespace ratplus::train {
namespace {

using Json = nlohmann::ordered_json;

/// JSON has no NaN and no infinity: their names.
Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json(fmt::format("{}", value));
}

/// Which rank has sequence `in_batch` of a step's batch (BatchShape).
int rank_of(std::int64_t in_batch, const data::BatchShape& shape) {
  return static_cast<int>(in_batch / shape.micro_batch % shape.ranks);
}

/// With the digits that a step's line in the log has.
std::string digits(double value) {
  return fmt::format("{:.5g}", value);
}

}  // namespace

SkipLimit::SkipLimit(const config::HealthSection& health, std::size_t updates)
    : most_(health.not_finite == config::NotFinite::skip ? health.max_skips : 1), skipped_(updates, 0) {}

bool SkipLimit::stops(std::size_t number, bool updated) {
  auto& skipped = skipped_[number];
  const auto now = updated ? 0 : skipped + 1;
  if (now >= most_) return true;
  skipped = now;
  return false;
}

std::vector<std::int64_t> SkipLimit::in_a_row() const {
  const bool any = std::ranges::any_of(skipped_, [](std::int64_t count) { return count > 0; });
  return any ? skipped_ : std::vector<std::int64_t>();
}

void SkipLimit::resume(std::span<const std::int64_t> in_a_row) {
  std::ranges::fill(skipped_, 0);
  std::ranges::copy(in_a_row.first(std::min(in_a_row.size(), skipped_.size())), skipped_.begin());
}

std::filesystem::path not_finite_file(const std::filesystem::path& run, const NotFiniteUpdate& update) {
  return run / "not-finite" / fmt::format("step-{:08}-update-{}.json", update.step, update.number + 1);
}

void write_not_finite(const std::filesystem::path& run, const NotFiniteUpdate& update,
                      const data::BatchShape& shape, data::Samples& samples) {
  Json ranks = Json::array();
  for (std::size_t r = 0; r < update.hosts.size(); ++r) {
    ranks.push_back({{"rank", r}, {"host", update.hosts[r]}, {"loss_sum", number(update.loss_sums[r])}});
  }
  Json batch = Json::array();
  const auto first = (update.step - 1) * shape.batch;
  for (std::int64_t i = 0; i < shape.batch; ++i) {
    const auto place = samples.origin(first + i);
    batch.push_back({{"index", first + i},
                     {"rank", rank_of(i, shape)},
                     {"source", place.source.string()},
                     {"first", place.first}});
  }
  const Json record = {{"step", update.step},
                       {"update", update.number + 1},
                       {"pattern", update.pattern},
                       {"loss", number(update.loss)},
                       {"gradient_norm", number(update.gradient_norm)},
                       {"learning_rate", update.learning_rate},
                       {"ranks", std::move(ranks)},
                       {"samples", std::move(batch)}};
  const auto file = not_finite_file(run, update);
  NewDirectories(file.parent_path()).keep();
  write_whole_file(file, json_dump(record, 1) + '\n');
}

std::string describe(const std::filesystem::path& run, const NotFiniteUpdate& update,
                     const data::BatchShape& shape, const std::string& not_listed) {
  const auto first = (update.step - 1) * shape.batch;
  return fmt::format(
      "step {} ({}): loss {} and gradient norm {} are not both finite, so no update was made; the batch's "
      "samples, {} to {}, {}",
      update.step, update.pattern, digits(update.loss), digits(update.gradient_norm), first,
      first + shape.batch - 1,
      not_listed.empty() ? "are listed in " + not_finite_file(run, update).string()
                         : fmt::format("could not be listed ({})", not_listed));
}

}  // namespace ratplus::train
