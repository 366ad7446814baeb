// Pool: threads for the work beside the engine's (JSON, tokens, texts), and Serial: tasks of one owner, one after another.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace ratplus::serve {

/// Tasks do not throw.
class Pool {
 public:
  /// At least one thread. Throws Error where none can be started.
  explicit Pool(int threads);
  /// Runs all tasks that are there, then ends the threads.
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// Called by any thread.
  void post(std::function<void()> task);
  std::size_t waiting() const;

 private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool ending_ = false;
  std::vector<std::jthread> threads_;  // last: they end first
};

/// Tasks run in the order of post(), never two at once. The pool outlives it; what it was given runs even after it is gone.
class Serial {
 public:
  explicit Serial(Pool& pool) : state_(std::make_shared<State>(pool)) {}
  void post(std::function<void()> task) { post(state_, std::move(task)); }

 private:
  struct State {
    explicit State(Pool& on) : pool(on) {}
    Pool& pool;
    std::mutex mutex;
    std::deque<std::function<void()>> tasks;
    bool running = false;
  };
  static void post(const std::shared_ptr<State>& state, std::function<void()> task);
  static void run(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
};

}  // namespace ratplus::serve
