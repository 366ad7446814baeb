#include "data/samples/loader.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

#include "base/background_thread.h"
#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/start_thread.h"

namespace ratplus::data {
struct Loader::Impl {
  Impl(std::unique_ptr<Samples> owned, BatchShape cut, std::int64_t first_step, std::int64_t last_step,
       int depth, Retries again)
      : samples(std::move(owned)),
        shape(cut),
        retries(again),
        next_step(first_step),
        last(last_step),
        spare(static_cast<std::size_t>(depth)) {
    thread = start_thread([this, first_step](const std::stop_token& stop) { read_ahead(stop, first_step); });
  }

  void read_ahead(const std::stop_token& stop, std::int64_t first_step);
  bool take_spare(const std::stop_token& stop, StepBatch& batch);
  bool fill(const std::stop_token& stop, StepBatch& batch, std::int64_t step);
  std::int64_t read(const std::stop_token& stop, std::int64_t index, std::span<std::int32_t> inputs,
                    std::span<std::int32_t> labels);

  // The thread's own.
  std::unique_ptr<Samples> samples;
  const BatchShape shape;
  const Retries retries;

  // The consumer's own.
  std::int64_t next_step;
  const std::int64_t last;
  StepBatch current;
  double waited = 0;  ///< seconds

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
      if (!fill(stop, batch, step)) return;
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

/// This rank's share of the step; false when the loader is being destroyed.
bool Loader::Impl::fill(const std::stop_token& stop, StepBatch& batch, std::int64_t step) {
  const std::int64_t micro_batches = shape.micro_batches();
  const auto size = static_cast<std::size_t>(micro_batches * shape.micro_batch * shape.sequence_length);
  batch.step = step;
  batch.counted = 0;
  batch.inputs.resize(size);  // allocates in a buffer's first round only
  batch.labels.resize(size);
  const auto sequence_length = static_cast<std::size_t>(shape.sequence_length);
  std::size_t at = 0;
  for (std::int64_t m = 0; m < micro_batches; ++m) {
    const std::int64_t first = step * shape.batch + (m * shape.ranks + shape.rank) * shape.micro_batch;
    for (std::int64_t j = 0; j < shape.micro_batch; ++j, at += sequence_length) {
      const std::int64_t counted = read(stop, first + j, std::span(batch.inputs).subspan(at, sequence_length),
                                        std::span(batch.labels).subspan(at, sequence_length));
      if (counted < 0) return false;
      batch.counted += counted;
    }
  }
  return true;
}

/// One sample, tried again where it cannot be read; -1 when the loader is being destroyed.
std::int64_t Loader::Impl::read(const std::stop_token& stop, std::int64_t index,
                                std::span<std::int32_t> inputs, std::span<std::int32_t> labels) {
  auto wait = retries.first_wait;
  for (int tried = 1;; ++tried, wait *= 2) {
    try {
      return samples->read(index, inputs, labels);
    } catch (const Error& met) {
      if (tried > retries.times) {
        if (retries.times == 0) throw;
        const auto total = retries.first_wait * ((1 << retries.times) - 1);
        fail("{} (sample {} was tried {} times over {:.1f} s)", met.what(), index, tried,
             std::chrono::duration<double>(total).count());
      }
    }
    std::unique_lock lock(mutex);
    std::condition_variable_any nothing;  // a wait that only the end of the loader cuts short
    nothing.wait_for(lock, stop, wait, [] { return false; });
    if (stop.stop_requested()) return -1;
  }
}

Loader::Loader(std::unique_ptr<Samples> samples, BatchShape shape, std::int64_t first_step,
               std::int64_t last_step, int depth, Retries retries) {
  require(shape.ranks > 0 && shape.rank >= 0 && shape.rank < shape.ranks, "rank {} of {}", shape.rank,
          shape.ranks);
  require(shape.micro_batch > 0 && shape.batch > 0 && shape.batch % (shape.micro_batch * shape.ranks) == 0,
          "batch {} is not a multiple of micro-batch {} x {} ranks", shape.batch, shape.micro_batch,
          shape.ranks);
  require(samples->length() == shape.sequence_length, "samples of {} inputs for sequences of {}",
          samples->length(), shape.sequence_length);
  require(depth > 0 && first_step >= 0, "depth {}, first step {}", depth, first_step);
  require(retries.times >= 0 && retries.times < 20, "{} retries", retries.times);
  impl_ = std::make_unique<Impl>(std::move(samples), shape, first_step, last_step, depth, retries);
}

Loader::~Loader() = default;

const StepBatch& Loader::next() {
  Impl& impl = *impl_;
  require(impl.next_step < impl.last, "step {} is past the loader's last", impl.next_step);
  std::unique_lock lock(impl.mutex);
  impl.spare.push_back(std::exchange(impl.current, {}));  // the first time, one more empty buffer
  impl.spare_added.notify_one();
  if (impl.ready.empty() && !impl.error) {
    const ElapsedTime elapsed;
    impl.ready_added.wait(lock, [&] { return !impl.ready.empty() || impl.error; });
    impl.waited += elapsed.seconds();
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
