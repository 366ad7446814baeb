// The gated recurrence where it restarts with every chunk, has a bias in its gate, or keys that heads share; and the rotary
// embedding of queries and keys of different numbers of heads (docs/model.md, section 5). Sums over heads that share
// have the order of the heads.
#include <omp.h>

#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/head_rows.h"
#include "kernels/cpu/math.h"

namespace ratplus::cpu {
namespace {

/// The heads of a task: begin, begin + step, ... below end.
struct TaskHeads {
  std::int64_t begin, end, step;

  std::int64_t count() const { return (end - begin + step - 1) / step; }
  template <typename F>
  void for_each(F&& f) const {
    for (std::int64_t h = begin, i = 0; h < end; h += step, ++i) f(h, i);
  }
};

/// Calls body(b, heads, thread) for all H heads of all sequences, over the threads: `shared` heads of keys each with all
/// that read it, or, where none are shared, ranges of heads.
template <typename Body>
void for_heads(std::int64_t batch, std::int64_t heads, std::int64_t shared, int threads, Body&& body) {
  const std::int64_t ranges =
      shared < heads ? shared : std::min(heads, (2 * threads + batch - 1) / std::max<std::int64_t>(batch, 1));
  const std::int64_t each = (heads + ranges - 1) / std::max<std::int64_t>(ranges, 1);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t task = 0; task < batch * ranges; ++task) {
    const std::int64_t b = task / ranges, i = task % ranges;
    const TaskHeads range = shared < heads
                                ? TaskHeads{i, heads, shared}
                                : TaskHeads{std::min(i * each, heads), std::min((i + 1) * each, heads), 1};
    body(b, range, omp_get_thread_num());
  }
}

/// k~ and v~ of a task's heads, [heads, 2, P], then P zeros.
class States {
 public:
  States(float* memory, std::int64_t heads, std::int64_t head_dim)
      : memory_(memory), p_(head_dim), zeros_(memory + 2 * heads * head_dim) {
    clear(heads);
    std::fill(zeros_, zeros_ + p_, 0.0f);
  }
  float* k(std::int64_t i) const { return memory_ + 2 * i * p_; }
  float* v(std::int64_t i) const { return k(i) + p_; }
  const float* zeros() const { return zeros_; }
  void clear(std::int64_t heads) { std::fill(memory_, memory_ + 2 * heads * p_, 0.0f); }
  void load(const Tensor& from, std::int64_t b, const TaskHeads& heads) {
    if (from.empty()) return;
    heads.for_each([&](std::int64_t h, std::int64_t i) {
      for (const StatePart part : {state_k, state_v}) {
        const float* row = at(from, b, part, h);
        std::copy(row, row + p_, part == state_k ? k(i) : v(i));
      }
    });
  }
  void store(const Tensor& to, std::int64_t b, const TaskHeads& heads) const {
    if (to.empty()) return;
    heads.for_each([&](std::int64_t h, std::int64_t i) {
      for (const StatePart part : {state_k, state_v}) {
        const float* row = part == state_k ? k(i) : v(i);
        std::copy(row, row + p_, at(to, b, part, h));
      }
    });
  }

 private:
  float* memory_;
  std::int64_t p_;
  float* zeros_;
};

bool restarts(std::int64_t position, std::int64_t chunk) {
  return chunk > 0 && position % chunk == 0;
}

/// One head at one position; cos and sin have P / 2 channels, all others P.
struct ForwardStep {
  const float *k, *v, *f, *bias, *cos, *sin;
  float *k_state, *v_state, *k_rot, *v_rec;
};

template <bool keys>
void forward_step(const ForwardStep& s, std::int64_t half) {
  const float* __restrict k = s.k;
  const float* __restrict v = s.v;
  const float* __restrict f = s.f;
  const float* __restrict bias = s.bias;
  const float* __restrict cos = s.cos;
  const float* __restrict sin = s.sin;
  float* __restrict k_state = s.k_state;
  float* __restrict v_state = s.v_state;
  float* __restrict k_rot = s.k_rot;
  float* __restrict v_rec = s.v_rec;
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const std::int64_t j = i + half;
    const float g0 = sigmoid(f[i] + bias[i]), g1 = sigmoid(f[j] + bias[j]);
    const float v0 = v[i] + g0 * (v_state[i] - v[i]), v1 = v[j] + g1 * (v_state[j] - v[j]);
    v_state[i] = v0;
    v_state[j] = v1;
    v_rec[i] = v0;
    v_rec[j] = v1;
    if constexpr (keys) {
      const float k0 = k[i] + g0 * (k_state[i] - k[i]), k1 = k[j] + g1 * (k_state[j] - k[j]);
      k_state[i] = k0;
      k_state[j] = k1;
      k_rot[i] = k0 * cos[i] - k1 * sin[i];
      k_rot[j] = k1 * cos[i] + k0 * sin[i];
    }
  }
}

