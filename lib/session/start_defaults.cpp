#include "lib/session/start_defaults.h"

#include <fmt/core.h>

#include "lib/checkpoint/checkpoint.h"
#include "lib/weights/source.h"

namespace ratplus::session {
namespace {

/// The job that made the weights; empty where they do not say.
std::optional<config::JobConfig> job_of(const checkpoint::Info& info) {
  if (info.job.empty()) return std::nullopt;
  return config::parse_job(info.job, (info.directory / checkpoint::manifest_name).string());
}

}  // namespace

bool start_defaults(const config::JobConfig& given, config::JobConfig& job) {
  auto info = checkpoint::newest_present(given.job.directory);
  if (!info) {
    const auto from = weights::find(given.job.from);
    if (!from) return false;
    info = weights::open_source(*from, given.model)->info();
  }
  job.model = info->model;
  if (const auto pattern = trained_pattern(*info)) job.job.pattern = *pattern;
  return true;
}

std::optional<model::PatternPlan> trained_pattern(const checkpoint::Info& info) {
  const auto job = job_of(info);
  return job ? std::optional(job->job.pattern) : std::nullopt;
}

std::string other_pattern_note(const checkpoint::Info& info, const model::PatternPlan& used) {
  const auto job = job_of(info);
  if (!job || job->job.kind == config::Kind::pretrain) return "";
  const auto own = job->job.pattern.describe();
  if (own == used.describe()) return "";
  return fmt::format("{} was trained with the pattern {}, and is used with {}", info.directory.string(), own,
                     used.describe());
}

}  // namespace ratplus::session
