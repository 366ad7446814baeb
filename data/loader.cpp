#include "data/loader.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

#include "data/background_thread.h"
#include "data/window.h"
#include "kernels/error.h"

namespace ratplus::data {
struct Loader::Impl {
  Impl(TokenStream owned, Sampler chosen, BatchShape cut, std::int32_t eot, std::int64_t first_step,
       std::int64_t last_step, int depth)
      : stream(std::move(owned)),
        sampler(chosen),
        shape(cut),
        end_of_text(eot),
        next_step(first_step),
        last(last_step),
        tokens(static_cast<std::size_t>(cut.window + 1)),
        spare(static_cast<std::size_t>(depth)) {
    thread = std::jthread([this, first_step](const std::stop_token& stop) { read_ahead(stop, first_step); });
  }

  void read_ahead(const std::stop_token& stop, std::int64_t first_step);
  bool take_spare(const std::stop_token& stop, StepBatch& batch);
  void fill(StepBatch& batch, std::int64_t step);

  // The thread's own.
  TokenStream stream;
  const Sampler sampler;
  const BatchShape shape;
  const std::int32_t end_of_text;

  // The consumer's own.
  std::int64_t next_step;
  const std::int64_t last;
  StepBatch current;
  double waited = 0;  ///< seconds

  std::vector<std::int32_t> tokens;  ///< the thread's: one window, T + 1

  // Shared, under the mutex. Buffers go round: spare -> filled by the thread -> ready -> current -> spare.
  std::mutex mutex;
  std::condition_variable_any spare_added;
  std::condition_variable_any ready_added;
  std::deque<StepBatch> spare;
  std::deque<StepBatch> ready;
  std::exception_ptr error;  ///< what ended the thread

  std::jthread thread;  // last: joined before anything that it uses is destroyed
};

void Loader::Impl::read_ahead(const std::stop_token& stop, std::int64_t first_step) {
  leave_signals_to_main_thread();
  try {
    StepBatch batch;
    for (std::int64_t step = first_step; step < last && take_spare(stop, batch); ++step) {
      fill(batch, step);
      const std::lock_guard lock(mutex);
      ready.push_back(std::move(batch));
      ready_added.notify_one();
    }
  } catch (...) {
    const std::lock_guard lock(mutex);
    error = std::current_exception();
    ready_added.notify_one();
  }
}

/// Waits for a buffer; false when the loader is being destroyed.
bool Loader::Impl::take_spare(const std::stop_token& stop, StepBatch& batch) {
  std::unique_lock lock(mutex);
  if (!spare_added.wait(lock, stop, [&] { return !spare.empty(); }) || stop.stop_requested()) return false;
  batch = std::move(spare.front());
  spare.pop_front();
  return true;
}

void Loader::Impl::fill(StepBatch& batch, std::int64_t step) {
  const std::int64_t micro_batches = shape.micro_batches();
  const auto size = static_cast<std::size_t>(micro_batches * shape.micro_batch * shape.window);
  batch.step = step;
  batch.counted = 0;
  batch.inputs.resize(size);  // allocates in a buffer's first round only
  batch.labels.resize(size);
  const auto window = static_cast<std::size_t>(shape.window);
  std::size_t at = 0;
  for (std::int64_t m = 0; m < micro_batches; ++m) {
    const std::int64_t first = step * shape.batch + (m * shape.ranks + shape.rank) * shape.micro_batch;
    for (std::int64_t j = 0; j < shape.micro_batch; ++j, at += window) {
      stream.read(sampler.start(first + j), tokens);
      batch.counted += cut_window(tokens, end_of_text, std::span(batch.inputs).subspan(at, window),
                                  std::span(batch.labels).subspan(at, window));
    }
  }
}

Loader::Loader(TokenStream stream, Sampler sampler, BatchShape shape, std::int32_t end_of_text,
               std::int64_t first_step, std::int64_t last_step, int depth) {
  require(shape.ranks > 0 && shape.rank >= 0 && shape.rank < shape.ranks, "rank {} of {}", shape.rank,
          shape.ranks);
  require(shape.micro_batch > 0 && shape.batch > 0 && shape.batch % (shape.micro_batch * shape.ranks) == 0,
          "batch {} is not a multiple of micro-batch {} x {} ranks", shape.batch, shape.micro_batch,
          shape.ranks);
  require(depth > 0 && first_step >= 0, "depth {}, first step {}", depth, first_step);
  impl_ =
      std::make_unique<Impl>(std::move(stream), sampler, shape, end_of_text, first_step, last_step, depth);
}

Loader::~Loader() = default;

const StepBatch& Loader::next() {
  Impl& impl = *impl_;
  require(impl.next_step < impl.last, "step {} is past the loader's last", impl.next_step);
  std::unique_lock lock(impl.mutex);
  impl.spare.push_back(std::exchange(impl.current, {}));  // the first time, one more empty buffer
  impl.spare_added.notify_one();
  if (impl.ready.empty() && !impl.error) {
    const auto begin = std::chrono::steady_clock::now();
    impl.ready_added.wait(lock, [&] { return !impl.ready.empty() || impl.error; });
    impl.waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  // Steps read before the thread failed come first, so that the error belongs to the step that meets it.
  if (impl.ready.empty()) std::rethrow_exception(impl.error);
  impl.current = std::move(impl.ready.front());
  impl.ready.pop_front();
  ++impl.next_step;
  return impl.current;
}

double Loader::wait_seconds() const {
  return impl_->waited;
}

}  // namespace ratplus::data
