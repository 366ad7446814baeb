// Conveyor: one thread makes items, another one takes them in their order, and both work at the same time.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/background_thread.h"
#include "base/start_thread.h"

namespace ratplus {

/// The caller makes, a thread of the conveyor's takes. Items are kept and filled again, so that their memory is.
template <typename Item>
class Conveyor {
 public:
  /// `items` at most are under way. `take` runs on the thread.
  Conveyor(std::size_t items, std::function<void(Item&)> take)
      : items_(items), take_(std::move(take)), thread_(start_thread<std::thread>([this] { run(); })) {}
  /// Drops what was not taken yet, and waits for what is being taken.
  ~Conveyor() { end(true); }
  Conveyor(const Conveyor&) = delete;
  Conveyor& operator=(const Conveyor&) = delete;

  /// The next one to fill, with what it held before; waits for one to be free. Throws what `take` threw.
  Item& next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return failure_ || sent_ - taken_ < items_.size(); });
    if (failure_) std::rethrow_exception(failure_);
    return items_[sent_ % items_.size()];
  }
  /// Hands on what next() gave.
  void send() {
    const std::lock_guard lock(mutex_);
    ++sent_;
    changed_.notify_all();
  }
  /// Waits until all are taken; then there are no more. Throws what `take` threw.
  void finish() {
    end(false);
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void run() {
    leave_signals_to_main_thread();
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return dropped_ || ended_ || taken_ < sent_; });
      if (dropped_ || taken_ == sent_) return;
      lock.unlock();
      std::exception_ptr failure;
      try {
        take_(items_[taken_ % items_.size()]);
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      failure_ = failure;
      ++taken_;
      changed_.notify_all();
      if (failure_) return;
    }
  }

  void end(bool drop) {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      dropped_ = dropped_ || drop;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  std::vector<Item> items_;
  std::function<void(Item&)> take_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t sent_ = 0;
  std::size_t taken_ = 0;  ///< written by the thread alone
  bool ended_ = false;
  bool dropped_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  ///< last: it uses all the others
};

}  // namespace ratplus
