// A small model behind a server in this process, for tests.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "lib/generate/model_text.h"
#include "lib/infer/inference.h"
#include "lib/serve/server.h"
#include "tests/serve/client.h"

namespace ratplus::test {

/// A small model with made-up weights, and a SentencePiece tokenizer with fewer tokens than the model.
struct SmallModel {
  explicit SmallModel(std::int64_t tokens = 96, double init_std = 0.3);

  static constexpr std::uint64_t seed = 3;
  static const generate::ModelText& text();
  infer::ResolvedModel model;
  std::vector<model::PatternPlan> plans;
  std::vector<std::string> patterns;
};

/// A server in this process.
class Served {
 public:
  struct Settings {
    SmallModel model = SmallModel();
    serve::ServerSettings server = {};
    serve::HttpSettings http = {};
    std::int64_t slots = 8;
    std::int64_t prefix_bytes = 0;
    int ranks = 0;  ///< 0: as RATPLUS_TEST_SERVE_RANKS says, else 1; each but the first is a thread
    bool with_text = true;
  };
  Served() : Served(Settings()) {}
  explicit Served(Settings settings);
  ~Served();

  int port() const { return port_; }
  serve::Server& server() { return *server_; }
  infer::Inference& inference() { return *inference_; }
  /// Ends another rank than 0 as if it died.
  void lose_rank(int rank) { ranks_[static_cast<std::size_t>(rank - 1)].link->close(); }
  /// What server().run() returned, after join().
  bool complete() const { return complete_; }
  /// Until nothing is in progress. False: it lasted a minute.
  bool becomes_idle();
  /// Waits for the end of run(); throws what it threw.
  void join();

 private:
  int port_ = 0;
  serve::Server* server_ = nullptr;
  infer::Inference* inference_ = nullptr;
  struct Rank {
    std::unique_ptr<serve::Link> link;
    std::thread thread;
  };
  static infer::ServingRequest serving_request(const Settings& settings);
  std::vector<std::unique_ptr<serve::Link>> start_ranks(const Settings& settings);
  void join_ranks();

  std::exception_ptr failure_;
  bool complete_ = true;
  std::vector<Rank> ranks_;
  std::promise<void> may_go_;  ///< no call of server() is under way any more
  std::thread thread_;
};

/// Whether the condition holds within ten seconds.
template <typename Condition>
bool soon(Condition condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

}  // namespace ratplus::test
