#include "lib/model/pattern_plan.h"

#include <fmt/format.h>

#include "kernels/error.h"
#include "kernels/units.h"

namespace ratplus::model {
namespace {

/// The shortest period of a sequence that is made of whole periods: 2 for a b a b, 4 for a a b b.
std::size_t period(const std::vector<std::string>& items) {
  for (std::size_t p = 1; p < items.size(); ++p) {
    bool repeats = items.size() % p == 0;
    for (std::size_t i = p; repeats && i < items.size(); ++i) repeats = items[i] == items[i - p];
    if (repeats) return p;
  }
  return items.size();
}

/// "a x 12, b x 12": equal neighbours among the first `count` items, counted.
std::string runs(const std::vector<std::string>& items, std::size_t count) {
  std::string text;
  for (std::size_t begin = 0; begin < count;) {
    std::size_t end = begin + 1;
    while (end < count && items[end] == items[begin]) ++end;
    text += fmt::format("{}{} x {}", begin == 0 ? "" : ", ", items[begin], end - begin);
    begin = end;
  }
  return text;
}

/// One name for all items if they are equal, else "kind(a x 12, b x 12)", or "kind((a x 1, b x 1) x 12)"
/// where a group repeats. Two sequences with the same text are equal.
std::string summarize(const std::vector<std::string>& items, const char* kind) {
  const std::size_t p = period(items);
  if (p == 1 || items.size() == 1) return items.front();
  if (p == items.size()) return fmt::format("{}({})", kind, runs(items, p));
  return fmt::format("{}(({}) x {})", kind, runs(items, p), items.size() / p);
}

std::string describe_heads(const std::vector<Pattern>& heads) {
  std::vector<std::string> names;
  names.reserve(heads.size());
  for (const Pattern& pattern : heads) names.push_back(to_string(pattern));
  return summarize(names, "heads");
}

void validate_heads(const std::vector<Pattern>& heads, std::int64_t head_count, const std::string& where) {
  const auto count = static_cast<std::int64_t>(heads.size());
  if (count != 1 && count != head_count) {
    fail("{} has {}, one a head, but the model has {}; give 1 or {}", where, counted(count, "pattern"),
         counted(head_count, "head"), head_count);
  }
  for (std::size_t h = 0; h < heads.size(); ++h) {
    ratplus::validate(heads[h], count == 1 ? where : fmt::format("{}[{}]", where, h));
  }
}

}  // namespace

void PatternPlan::validate(std::int64_t layer_count, std::int64_t head_count,
                           const std::string& where) const {
  const auto count = static_cast<std::int64_t>(layers_.size());
  if (count != 1 && count != layer_count) {
    fail("{} has {}, one a layer, but the model has {}; give 1 or {}", where, counted(count, "pattern"),
         counted(layer_count, "layer"), layer_count);
  }
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    validate_heads(layers_[i], head_count, count == 1 ? where : fmt::format("{}[{}]", where, i));
  }
}

std::string PatternPlan::describe() const {
  if (layers_.empty()) return "none";
  std::vector<std::string> names;
  names.reserve(layers_.size());
  for (const std::vector<Pattern>& heads : layers_) {
    names.push_back(heads.empty() ? "none" : describe_heads(heads));
  }
  return summarize(names, "hybrid");
}

}  // namespace ratplus::model
