// Timeline: what a rank's processor does in a stretch of training, and when: the passes and the update, the
// collectives beside them, and where the computation waits for those.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops.h"

namespace ratplus::parallel {

/// Follows a ParameterStore and its communicators while it is set there (ParameterStore::follow). Times are the
/// processor's own: on a GPU of its streams, not of the host that runs ahead of them.
class Timeline {
 public:
  enum class Lane {
    compute,   ///< "forward" and "backward" of a unit, "sums of gradients", "update"
    waiting,   ///< within compute: for a collective; what communication was not hidden
    shards,    ///< collectives of the shard group
    replicas,  ///< collectives over the replicas
  };
  struct Span {
    Lane lane = Lane::compute;
    std::string kind;        ///< "all_gather"
    std::string subject;     ///< "blocks.3"
    double begin = 0;        ///< seconds since the timeline began
    double end = 0;          ///< seconds since the timeline began
    std::int64_t bytes = 0;  ///< collectives: of the whole tensor
    Lane of = Lane::shards;  ///< waiting: the lane of the collective that is waited for
  };

  explicit Timeline(std::unique_ptr<Stopwatch> stopwatch);

  /// The computation comes to something else.
  void at(std::string_view kind, std::string_view subject = {});

  /// For communicators: points in time, and what lay between two of them.
  Stopwatch& stopwatch() { return *stopwatch_; }
  void add(Lane lane, std::string_view kind, std::string_view subject, int from, int to,
           std::int64_t bytes = 0);
  /// The computation waited for a collective of lane `of`.
  void add_wait(Lane of, std::string_view kind, std::string_view subject, int from, int to);

  /// Ends running spans and waits for them. Returns all spans, by lane and time. Those of no length are left out.
  std::vector<Span> finish();

 private:
  struct Marked {
    Span span;
    int from = 0;
    int to = 0;
  };

  std::unique_ptr<Stopwatch> stopwatch_;
  int origin_ = 0;
  int since_ = -1;  ///< since when the computation is at kind_; -1: at nothing yet
  std::string kind_;
  std::string subject_;
  std::vector<Marked> marked_;
};

std::string to_string(Timeline::Lane lane);

/// Times of the collectives of a timeline.
struct CollectiveTotal {
  Timeline::Lane lane = Timeline::Lane::shards;
  std::string kind;
  std::int64_t calls = 0;
  std::int64_t bytes = 0;
  double seconds = 0;  ///< on the way
  double waited = 0;   ///< of the computation, for them
};
std::vector<CollectiveTotal> totals(const std::vector<Timeline::Span>& spans);

}  // namespace ratplus::parallel
