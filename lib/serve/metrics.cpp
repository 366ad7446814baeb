#include "lib/serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace ratplus::serve {
namespace {

std::string head(const std::string& name, const char* type, const std::string& help) {
  return fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

template <typename Value>
std::string single(const std::string& name, const char* type, const std::string& help, Value value) {
  return head(name, type, help) + fmt::format("{} {}\n", name, value);
}

}  // namespace

void Histogram::add(double value, std::int64_t times) {
  const auto at = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  counts_[static_cast<std::size_t>(at)] += times;
  sum_ += value * static_cast<double>(times);
}

std::string Histogram::text(const std::string& name, const std::string& help) const {
  std::string lines = head(name, "histogram", help);
  std::int64_t count = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    count += counts_[i];
    const auto bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    lines += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, bound, count);
  }
  return lines + fmt::format("{}_sum {}\n{}_count {}\n", name, sum_, name, count);
}

void Metrics::count_response(int status) {
  const std::lock_guard lock(mutex_);
  ++responses_[status];
}

void Metrics::count_end(const std::string& reason, double seconds) {
  const std::lock_guard lock(mutex_);
  ++ends_[reason];
  request_.add(seconds);
}

void Metrics::count_tokens(std::int64_t prompt, std::int64_t scored, std::int64_t generated) {
  const std::lock_guard lock(mutex_);
  prompt_tokens_ += prompt, scored_tokens_ += scored, generated_tokens_ += generated;
}

void Metrics::add_first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  first_token_.add(seconds);
}

void Metrics::add_tokens(double seconds, std::int64_t tokens) {
  const std::lock_guard lock(mutex_);
  token_.add(seconds, tokens);
}

std::string Metrics::text(const EngineLoad& load) const {
  const std::lock_guard lock(mutex_);
  std::string lines = head("ratplus_responses_total", "counter", "HTTP responses by status");
  for (const auto& [status, count] : responses_)
    lines += fmt::format("ratplus_responses_total{{status=\"{}\"}} {}\n", status, count);
  lines +=
      head("ratplus_completions_total", "counter", "Requests for completions by the reason of their end");
  for (const auto& [reason, count] : ends_)
    lines += fmt::format("ratplus_completions_total{{end=\"{}\"}} {}\n", reason, count);
  lines += single("ratplus_prompt_tokens_total", "counter", "Tokens of prompts", prompt_tokens_);
  lines += single("ratplus_scored_tokens_total", "counter", "Tokens of prompts with log-probabilities",
                  scored_tokens_);
  lines += single("ratplus_generated_tokens_total", "counter", "Tokens generated", generated_tokens_);
  lines += single("ratplus_sequences_running", "gauge", "Sequences in the batch", load.running);
  lines += single("ratplus_sequences_waiting", "gauge", "Sequences that wait for room, and texts to score",
                  load.waiting);
  lines += single("ratplus_cache_share", "gauge", "Bytes of caches in use, of all", load.cache_share);
  const auto& prefixes = load.prefixes;
  lines += single("ratplus_prefix_hits_total", "counter",
                  "Sequences that began with a kept prefix or with the prompt of another", prefixes.hits);
  lines += single("ratplus_prefix_tokens_total", "counter",
                  "Tokens of prompts that these did not compute again", prefixes.tokens);
  lines += single("ratplus_prefix_snapshots", "gauge", "Prefixes that are kept", prefixes.snapshots);
  lines += single("ratplus_prefix_bytes", "gauge", "Bytes of the prefixes that are kept", prefixes.bytes);
  lines += first_token_.text("ratplus_first_token_seconds", "Time from a request to its first token");
  lines += token_.text("ratplus_token_seconds", "Time from one token of a sequence to the next");
  lines += request_.text("ratplus_request_seconds", "Time of a request for completions");
  return lines;
}

}  // namespace ratplus::serve