template <bool keys>
void forward_heads(const operation::RecurrenceForward& call, std::int64_t b, const TaskHeads& heads,
                   States& states) {
  const std::int64_t p = call.f.size(3), shared = keys ? call.k.size(2) : 1;
  states.load(call.state_in, b, heads);
  for (std::int64_t t = 0; t < call.f.size(1); ++t) {
    const std::int64_t position = call.first_position + t;
    if (restarts(position, call.chunk)) states.clear(heads.count());
    heads.for_each([&](std::int64_t h, std::int64_t i) {
      ForwardStep step{};
      step.v = at(call.v, b, t, h);
      step.f = at(call.f, b, t, h);
      step.bias = call.gate_bias ? call.gate_bias.as<float>() + h * p : states.zeros();
      step.v_state = states.v(i);
      step.v_rec = at(call.v_rec, b, t, h);
      if constexpr (keys) {
        step.k = at(call.k, b, t, h % shared);
        step.cos = call.rope.as<float>() + position * p;
        step.sin = step.cos + p / 2;
        step.k_state = states.k(i);
        step.k_rot = at(call.k_rot, b, t, h);
      }
      forward_step<keys>(step, p / 2);
    });
  }
  states.store(call.state_out, b, heads);
}

struct BackwardStep {
  const float *dk_rot, *dv_rec, *k, *v, *f, *bias, *cos, *sin;
  const float *k_rot_before, *v_rec_before, *cos_before, *sin_before;
  float *k_carry, *v_carry;  ///< g_{t+1} s_{t+1}, replaced by g_t s_t
  float *dk, *dv, *df;
};

/// adds: dk holds the sum over earlier heads.
template <bool keys, bool adds>
void backward_step(const BackwardStep& s, std::int64_t half) {
  const float* __restrict dk_rot = s.dk_rot;
  const float* __restrict dv_rec = s.dv_rec;
  const float* __restrict k = s.k;
  const float* __restrict v = s.v;
  const float* __restrict f = s.f;
  const float* __restrict bias = s.bias;
  const float* __restrict cos = s.cos;
  const float* __restrict sin = s.sin;
  const float* __restrict k_rot_before = s.k_rot_before;
  const float* __restrict v_before = s.v_rec_before;
  const float* __restrict cos_before = s.cos_before;
  const float* __restrict sin_before = s.sin_before;
  float* __restrict k_carry = s.k_carry;
  float* __restrict v_carry = s.v_carry;
  float* __restrict dk = s.dk;
  float* __restrict dv = s.dv;
  float* __restrict df = s.df;
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const std::int64_t j = i + half;
    const float g0 = sigmoid(f[i] + bias[i]), g1 = sigmoid(f[j] + bias[j]);
    const float sv0 = dv_rec[i] + v_carry[i], sv1 = dv_rec[j] + v_carry[j];
    float dg0 = sv0 * (v_before[i] - v[i]), dg1 = sv1 * (v_before[j] - v[j]);
    v_carry[i] = g0 * sv0;
    v_carry[j] = g1 * sv1;
    dv[i] = sv0 * (1.0f - g0);
    dv[j] = sv1 * (1.0f - g1);
    if constexpr (keys) {
      const float sk0 = dk_rot[i] * cos[i] + dk_rot[j] * sin[i] + k_carry[i];
      const float sk1 = dk_rot[j] * cos[i] - dk_rot[i] * sin[i] + k_carry[j];
      const float k_before0 = k_rot_before[i] * cos_before[i] + k_rot_before[j] * sin_before[i];
      const float k_before1 = k_rot_before[j] * cos_before[i] - k_rot_before[i] * sin_before[i];
      dg0 += sk0 * (k_before0 - k[i]);
      dg1 += sk1 * (k_before1 - k[j]);
      k_carry[i] = g0 * sk0;
      k_carry[j] = g1 * sk1;
      dk[i] = (adds ? dk[i] : 0.0f) + sk0 * (1.0f - g0);
      dk[j] = (adds ? dk[j] : 0.0f) + sk1 * (1.0f - g1);
    }
    df[i] = dg0 * (g0 * (1.0f - g0));
    df[j] = dg1 * (g1 * (1.0f - g1));
  }
}

