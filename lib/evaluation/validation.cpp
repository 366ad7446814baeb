#include "lib/evaluation/validation.h"

#include <algorithm>
#include <limits>
#include <numbers>

#include "base/error.h"
#include "base/units.h"

namespace ratplus::evaluation {
namespace {

std::unique_ptr<data::Samples> ordered_sequences(const ValidationSettings& settings,
                                                 const data::Manifest& manifest) {
  check_length(settings, manifest);
  const std::vector<data::SampleSource> only{{settings.dataset, 1, manifest}};
  return std::make_unique<data::StreamSamples>(
      only, data::StreamSamples::Settings{.split = settings.split,
                                          .sampling = data::Sampling::ordered,
                                          .sequence_length = settings.sequence_length,
                                          .seed = 0});
}

HitCounts over_ranks(const HitCounts& mine, const parallel::World& world) {
  return {world.sum(mine.tokens), world.sum(mine.token_hits), world.sum(mine.completions),
          world.sum(mine.completion_hits)};
}

}  // namespace

void check_length(const ValidationSettings& settings, const data::Manifest& manifest) {
  const auto tokens = manifest.tokens(settings.split);
  if (tokens - 1 >= settings.sequence_length) return;
  fail("{}: the {} split has {}, a sequence of {} needs {}; shorten the sequence or hold out more",
       settings.dataset.string(), data::to_string(settings.split), counted(tokens, "token"),
       settings.sequence_length, settings.sequence_length + 1);
}

Validator::Validator(const ValidationSettings& settings, const data::Manifest& manifest,
                     const parallel::World& world)
    : Validator(ordered_sequences(settings, manifest), settings.sequences, Validated::text, world,
                settings.parts) {}

Validator::Validator(std::unique_ptr<data::Samples> samples, std::int64_t sequences, Validated kind,
                     const parallel::World& world, std::int64_t parts)
    : world_(world),
      samples_(std::move(samples)),
      sequence_length_(samples_->length()),
      sequences_(samples_->spread(sequences)),
      kind_(kind),
      parts_(parts) {}

/// Sequences [first, first + count) into inputs_ and labels_; those past the last are left out by their labels.
/// Returns the number of counted positions.
std::int64_t Validator::fill(std::int64_t first, std::int64_t count) {
  inputs_.assign(static_cast<std::size_t>(count * sequence_length_), 0);
  labels_.assign(inputs_.size(), -1);
  std::int64_t counted = 0;
  for (std::int64_t j = 0; j < count && first + j < sequences_; ++j) {
    const auto at = static_cast<std::size_t>(j * sequence_length_);
    const auto sequence_length = static_cast<std::size_t>(sequence_length_);
    counted += samples_->read(first + j, std::span(inputs_).subspan(at, sequence_length),
                              std::span(labels_).subspan(at, sequence_length));
  }
  return counted;
}

void Validator::check() {
  std::int64_t counted = 0;
  world_.agree([&] {
    for (std::int64_t first = world_.rank(); first < sequences_; first += world_.size()) {
      counted += fill(first, 1);
    }
  });
  require_counted(world_.sum(counted));
}

void Validator::require_counted(std::int64_t positions) const {
  if (positions > 0) return;
  throw parallel::AgreedError(
      fmt::format("{}: no position of {} counts: every input is the end-of-text token, or no label "
                  "is to be predicted; hold out other text",
                  samples_->origin(0).source.string(), counted(sequences_, "held-out sequence")));
}

void Validator::count_bytes() {
  if (bytes_.of_token.empty()) return;
  for (const std::int32_t label : labels_) {
    if (label < 0) continue;
    const auto bytes = bytes_.of_token[static_cast<std::size_t>(label)];
    if (bytes >= 0) {
      text_bytes_ += bytes;
    } else {
      ++unknown_labels_;
    }
  }
}

void Validator::count_parts(std::vector<std::int64_t>& counted) const {
  for (std::size_t i = 0; i < labels_.size(); ++i) {
    const auto t = static_cast<std::int64_t>(i) % sequence_length_;
    if (labels_[i] >= 0) ++counted[static_cast<std::size_t>(part_of(t, sequence_length_, parts_))];
  }
}

/// Positions without a label have the loss 0.
void Validator::add_parts(model::Model& model, std::vector<double>& sums) {
  model.losses(losses_);
  for (std::size_t i = 0; i < losses_.size(); ++i) {
    const auto t = static_cast<std::int64_t>(i) % sequence_length_;
    sums[static_cast<std::size_t>(part_of(t, sequence_length_, parts_))] += losses_[i];
  }
}

std::vector<PatternScore> Validator::run(model::Model& model, const std::vector<model::PatternPlan>& patterns,
                                         const std::function<void(std::int64_t, std::int64_t)>& progress,
                                         const std::function<bool()>& stop) {
  const auto micro_batch = model.shapes().batch;
  require(model.shapes().tokens == sequence_length_, "validation sequences of {} in a model of {}",
          sequence_length_, model.shapes().tokens);
  const auto round = micro_batch * world_.size();
  std::vector<double> losses(patterns.size(), 0.0);
  std::vector<HitCounts> counts(patterns.size());
  if (kind_ == Validated::labelled) hits_.resize(static_cast<std::size_t>(micro_batch * sequence_length_));
  const auto parts = static_cast<std::size_t>(parts_);
  std::vector<std::vector<double>> part_losses(patterns.size(), std::vector<double>(parts, 0.0));
  std::vector<std::int64_t> part_counts(parts, 0);
  if (parts_ > 0) losses_.resize(static_cast<std::size_t>(micro_batch * sequence_length_));
  std::int64_t counted = 0;
  text_bytes_ = unknown_labels_ = 0;
  for (std::int64_t first = 0; first < sequences_; first += round) {
    if (stop && stop()) return {};
    world_.agree([&] { counted += fill(first + world_.rank() * micro_batch, micro_batch); });
    count_bytes();
    if (parts_ > 0) count_parts(part_counts);
    for (std::size_t p = 0; p < patterns.size(); ++p) {
      model.forward(inputs_, labels_, patterns[p], hits_);
      losses[p] += model.take_loss();
      if (kind_ == Validated::labelled) counts[p].add(labels_, hits_, sequence_length_);
      if (parts_ > 0) add_parts(model, part_losses[p]);
    }
    if (progress) progress(std::min(first + round, sequences_), sequences_);
  }
  const auto positions = world_.sum(counted);
  require_counted(positions);
  for (auto& count : part_counts) count = world_.sum(count);
  const auto bytes = world_.sum(text_bytes_), unknown = world_.sum(unknown_labels_);
  std::vector<PatternScore> scores;
  for (std::size_t p = 0; p < patterns.size(); ++p) {
    const double all = world_.sum(losses[p]);
    scores.push_back({.loss = all / static_cast<double>(positions)});
    if (bytes > 0 && unknown == 0)
      scores.back().bits_per_byte = all / std::numbers::ln2 / static_cast<double>(bytes);
    if (kind_ == Validated::labelled) scores.back().accuracy = over_ranks(counts[p], world_).accuracy();
    for (std::size_t i = 0; i < parts; ++i) {
      const double sum = world_.sum(part_losses[p][i]);
      scores.back().by_position.push_back(part_counts[i] > 0 ? sum / static_cast<double>(part_counts[i])
                                                             : std::numeric_limits<double>::quiet_NaN());
    }
  }
  return scores;
}

}  // namespace ratplus::evaluation
