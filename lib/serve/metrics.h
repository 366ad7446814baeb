// Metrics: what a server did so far, as Prometheus reads it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "lib/serve/engine_loop.h"

namespace ratplus::serve {

/// Counts of observations up to each of some bounds, and their sum.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void add(double value, std::int64_t times = 1);
  /// The lines of a metric of this name.
  std::string text(const std::string& name, const std::string& help) const;

 private:
  std::vector<double> bounds_;
  std::vector<std::int64_t> counts_;  ///< of each interval
  double sum_ = 0;
};

/// Thread-safe.
class Metrics {
 public:
  void count_response(int status);
  /// A completion ended by this reason: stop, length, cancelled, error. Seconds since its request came.
  void count_end(const std::string& reason, double seconds);
  void count_tokens(std::int64_t prompt, std::int64_t scored, std::int64_t generated);
  void add_first_token(double seconds);
  /// Seconds of each of `tokens` further tokens.
  void add_tokens(double seconds, std::int64_t tokens);
  std::string text(const EngineLoad& load) const;

 private:
  mutable std::mutex mutex_;
  std::map<int, std::int64_t> responses_;
  std::map<std::string, std::int64_t> ends_;
  std::int64_t prompt_tokens_ = 0, scored_tokens_ = 0, generated_tokens_ = 0;
  Histogram first_token_{{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}};
  Histogram token_{{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5}};
  Histogram request_{{0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}};
};

}  // namespace ratplus::serve