template <bool keys>
void backward_heads(const operation::RecurrenceBackward& call, std::int64_t b, const TaskHeads& heads,
                    States& carries) {
  const std::int64_t p = call.f.size(3), shared = keys ? call.k.size(2) : 1;
  carries.load(call.dstate_out, b, heads);  // the carry after the last token is its state's gradient
  for (std::int64_t t = call.f.size(1); t-- > 0;) {
    const std::int64_t position = call.first_position + t;
    const bool first = restarts(position, call.chunk);
    // The state before: of the token before, of the piece before, or zero.
    const bool inside = t > 0 && !first, carried = t == 0 && !first && !call.v_rec_before.empty();
    const auto before = [&](const Tensor& here, const Tensor& earlier, std::int64_t h) -> const float* {
      return inside ? at(here, b, t - 1, h) : carried ? at(earlier, b, 0, h) : carries.zeros();
    };
    heads.for_each([&](std::int64_t h, std::int64_t i) {
      BackwardStep step{};
      step.dv_rec = at(call.dv_rec, b, t, h);
      step.v = at(call.v, b, t, h);
      step.f = at(call.f, b, t, h);
      step.bias = call.gate_bias ? call.gate_bias.as<float>() + h * p : carries.zeros();
      step.v_rec_before = before(call.v_rec, call.v_rec_before, h);
      step.v_carry = carries.v(i);
      step.dv = at(call.dv, b, t, h);
      step.df = at(call.df, b, t, h);
      if constexpr (keys) {
        step.dk_rot = at(call.dk_rot, b, t, h);
        step.k = at(call.k, b, t, h % shared);
        step.cos = call.rope.as<float>() + position * p;
        step.sin = step.cos + p / 2;
        step.cos_before = position > 0 ? step.cos - p : step.cos;
        step.sin_before = step.cos_before + p / 2;
        step.k_rot_before = before(call.k_rot, call.k_rot_before, h);
        step.k_carry = carries.k(i);
        step.dk = at(call.dk, b, t, h % shared);
      }
      const auto run = keys && h >= shared ? backward_step<keys, true> : backward_step<keys, false>;
      run(step, p / 2);
    });
    if (first) carries.clear(heads.count());
  }
  carries.store(call.dstate_in, b, heads);
}

enum class Turn { forward, backward };

/// out [B, T, G, P] = RoPE of x [B, T, H, P], or its transpose; of the heads that share one of out, the sum.
void turn_heads(const Tensor& out, const Tensor& x, const Tensor& rope, std::int64_t first_position,
                Turn direction, int threads) {
  const std::int64_t tokens = x.size(1), heads = x.size(2), p = x.size(3), half = p / 2, shared = out.size(2);
  const float sign = direction == Turn::forward ? 1.0f : -1.0f;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t row = 0; row < x.size(0) * tokens; ++row) {
    const std::int64_t b = row / tokens, t = row % tokens;
    const float* __restrict cos = rope.as<float>() + (first_position + t) * p;
    const float* __restrict sin = cos + half;
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* __restrict from = at(x, b, t, h);
      float* __restrict to = at(out, b, t, h % shared);
      if (h < shared) std::fill(to, to + p, 0.0f);
#pragma omp simd
      for (std::int64_t i = 0; i < half; ++i) {
        const std::int64_t j = i + half;
        to[i] += from[i] * cos[i] - sign * (from[j] * sin[i]);
        to[j] += from[j] * cos[i] + sign * (from[i] * sin[i]);
      }
    }
  }
}

}  // namespace

void recurrence_in_chunks(const operation::RecurrenceForward& call, float* scratch, int threads) {
  const std::int64_t heads = call.f.size(2), per_thread = recurrence_state_floats(heads, call.f.size(3));
  for_heads(call.f.size(0), heads, heads, threads, [&](std::int64_t b, const TaskHeads& range, int thread) {
    States states(scratch + thread * per_thread, range.count(), call.f.size(3));
    const auto run = call.k.empty() ? forward_heads<false> : forward_heads<true>;
    run(call, b, range, states);
  });
}

void recurrence_in_chunks(const operation::RecurrenceBackward& call, float* scratch, int threads) {
  const std::int64_t heads = call.f.size(2), per_thread = recurrence_state_floats(heads, call.f.size(3));
  for_heads(call.f.size(0), heads, call.dk.empty() ? heads : call.dk.size(2), threads,
            [&](std::int64_t b, const TaskHeads& range, int thread) {
              States carries(scratch + thread * per_thread, range.count(), call.f.size(3));
              const auto run = call.dk.empty() ? backward_heads<false> : backward_heads<true>;
              run(call, b, range, carries);
            });
}

void rotate_heads(const Tensor& out, const Tensor& x, const Tensor& rope, std::int64_t first_position,
                  int threads) {
  turn_heads(out, x, rope, first_position, Turn::forward, threads);
}

void rotate_heads_back(const Tensor& out, const Tensor& x, const Tensor& rope, std::int64_t first_position,
                       int threads) {
  turn_heads(out, x, rope, first_position, Turn::backward, threads);
}

void CpuOps::compute(const operation::AddColumnSums& call) {
  constexpr std::int64_t piece = 256;  // columns of a task
  const std::int64_t rows = call.x.size(0), columns = call.x.size(1);
  float* sums = call.sums.as<float>();
#pragma omp parallel for schedule(static) num_threads(threads_)
  for (std::int64_t begin = 0; begin < columns; begin += piece) {
    const std::int64_t count = std::min(piece, columns - begin);
    double total[piece] = {};
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* x = call.x.as<float>() + row * call.x.stride(0) + begin;
#pragma omp simd
      for (std::int64_t i = 0; i < count; ++i) total[i] += x[i];
    }
    for (std::int64_t i = 0; i < count; ++i)
      sums[(begin + i) * call.sums.stride(0)] += static_cast<float>(total[i]);
  }
}

}  // namespace ratplus::cpu
