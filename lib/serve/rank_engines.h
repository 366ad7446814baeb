// RankEngines: the engines of several ranks as one: rank 0 deals the work of requests to them, by the tokens that they have
// yet to compute.
#pragma once

#include <atomic>
#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "lib/serve/engine_loop.h"
#include "lib/serve/link.h"

namespace ratplus::serve {

class RankEngines : public Engines {
 public:
  /// `own` is rank 0's loop, with the same `deliver`, and links[i] leads to rank i + 1. lost(rank) is called by some thread, once a
  /// rank, when it is gone without stop(): its requests have failed with status 500 then.
  RankEngines(EngineLoop& own, std::vector<std::unique_ptr<Link>> links, EngineLoop::Deliver deliver,
              std::function<void(int rank)> lost);
  ~RankEngines() override;

  void submit(std::uint64_t request, std::shared_ptr<OutputTaker> taker, Work work) override;
  void cancel(std::uint64_t request) override;
  void cancel(std::uint64_t request, std::size_t tag) override;
  void stop(std::string why) override;
  /// Sums; the share of the caches is the mean.
  EngineLoad load() const override;

  /// Calls `exchange` of serve_rank() with this text on all other ranks, between their requests.
  void exchange(const std::string& text);
  /// Waits until the other ranks have ended after stop(), at most `seconds`; nothing is delivered afterwards.
  void close(double seconds);
  /// Tokens that each rank has yet to compute.
  std::vector<std::int64_t> outstanding() const;

 private:
  struct Part {
    int rank = 0;
    std::int64_t tokens = 0;  ///< yet to compute
  };
  /// A sequence's tag, or a text's to score: a request may have both with one tag.
  struct Key {
    bool scores = false;
    std::size_t tag = 0;
    bool operator<(const Key& other) const {
      return std::tie(scores, tag) < std::tie(other.scores, other.tag);
    }
  };
  struct Request {
    std::shared_ptr<OutputTaker> taker;
    std::map<Key, Part> parts = {};
  };
  struct Remote {
    std::unique_ptr<Link> link;
    EngineLoad load = {};
    bool gone = false;
    std::thread reader = {};
  };
  class Counted;

  int least_loaded() const;
  void read(int rank);
  void took(std::uint64_t request, const std::vector<Output>& outputs);
  void end_part(Request& request, const Key& key);
  void rank_gone(int rank);
  std::vector<int> ranks_of(std::uint64_t request) const;
  void send_cancel(int rank, std::uint64_t request, const std::size_t* tag);

  EngineLoop& own_;
  EngineLoop::Deliver deliver_;
  std::function<void(int)> lost_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Remote>> remotes_;
  std::map<std::uint64_t, Request> requests_;
  std::vector<std::int64_t> tokens_;  ///< of each rank, yet to compute
  bool stopping_ = false;
};

/// The body of another rank than 0: computes what comes through the link by the inference's engines and scorers, until rank 0
/// says that the server ends; by the thread that made the inference. exchange(text) comes from RankEngines::exchange. Throws
/// Error where rank 0 is gone, and what the computation throws.
void serve_rank(infer::Inference& inference, std::size_t patterns, Link& link,
                const std::function<void(const std::string&)>& exchange);

}  // namespace ratplus::serve
