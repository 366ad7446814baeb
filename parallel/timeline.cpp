#include "parallel/timeline.h"

#include <algorithm>
#include <utility>

namespace ratplus::parallel {

Timeline::Timeline(std::unique_ptr<Stopwatch> stopwatch)
    : stopwatch_(std::move(stopwatch)), origin_(stopwatch_->mark()) {}

void Timeline::at(std::string_view kind, std::string_view subject) {
  const int now = stopwatch_->mark();
  if (since_ >= 0) add(Lane::compute, kind_, subject_, since_, now);
  since_ = now;
  kind_ = kind;
  subject_ = subject;
}

void Timeline::add(Lane lane, std::string_view kind, std::string_view subject, int from, int to,
                   std::int64_t bytes) {
  marked_.push_back({{lane, std::string(kind), std::string(subject), 0, 0, bytes}, from, to});
}

void Timeline::add_wait(Lane of, std::string_view kind, std::string_view subject, int from, int to) {
  add(Lane::waiting, kind, subject, from, to);
  marked_.back().span.of = of;
}

std::vector<Timeline::Span> Timeline::finish() {
  at({});
  since_ = -1;
  std::vector<Span> spans;
  for (auto& [span, from, to] : marked_) {
    span.begin = stopwatch_->seconds(origin_, from);
    span.end = stopwatch_->seconds(origin_, to);
    // Two events of a GPU in a row differ by a few microseconds.
    const bool nothing = span.lane == Lane::waiting ? span.end - span.begin < 10e-6 : span.end <= span.begin;
    if (!nothing) spans.push_back(std::move(span));
  }
  marked_.clear();
  std::ranges::stable_sort(
      spans, {}, [](const Span& span) { return std::pair(static_cast<int>(span.lane), span.begin); });
  return spans;
}

std::string to_string(Timeline::Lane lane) {
  switch (lane) {
    case Timeline::Lane::compute:
      return "compute";
    case Timeline::Lane::waiting:
      return "waiting";
    case Timeline::Lane::shards:
      return "shards";
    case Timeline::Lane::replicas:
      return "replicas";
  }
  return "";
}

std::vector<CollectiveTotal> totals(const std::vector<Timeline::Span>& spans) {
  std::vector<CollectiveTotal> totals;
  const auto find = [&](Timeline::Lane lane, const std::string& kind) {
    return std::ranges::find_if(totals,
                                [&](const auto& each) { return each.lane == lane && each.kind == kind; });
  };
  for (const auto& span : spans) {
    if (span.lane != Timeline::Lane::shards && span.lane != Timeline::Lane::replicas) continue;
    auto total = find(span.lane, span.kind);
    if (total == totals.end()) total = totals.insert(totals.end(), {span.lane, span.kind, 0, 0, 0, 0});
    ++total->calls;
    total->bytes += span.bytes;
    total->seconds += span.end - span.begin;
  }
  for (const auto& span : spans) {
    if (span.lane != Timeline::Lane::waiting) continue;
    const auto total = find(span.of, span.kind);
    if (total != totals.end()) total->waited += span.end - span.begin;
  }
  return totals;
}

}  // namespace ratplus::parallel
