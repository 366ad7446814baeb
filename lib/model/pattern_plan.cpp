#include "lib/model/pattern_plan.h"

#include <fmt/core.h>

#include <charconv>

#include "base/error.h"
#include "base/text.h"
#include "base/units.h"

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

/// Reads what summarize() writes, from left to right.
class NameReader {
 public:
  explicit NameReader(std::string_view text) : text_(text), rest_(text) {}

  PatternPlan plan() {
    std::vector<std::vector<Pattern>> layers;
    if (take("hybrid(")) {
      layers = sequence<std::vector<Pattern>>([&] { return layer(); });
    } else {
      layers.push_back(layer());
    }
    if (!rest_.empty()) bad();
    return PatternPlan(std::move(layers));
  }

 private:
  static constexpr std::size_t most = 1'000'000;  ///< items, as model.layers and heads are fewer

  [[noreturn]] void bad() const {
    fail(
        "pattern \"{}\": write dilation,window,sinks (as in 16,256,4 or none,256,4), dense, a list (one a "
        "layer, "
        "or a list of lists, one a head), or a name as tables print it, such as hybrid(64,0,0 x 12, dense x "
        "12)",
        text_);
  }
  bool take(std::string_view what) {
    if (!rest_.starts_with(what)) return false;
    rest_.remove_prefix(what.size());
    return true;
  }
  void require(std::string_view what) {
    if (!take(what)) bad();
  }
  std::size_t number() {
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error != std::errc{} || value < 1 || value > most) bad();
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return value;
  }
  Pattern pattern() {
    const auto end = std::min(rest_.find_first_of(" ()"), rest_.size());
    const Pattern result = parse_pattern(rest_.substr(0, end));
    rest_.remove_prefix(end);
    return result;
  }
  std::vector<Pattern> layer() {
    if (take("heads(")) return sequence<Pattern>([&] { return pattern(); });
    return {pattern()};
  }
  /// "a x 12, b x 12)" or "(a x 1, b x 1) x 12)".
  template <typename Item, typename ReadItem>
  std::vector<Item> sequence(const ReadItem& read_item) {
    const bool group = take("(");
    std::vector<Item> items;
    do {
      const Item item = read_item();
      require(" x ");
      const auto count = number();
      if (items.size() + count > most) bad();
      items.insert(items.end(), count, item);
    } while (take(", "));
    require(")");
    if (!group) return items;
    require(" x ");
    const auto repeats = number();
    require(")");
    if (repeats > most / items.size()) bad();
    std::vector<Item> all;
    for (std::size_t i = 0; i < repeats; ++i) all.insert(all.end(), items.begin(), items.end());
    return all;
  }

  std::string_view text_;
  std::string_view rest_;
};

}  // namespace

PatternPlan parse_plan(std::string_view text) {
  auto name = trim(text);
  // A label of a joint run whose updates have the same pattern; earlier versions called them halves.
  for (const std::string_view label : {", second update", ", second half"}) {
    if (name.ends_with(label)) name.remove_suffix(label.size());
  }
  if (name.starts_with("hybrid(") || name.starts_with("heads(")) return NameReader(name).plan();
  return PatternPlan(parse_pattern(name));
}

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
