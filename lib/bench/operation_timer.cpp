#include "lib/bench/operation_timer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/median.h"
#include "base/random.h"

namespace ratplus::bench {
namespace {

constexpr double least_seconds = 0.3;  ///< that an operation is repeated for
constexpr int least_repeats = 5;
constexpr double batch_seconds =
    5e-3;  ///< calls are timed in batches of about this length: a GPU's are short

/// Sums what a backend's calls cost while it observes them.
class CostSum final : public OpObserver {
 public:
  explicit CostSum(Ops& ops) : ops_(ops) { ops_.observe(this); }
  ~CostSum() override { ops_.observe(nullptr); }
  CostSum(const CostSum&) = delete;
  CostSum& operator=(const CostSum&) = delete;

  void began(const OpCall&) override {}
  void ended(const OpCall& call) override {
    const Cost cost = call.cost();
    operations += cost.operations;
    bytes += cost.bytes;
  }
  double operations = 0, bytes = 0;

 private:
  Ops& ops_;
};

}  // namespace

double median_seconds(Ops& ops, const std::function<void()>& call) {
  const auto stopwatch = ops.make_stopwatch();
  const auto time = [&](int calls) {
    const int began = stopwatch->mark();
    for (int i = 0; i < calls; ++i) call();
    return stopwatch->seconds(began, stopwatch->mark()) / calls;
  };
  time(1);
  const int calls = static_cast<int>(std::clamp(batch_seconds / std::max(time(1), 1e-9), 1.0, 1000.0));
  std::vector<double> times;
  double total = 0;
  while (static_cast<int>(times.size()) < least_repeats || total < least_seconds) {
    times.push_back(time(calls));
    total += times.back() * calls;
  }
  return median(std::move(times));
}

OpTime time_both(Ops& ops, const std::string& name, const std::function<void()>& forward,
                 const std::function<void()>& backward) {
  OpTime time{.name = name};
  {
    const CostSum cost(ops);
    forward();
    if (backward) backward();
    time.operations = cost.operations;
    time.bytes = cost.bytes;
  }
  time.forward = median_seconds(ops, forward);
  if (backward) time.backward = median_seconds(ops, backward);
  return time;
}

RandomTensors::RandomTensors(Ops& ops, Arena& arena) : ops_(ops), arena_(arena) {
  if (!arena.committed()) return;
  std::vector<float> values(period);
  fill_normal(values, 1.0F, 7, Purpose::test, 0, 0);
  pool_ = Buffer(ops.device(), period * size_of(DType::f32));
  ops.upload(pool_.as_tensor(DType::f32), values.data());
}

Tensor RandomTensors::make(DType dtype, std::initializer_list<std::int64_t> shape) {
  const Tensor x = arena_.allocate(dtype, shape);
  if (!arena_.committed()) return x;
  // The values repeat, at a distance that differs from tensor to tensor.
  const std::int64_t step = period - 1024 * (++made_ % 64);
  const Tensor flat = x.view({x.numel()}), pool = pool_.as_tensor(DType::f32);
  for (std::int64_t begin = 0; begin < x.numel(); begin += step) {
    const auto end = std::min(begin + step, x.numel());
    ops_.copy(flat.slice(0, begin, end), pool.slice(0, 0, end - begin));
  }
  ops_.synchronize();
  return x;
}

}  // namespace ratplus::bench
