#include "lib/train/last_weights.h"

#include "base/error.h"
#include "base/stop_signal.h"
#include "lib/weights/convert.h"

namespace ratplus::train {
namespace {

/// Ranks wait without a limit as long as it lives: the root writes for minutes, 7b on a slow disk.
class NoTimeout {
 public:
  explicit NoTimeout(parallel::Watchdog& watchdog) : watchdog_(watchdog), before_(watchdog.timeout()) {
    watchdog_.set_timeout(parallel::Watchdog::no_timeout);
  }
  ~NoTimeout() { watchdog_.set_timeout(before_); }
  NoTimeout(const NoTimeout&) = delete;
  NoTimeout& operator=(const NoTimeout&) = delete;

 private:
  parallel::Watchdog& watchdog_;
  double before_;
};

}  // namespace

std::filesystem::path last_weights_file(const config::JobConfig& job) {
  return std::filesystem::path(job.job.directory) / "weights.safetensors";
}

std::optional<std::filesystem::path> export_last_weights(const config::JobConfig& job,
                                                         const parallel::World& world,
                                                         const std::function<void(std::int64_t)>& progress) {
  if (job.checkpoint.export_type == config::Export::none) return std::nullopt;
  const auto file = last_weights_file(job);
  world.watchdog().at("exporting", file.filename().string());
  const NoTimeout waits(world.watchdog());
  world.agree([&] {
    if (!world.root()) return;
    const auto source = weights::open_source(job.job.directory);
    const weights::ExportOptions options{
        .type = checkpoint::parse_stored_type(to_string(job.checkpoint.export_type), "checkpoint.export"),
        .force = true,
        .progress = [&](std::int64_t bytes) {
          if (StopSignal::received() != 0) {
            fail("{}: stopped by {} while it was written; --resume writes it", file.string(),
                 name_of_signal(StopSignal::received()));
          }
          if (progress) progress(bytes);
        }};
    weights::convert(*source, file, options);
  });
  return file;
}

}  // namespace ratplus::train
