#include "lib/report/measured_text.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string_view>

#include "base/error.h"
#include "base/files/pending_file.h"

namespace ratplus::report {
namespace {

/// Nats a token over bits a byte depend on the text and its tokenizer alone; NaN where not known.
double bytes_a_token(const Measurement& measured) {
  if (measured.losses.empty()) return std::nan("");
  const auto& of = measured.losses.front();
  return of.bits_per_byte ? of.loss / *of.bits_per_byte : std::nan("");
}

/// One dataset by two names has one list of its files. Of one name at two places that are not here, nothing tells them apart.
bool same_dataset(const std::string& a, const std::string& b) {
  const std::filesystem::path x = std::filesystem::path(a) / "dataset.json";
  const std::filesystem::path y = std::filesystem::path(b) / "dataset.json";
  std::error_code error;
  if (x.lexically_normal() == y.lexically_normal()) return true;
  const bool here = std::filesystem::is_regular_file(x, error),
             there = std::filesystem::is_regular_file(y, error);
  if (!here || !there)
    return x.lexically_normal().parent_path().filename() == y.lexically_normal().parent_path().filename();
  try {
    return read_whole_file(x) == read_whole_file(y);
  } catch (const Error&) {
    return false;
  }
}

bool is_evaluation(const RunMetrics& run) {
  return run.evaluation && run.final_result() == &*run.evaluation;
}

/// "ours by its evaluation on 64 sequences of 4096 tokens of data/c4 (validation)".
std::string measured_on(const RunMetrics& run) {
  const Measurement& measured = *run.final_result();
  std::string text = run.name + (is_evaluation(run) ? " by its evaluation" : " by its last validation");
  const char* before = " on ";
  const auto add = [&](const std::string& what) {
    text += before + what;
    before = " of ";
  };
  // A validation is of so many sequences at most.
  if (measured.sequences > 0 && is_evaluation(run)) add(fmt::format("{} sequences", measured.sequences));
  if (measured.sequence_length > 0) add(fmt::format("{} tokens", measured.sequence_length));
  if (!measured.data.empty()) add(measured.data);
  if (!measured.split.empty()) text += fmt::format(" ({})", measured.split);
  return text;
}

}  // namespace

bool differ_in_text(const Measurement& a, const Measurement& b) {
  if (a.sequences > 0 && b.sequences > 0 && a.sequences != b.sequences) return true;
  if (!a.split.empty() && !b.split.empty() && a.split != b.split) return true;
  const double x = bytes_a_token(a);
  const double y = bytes_a_token(b);
  if (std::isfinite(x) && std::isfinite(y)) return std::abs(x - y) > 1e-9 * std::abs(x);
  return !a.data.empty() && !b.data.empty() && !same_dataset(a.data, b.data);
}

std::string unlike_results(const std::vector<const RunMetrics*>& runs) {
  const RunMetrics* first = nullptr;
  for (const RunMetrics* run : runs) {
    if (run->final_result() == nullptr) continue;
    if (first == nullptr) {
      first = run;
      continue;
    }
    const Measurement &a = *first->final_result(), &b = *run->final_result();
    const bool lengths =
        a.sequence_length > 0 && b.sequence_length > 0 && a.sequence_length != b.sequence_length;
    const bool kinds = is_evaluation(*first) != is_evaluation(*run);
    if (!lengths && !kinds && !differ_in_text(a, b)) continue;
    return fmt::format("Measured on different text, so that losses do not compare: {}, {}",
                       measured_on(*first), measured_on(*run));
  }
  return {};
}

std::string unlike_results(const std::vector<RunMetrics>& runs) {
  std::vector<const RunMetrics*> all;
  for (const RunMetrics& run : runs) all.push_back(&run);
  return unlike_results(all);
}

std::string perplexity_title(const std::vector<const RunMetrics*>& runs) {
  bool training = false, held_out = false;
  for (const RunMetrics* run : runs) {
    const Measurement* measured = run->final_result();
    if (measured == nullptr) continue;
    (measured->split == "train" ? training : held_out) = true;
  }
  if (training) return held_out ? "Perplexity" : "Training perplexity";
  return "Validation perplexity";
}

}  // namespace ratplus::report
