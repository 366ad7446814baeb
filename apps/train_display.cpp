#include "apps/train_display.h"

#include <fmt/core.h>

#include <cmath>
#include <cstdio>

#include "apps/format.h"
#include "apps/output.h"
#include "base/units.h"

namespace ratplus::apps {
namespace {

/// For the one line of a terminal, 80 columns wide.
std::string brief_step(const config::JobConfig& job, const run::StepMetrics& metrics) {
  std::string losses;
  for (const auto& update : metrics.updates) {
    losses += fmt::format("{}{:.3f} [{}]", losses.empty() ? "" : ", ", update.loss, update.pattern);
  }
  return fmt::format("{} {}/{}  loss {}  {} tokens/s  {} left", to_string(job.job.kind), metrics.step,
                     metrics.steps, losses, format_count(metrics.tokens_per_second),
                     format_seconds(metrics.seconds_left));
}

/// For a log.
std::string full_step(const config::JobConfig& job, const run::StepMetrics& metrics) {
  std::string losses;
  for (const auto& update : metrics.updates) {
    losses += std::isnan(update.loss) ? fmt::format("  loss[{}] none", update.pattern)
                                      : fmt::format("  loss[{}] {:.4f} norm {:.3f}", update.pattern,
                                                    update.loss, update.gradient_norm);
  }
  if (metrics.skipped_updates > 0) losses += fmt::format("  updates left out {}", metrics.skipped_updates);
  return fmt::format("{} step {}/{}{}  lr {:.2e}  {} tokens/s  {} left", to_string(job.job.kind),
                     metrics.step, metrics.steps, losses, metrics.learning_rate,
                     format_count(metrics.tokens_per_second), format_seconds(metrics.seconds_left));
}

/// Describes the sharding of the parameters and the memory for their transfers.
std::string describe(const parallel::Mesh& mesh, const parallel::Settings& p) {
  const bool full = p.shard == parallel::Sharding::full && mesh.shards > 1;
  const std::string overlap =
      !full ? ""
            : fmt::format(", weights {}", p.keep_weights ? "gathered once an update and kept"
                                                         : fmt::format("gathered {} ahead", p.prefetch));
  const bool by_hosts = p.reduce == parallel::Reduce::bf16_between_hosts;
  const std::string sums = !by_hosts ? to_string(p.reduce)
                           : mesh.two_levels()
                               ? "f32 within hosts, in bf16 between them"
                               : "f32: parallel.reduce = \"bf16_between_hosts\" changes nothing on one host";
  return fmt::format("mesh: {} x {}; gradients summed in {}{}", counted(mesh.replicas, "replica"),
                     counted(mesh.shards, "shard"), sums, overlap);
}

}  // namespace

TrainDisplay::TrainDisplay(const config::JobConfig& job, const parallel::World& world, run::RunDirectory* run)
    : job_(job), world_(world), run_(run) {}

void TrainDisplay::say(const std::string& line) {
  if (run_ == nullptr) return;
  progress_.print(line);
  run_->log(line);
}

void TrainDisplay::log(const std::string& message) noexcept {
  if (run_ != nullptr) run_->log(message);
}

void TrainDisplay::fail(const std::string& message) {
  if (run_ == nullptr) return;
  progress_.finish();
  run_->log(message);
  print_error(message);
}

void TrainDisplay::on_start(session::Session& session, std::int64_t first_step) {
  const auto& m = job_.model;
  say(fmt::format("model: {}, width {}, {}, vocabulary {}, {}: {} parameters", counted(m.layers, "layer"),
                  m.width, counted(m.heads(), "head"), m.vocab_size, model::describe_mixers(m),
                  parallel::parameter_count(session.store().units())));
  const auto& ops = session.ops();
  if (job_.job.device == DeviceChoice::automatic && !cuda_missing().empty()) {
    say(fmt::format("no GPU is used: {}", cuda_missing()));
  }
  say(fmt::format("device: {} ({}), {}, recompute {}", to_string(ops.device()), ops.device_name(),
                  to_string(ops.compute_type()), to_string(job_.job.recompute)));
  say(fmt::format("ranks: {} x {}, sharding {}; batch {} x {} tokens, micro-batches {} x {} a rank",
                  world_.size(), counted(session.threads(), "thread"), to_string(job_.parallel.shard),
                  job_.data.batch, job_.data.sequence_length,
                  job_.data.batch / (job_.data.micro_batch * world_.size()), job_.data.micro_batch));
  if (const auto& mesh = session.store().mesh(); mesh.ranks() > 1) {
    say(describe(mesh, job_.parallel));
  }
  print_memory_plan(session.memory(), session.memory_available());
  say(fmt::format("{} {} of {} in {}", first_step > 0 ? "resumed at step" : "starting at step", first_step,
                  job_.schedule.steps, job_.job.directory));
}

void TrainDisplay::print_memory_plan(const Arena& memory, std::int64_t available) {
  std::string parts;
  for (const auto& entry : memory.plan())
    parts += fmt::format("{} {}, ", entry.category, format_bytes(entry.bytes));
  const std::string of = available < 0 ? "" : fmt::format(" of {} available", format_bytes(available));
  say(fmt::format("memory a rank: {}in all {}{}", parts, format_bytes(memory.total_bytes()), of));
}

void TrainDisplay::on_phase(const std::string& text) {
  if (run_ != nullptr && progress_.interactive()) progress_.update(last_step_ + "  [" + text + "]");
}

void TrainDisplay::on_step(const run::StepMetrics& metrics, bool logged) {
  last_step_ = brief_step(job_, metrics);
  if (progress_.interactive()) {
    progress_.update(last_step_);
    if (logged) run_->log(full_step(job_, metrics));
  } else if (logged) {
    say(full_step(job_, metrics));
  }
}

void TrainDisplay::on_validation(const run::ValidationMetrics& metrics) {
  std::string results;
  for (const auto& result : metrics.results) {
    results += fmt::format("  [{}] loss {:.4f} perplexity {:.2f}", result.pattern, result.loss,
                           std::exp(result.loss));
    if (result.accuracy) {
      results += fmt::format(" accuracy token {} completion {}", format_fixed(result.accuracy->token, 4),
                             format_fixed(result.accuracy->completion, 4));
    }
  }
  say(fmt::format("validation at step {}{}  ({})", metrics.step, results, format_duration(metrics.seconds)));
}

void TrainDisplay::on_load(const run::LoadMetrics& metrics) {
  say(fmt::format("loaded {}{} from {} in {}", metrics.verified ? "and verified " : "",
                  format_bytes(metrics.bytes), metrics.path, format_duration(metrics.seconds)));
}

void TrainDisplay::on_checkpoint(const run::CheckpointMetrics& metrics) {
  const auto took = format_duration(metrics.seconds);
  say(metrics.background ? fmt::format("saved {} ({}, of which steps waited {})", metrics.path, took,
                                       format_duration(metrics.stall_seconds))
                         : fmt::format("saved {} ({})", metrics.path, took));
}

void TrainDisplay::on_warning(const std::string& text) {
  say("warning: " + text);
}

}  // namespace ratplus::apps
