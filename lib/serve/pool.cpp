#include "lib/serve/pool.h"

#include <utility>

#include "base/background_thread.h"
#include "base/start_thread.h"

namespace ratplus::serve {

Pool::Pool(int threads) {
  for (int i = 0; i < threads; ++i)
    threads_.push_back(start_thread([this] {
      leave_signals_to_main_thread();
      run();
    }));
}

Pool::~Pool() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
}

void Pool::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
}

std::size_t Pool::waiting() const {
  const std::lock_guard lock(mutex_);
  return tasks_.size();
}

void Pool::run() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return ending_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

void Serial::post(const std::shared_ptr<State>& state, std::function<void()> task) {
  {
    const std::lock_guard lock(state->mutex);
    state->tasks.push_back(std::move(task));
    if (std::exchange(state->running, true)) return;
  }
  state->pool.post([state] { run(state); });
}

/// One task, then the others' turn.
void Serial::run(const std::shared_ptr<State>& state) {
  std::function<void()> task;
  {
    const std::lock_guard lock(state->mutex);
    task = std::move(state->tasks.front());
    state->tasks.pop_front();
  }
  task();
  task = {};
  {
    const std::lock_guard lock(state->mutex);
    if (state->tasks.empty()) {
      state->running = false;
      return;
    }
  }
  state->pool.post([state] { run(state); });
}

}  // namespace ratplus::serve
