// EngineLoop: the thread that owns the device: it takes the work of many requests, computes it together, and hands out what
// each gets.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/infer/inference.h"

namespace ratplus::serve {

/// One result: an event of a generated sequence, or the scores of a text. `tag` is the one given with the work.
struct Output {
  std::size_t tag = 0;
  bool scores = false;
  infer::Event event = {};
  infer::Scored scored = {};
};

/// Who gets results. Called in their order by the loop's `deliver`.
class OutputTaker {
 public:
  virtual ~OutputTaker() = default;
  virtual void take(std::vector<Output> outputs) = 0;
  /// Nothing follows: the computation failed, or the server ends. The status is HTTP's.
  virtual void fail(const std::string& why, int status) = 0;
};

/// Checked by Engine::check and Scorer::check.
struct Work {
  std::size_t pattern = 0;  ///< the engine's and the scorer's place in the Inference
  std::vector<std::pair<std::size_t, infer::Request>> sequences = {};  ///< with their tags
  std::vector<std::pair<std::size_t, infer::ScoreRequest>> scores = {};
};

/// As of the last pass.
struct EngineLoad {
  std::int64_t running = 0;  ///< sequences in the batches
  std::int64_t waiting = 0;  ///< sequences that wait for room, and texts to score
  double cache_share = 0;    ///< bytes of caches in use, of all
  infer::PrefixUse prefixes = {};
};

/// The engines of a server. Its functions are called by any thread.
class Engines {
 public:
  virtual ~Engines() = default;
  /// Adds work to the request of this number. All work of a request has the same taker and pattern.
  virtual void submit(std::uint64_t request, std::shared_ptr<OutputTaker> taker, Work work) = 0;
  /// Ends a request, or one of its sequences; its slot is free before the next pass. Outputs that are on their way still come.
  virtual void cancel(std::uint64_t request) = 0;
  virtual void cancel(std::uint64_t request, std::size_t tag) = 0;
  /// Ends all after the pass in progress; takers of unfinished work get fail(why).
  virtual void stop(std::string why) = 0;
  virtual EngineLoad load() const = 0;
};

class EngineLoop : public Engines {
 public:
  /// Runs a task soon, in the order of calls, by another thread.
  using Deliver = std::function<void(std::function<void()>)>;
  /// `patterns` engines and scorers of the inference, which outlives the loop.
  EngineLoop(infer::Inference& inference, std::size_t patterns, Deliver deliver);

  // --- any thread ------------------------------------------------------------------------------------------------
  void submit(std::uint64_t request, std::shared_ptr<OutputTaker> taker, Work work) override;
  void cancel(std::uint64_t request) override;
  void cancel(std::uint64_t request, std::size_t tag) override;
  /// Runs f by the engine's thread, once all work submitted before has ended and none that came later has begun: to exchange
  /// weights. What f throws ends run().
  void between(std::function<void()> f);
  /// Ends run(), too.
  void stop(std::string why) override;
  EngineLoad load() const override;

  // --- the engine's thread, which is the one that made the Inference ---------------------------------------------
  /// Until stop(). Throws what a pass or an f of between() throws, after all takers got fail().
  void run();

 private:
  struct Command {
    enum class Kind : std::uint8_t { add, cancel, cancel_tag } kind;
    std::uint64_t request = 0;
    std::size_t tag = 0;
    std::shared_ptr<OutputTaker> taker = {};
    Work work = {};
  };
  struct Job {
    std::shared_ptr<OutputTaker> taker;
    std::size_t pattern = 0;
    std::map<std::size_t, std::int64_t> sequences = {};  ///< numbers in the engine, by tag
    std::size_t scores = 0;                              ///< texts to be scored yet

    bool done() const { return sequences.empty() && scores == 0; }
  };
  struct Place {
    std::uint64_t request = 0;
    std::size_t tag = 0;
  };
  struct Score {
    Place place;
    infer::ScoreRequest request;
  };
  struct Pattern {
    std::unordered_map<std::int64_t, Place> places = {};  ///< by the engine's number
    std::deque<Score> scores = {};
  };
  using Outputs = std::map<std::uint64_t, std::vector<Output>>;

  bool wait_for_commands(std::vector<Command>& commands);
  void apply(Command& command);
  void add(Command& command);
  void remove(std::uint64_t request, const std::size_t* tag);
  void pass();
  void step(std::size_t pattern, Outputs& outputs);
  void score(std::size_t pattern, Outputs& outputs);
  void hand_out(Outputs& outputs);
  void fail_all(const std::string& why);
  bool busy() const { return !jobs_.empty(); }
  void measure();

  infer::Inference& inference_;
  Deliver deliver_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Command> commands_;
  std::deque<std::function<void()>> between_;
  bool stopping_ = false;
  std::string why_;

  // Of the engine's thread.
  std::vector<Pattern> patterns_;
  std::map<std::uint64_t, Job> jobs_;
  std::vector<Command> held_;  ///< that came after a between(), in their order

  std::atomic<std::int64_t> running_ = 0, waiting_ = 0;
  std::atomic<double> cache_share_ = 0;
  std::atomic<std::int64_t> prefix_hits_ = 0, prefix_tokens_ = 0, prefix_snapshots_ = 0, prefix_bytes_ = 0;
};

}  // namespace ratplus::serve
