// The gated recurrence on keys and values, and the rotary position embedding of queries and keys, in one pass
// (docs/model.md, section 5). RoPE: Su et al., "RoFormer", 2021.
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/head_rows.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/simd.h"

namespace ratplus::cpu {
namespace {

/// Sizes of a call, and the split of its work. The scan runs in t; sequences and channels are independent, so a task is a
/// sequence and a range of heads: as wide as the threads allow, for long runs of memory.
struct Sizes {
  /// rows: any [B, T, H, P] of the call.
  Sizes(const Tensor& rows, std::int64_t first_position, int threads)
      : batch(rows.size(0)),
        tokens(rows.size(1)),
        heads(rows.size(2)),
        head_dim(rows.size(3)),
        first(first_position) {
    const std::int64_t ranges = std::min(heads, (2 * threads + batch - 1) / std::max<std::int64_t>(batch, 1));
    heads_per_task = (heads + ranges - 1) / std::max<std::int64_t>(ranges, 1);
    tasks_per_sequence = (heads + heads_per_task - 1) / std::max<std::int64_t>(heads_per_task, 1);
  }

  std::int64_t batch, tokens, heads, head_dim, first;
  std::int64_t heads_per_task, tasks_per_sequence;
};

/// Heads [begin, end) of a carried state into a task's [2, heads, P], zeros where there is none.
void load_state(float* state, const Tensor& from, std::int64_t b, std::int64_t begin, std::int64_t end,
                std::int64_t p) {
  const std::int64_t width = (end - begin) * p;
  if (from.empty()) {
    std::fill(state, state + 2 * width, 0.0f);
    return;
  }
  for (const StatePart part : {state_k, state_v}) {
    const float* first = at(from, b, part, begin);
    std::copy(first, first + width, state + part * width);
  }
}

void store_state(const Tensor& to, const float* state, std::int64_t b, std::int64_t begin, std::int64_t end,
                 std::int64_t p) {
  if (to.empty()) return;
  const std::int64_t width = (end - begin) * p;
  for (const StatePart part : {state_k, state_v}) {
    std::copy(state + part * width, state + (part + 1) * width, at(to, b, part, begin));
  }
}

/// How far ahead a scan prefetches, in positions, for rows of `width` channels: some 4 KiB of each tensor. It
/// goes through many tensors at once, partly backwards: more than the processor foresees by itself.
std::int64_t prefetch_distance(std::int64_t width) {
  return std::max<std::int64_t>(1, 1024 / width);
}

/// What a step reads and writes at (b, t, h); every pointer has P channels, cos and sin P / 2.
struct ForwardStep {
  const float *q, *k, *v, *f, *cos, *sin;
  float *k_state, *v_state;  ///< k~, v~ at t - 1, replaced by those at t; unused without the gate
  float *q_rot, *k_rot, *v_rec;
};

template <bool gated>
void forward_step(const ForwardStep& s, std::int64_t half) {
  const float* __restrict q = s.q;
  const float* __restrict k = s.k;
  const float* __restrict v = s.v;
  const float* __restrict f = s.f;
  const float* __restrict cos = s.cos;
  const float* __restrict sin = s.sin;
  float* __restrict k_state = s.k_state;
  float* __restrict v_state = s.v_state;
  float* __restrict q_rot = s.q_rot;
  float* __restrict k_rot = s.k_rot;
  float* __restrict v_rec = s.v_rec;
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const std::int64_t j = i + half;
    float k0 = k[i], k1 = k[j], v0 = v[i], v1 = v[j];
    if constexpr (gated) {
      const float g0 = sigmoid(f[i]), g1 = sigmoid(f[j]);
      k0 += g0 * (k_state[i] - k0);  // g k~ + (1 - g) k
      k1 += g1 * (k_state[j] - k1);
      v0 += g0 * (v_state[i] - v0);
      v1 += g1 * (v_state[j] - v1);
      k_state[i] = k0;
      k_state[j] = k1;
      v_state[i] = v0;
      v_state[j] = v1;
    }
    q_rot[i] = q[i] * cos[i] - q[j] * sin[i];
    q_rot[j] = q[j] * cos[i] + q[i] * sin[i];
    k_rot[i] = k0 * cos[i] - k1 * sin[i];
    k_rot[j] = k1 * cos[i] + k0 * sin[i];
    v_rec[i] = v0;
    v_rec[j] = v1;
  }
}

struct BackwardStep {
  const float *dq_rot, *dk_rot, *dv_rec, *cos, *sin;
  const float *k, *v, *f;                    ///< gated only, as all below
  const float *k_rot_before, *v_rec_before;  ///< the forward's outputs at t - 1, or zeros
  const float *cos_before, *sin_before;
  float *k_carry, *v_carry;  ///< g_{t+1} s_{t+1}, replaced by g_t s_t
  float *dq, *dk, *dv, *df;
};

template <bool gated>
void backward_step(const BackwardStep& s, std::int64_t half) {
  const float* __restrict dq_rot = s.dq_rot;
  const float* __restrict dk_rot = s.dk_rot;
  const float* __restrict dv_rec = s.dv_rec;
  const float* __restrict cos = s.cos;
  const float* __restrict sin = s.sin;
  const float* __restrict cos_before = s.cos_before;
  const float* __restrict sin_before = s.sin_before;
  const float* __restrict k_rot_before = s.k_rot_before;
  const float* __restrict v_before = s.v_rec_before;
  float* __restrict k_carry = s.k_carry;
  float* __restrict v_carry = s.v_carry;
  float* __restrict dq = s.dq;
  float* __restrict dk = s.dk;
  float* __restrict dv = s.dv;
  float* __restrict df = s.df;
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const std::int64_t j = i + half;
    // A rotation's transpose is its inverse.
    dq[i] = dq_rot[i] * cos[i] + dq_rot[j] * sin[i];
    dq[j] = dq_rot[j] * cos[i] - dq_rot[i] * sin[i];
    float sk0 = dk_rot[i] * cos[i] + dk_rot[j] * sin[i];
    float sk1 = dk_rot[j] * cos[i] - dk_rot[i] * sin[i];
    float sv0 = dv_rec[i], sv1 = dv_rec[j];
    if constexpr (gated) {
      const float g0 = sigmoid(s.f[i]), g1 = sigmoid(s.f[j]);
      sk0 += k_carry[i];
      sk1 += k_carry[j];
      sv0 += v_carry[i];
      sv1 += v_carry[j];
      k_carry[i] = g0 * sk0;
      k_carry[j] = g1 * sk1;
      v_carry[i] = g0 * sv0;
      v_carry[j] = g1 * sv1;
      // k~_{t-1}, turned back by its own position.
      const float k_before0 = k_rot_before[i] * cos_before[i] + k_rot_before[j] * sin_before[i];
      const float k_before1 = k_rot_before[j] * cos_before[i] - k_rot_before[i] * sin_before[i];
      const float dg0 = sk0 * (k_before0 - s.k[i]) + sv0 * (v_before[i] - s.v[i]);
      const float dg1 = sk1 * (k_before1 - s.k[j]) + sv1 * (v_before[j] - s.v[j]);
      df[i] = dg0 * (g0 * (1.0f - g0));
      df[j] = dg1 * (g1 * (1.0f - g1));
      sk0 *= 1.0f - g0;
      sk1 *= 1.0f - g1;
      sv0 *= 1.0f - g0;
      sv1 *= 1.0f - g1;
    }
    dk[i] = sk0;
    dk[j] = sk1;
    dv[i] = sv0;
    dv[j] = sv1;
  }
}

/// The scan of heads [begin, end) of sequence b. state: [2, heads, P].
template <bool gated>
void forward_heads(const operation::RecurrenceForward& f, std::int64_t b, std::int64_t begin,
                   std::int64_t end, const Sizes& sizes, float* state) {
  const std::int64_t p = sizes.head_dim, width = (end - begin) * p;
  const std::int64_t ahead = prefetch_distance(width);
  if (gated) load_state(state, f.state_in, b, begin, end, p);
  for (std::int64_t t = 0; t < sizes.tokens; ++t) {
    const float* cos = f.rope.as<float>() + (sizes.first + t) * p;
    for (std::int64_t h = begin; h < end; ++h) {
      if (t + ahead < sizes.tokens) {
        for (const Tensor* rows : {&f.q, &f.k, &f.v, &f.q_rot, &f.k_rot, &f.v_rec})
          prefetch(at(*rows, b, t + ahead, h), p);
        if (gated) prefetch(at(f.f, b, t + ahead, h), p);
      }
      ForwardStep step{};
      step.q = at(f.q, b, t, h);
      step.k = at(f.k, b, t, h);
      step.v = at(f.v, b, t, h);
      if (gated) step.f = at(f.f, b, t, h);
      step.cos = cos;
      step.sin = cos + p / 2;
      step.k_state = state + (h - begin) * p;
      step.v_state = step.k_state + width;
      step.q_rot = at(f.q_rot, b, t, h);
      step.k_rot = at(f.k_rot, b, t, h);
      step.v_rec = at(f.v_rec, b, t, h);
      forward_step<gated>(step, p / 2);
    }
  }
  if (gated) store_state(f.state_out, state, b, begin, end, p);
}

/// The reversed scan of heads [begin, end) of sequence b. state: [2, heads, P] carries, then P zeros.
template <bool gated>
void backward_heads(const operation::RecurrenceBackward& g, std::int64_t b, std::int64_t begin,
                    std::int64_t end, const Sizes& sizes, float* state) {
  const std::int64_t p = sizes.head_dim, width = (end - begin) * p;
  const std::int64_t ahead = prefetch_distance(width);
  const float* zeros = state + 2 * width;
  if (gated) {
    load_state(state, g.dstate_out, b, begin, end,
               p);  // the carry after the last token is its state's gradient
    std::fill(state + 2 * width, state + 2 * width + p, 0.0f);
  }
  for (std::int64_t t = sizes.tokens; t-- > 0;) {
    const std::int64_t position = sizes.first + t;
    const float* cos = g.rope.as<float>() + position * p;
    for (std::int64_t h = begin; h < end; ++h) {
      if (t > ahead) {
        const std::int64_t next = t - ahead;
        for (const Tensor* rows : {&g.dq, &g.dk, &g.dv, &g.dq_rot, &g.dk_rot, &g.dv_rec})
          prefetch(at(*rows, b, next, h), p);
        if (gated) {
          for (const Tensor* rows : {&g.k, &g.v, &g.f, &g.df}) prefetch(at(*rows, b, next, h), p);
          for (const Tensor* output : {&g.k_rot, &g.v_rec}) prefetch(at(*output, b, next - 1, h), p);
        }
      }
      BackwardStep step{};
      step.dq_rot = at(g.dq_rot, b, t, h);
      step.dk_rot = at(g.dk_rot, b, t, h);
      step.dv_rec = at(g.dv_rec, b, t, h);
      step.cos = cos;
      step.sin = cos + p / 2;
      step.dq = at(g.dq, b, t, h);
      step.dk = at(g.dk, b, t, h);
      step.dv = at(g.dv, b, t, h);
      if (gated) {
        step.k = at(g.k, b, t, h);
        step.v = at(g.v, b, t, h);
        step.f = at(g.f, b, t, h);
        const bool carried = t == 0 && !g.k_rot_before.empty();
        step.k_rot_before = t > 0 ? at(g.k_rot, b, t - 1, h) : carried ? at(g.k_rot_before, b, 0, h) : zeros;
        step.v_rec_before = t > 0 ? at(g.v_rec, b, t - 1, h) : carried ? at(g.v_rec_before, b, 0, h) : zeros;
        step.cos_before = position > 0 ? cos - p : cos;
        step.sin_before = step.cos_before + p / 2;
        step.k_carry = state + (h - begin) * p;
        step.v_carry = step.k_carry + width;
        step.df = at(g.df, b, t, h);
      }
      backward_step<gated>(step, p / 2);
    }
  }
  if (gated) store_state(g.dstate_in, state, b, begin, end, p);
}

/// Calls body(b, first head, end head, state) for every task, over the threads.
template <typename Body>
void for_tasks(const Sizes& sizes, int threads, float* scratch, Body&& body) {
  const std::int64_t state = recurrence_state_floats(sizes.heads, sizes.head_dim);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t task = 0; task < sizes.batch * sizes.tasks_per_sequence; ++task) {
    const std::int64_t begin = task % sizes.tasks_per_sequence * sizes.heads_per_task;
    body(task / sizes.tasks_per_sequence, begin, std::min(begin + sizes.heads_per_task, sizes.heads),
         scratch + omp_get_thread_num() * state);
  }
}

}  // namespace

std::int64_t recurrence_scratch(const OpShapes& shapes, int threads) {
  return threads * recurrence_state_floats(shapes.heads, shapes.head_dim);
}

void CpuOps::compute(const operation::RopeTable& call) {
  const Tensor& table = call.table;
  const double base = call.base;
  const std::int64_t tokens = table.size(0), half = table.size(2);
  float* out = table.as<float>();
#pragma omp parallel for schedule(static) num_threads(threads_)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t chunk = t / call.chunk;
    const double position = static_cast<double>(chunk) / call.scale;
    for (std::int64_t i = 0; i < half; ++i) {
      const double frequency = std::pow(base, -static_cast<double>(i) / static_cast<double>(half));
      const double angle = position * frequency;
      out[(2 * t) * half + i] = static_cast<float>(std::cos(angle));
      out[(2 * t + 1) * half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

void CpuOps::compute(const operation::RecurrenceForward& call) {
  if (!call.plain()) {
    if (call.q) rotate_heads(call.q_rot, call.q, call.rope, call.first_position, threads_);
    if (call.gated()) {
      const auto floats = threads_ * recurrence_state_floats(call.f.size(2), call.f.size(3));
      return recurrence_in_chunks(call, scratch(floats, call.name), threads_);
    }
    if (call.k) rotate_heads(call.k_rot, call.k, call.rope, call.first_position, threads_);
    if (call.v) compute(operation::Copy{call.v_rec, call.v});
    return;
  }
  const Sizes sizes(call.q, call.first_position, threads_);
  const auto heads = call.gated() ? forward_heads<true> : forward_heads<false>;
  float* states = scratch(threads_ * recurrence_state_floats(sizes.heads, sizes.head_dim), call.name);
  for_tasks(sizes, threads_, states, [&](std::int64_t b, std::int64_t begin, std::int64_t end, float* state) {
    heads(call, b, begin, end, sizes, state);
  });
}

void CpuOps::compute(const operation::RecurrenceBackward& call) {
  if (!call.plain()) {
    if (call.dq) rotate_heads_back(call.dq, call.dq_rot, call.rope, call.first_position, threads_);
    if (call.gated()) {
      const auto floats = threads_ * recurrence_state_floats(call.f.size(2), call.f.size(3));
      return recurrence_in_chunks(call, scratch(floats, call.name), threads_);
    }
    if (call.dk) rotate_heads_back(call.dk, call.dk_rot, call.rope, call.first_position, threads_);
    if (call.dv) compute(operation::Copy{call.dv, call.dv_rec});
    return;
  }
  const Sizes sizes(call.dq, call.first_position, threads_);
  const auto heads = call.gated() ? backward_heads<true> : backward_heads<false>;
  float* states = scratch(threads_ * recurrence_state_floats(sizes.heads, sizes.head_dim), call.name);
  for_tasks(sizes, threads_, states, [&](std::int64_t b, std::int64_t begin, std::int64_t end, float* state) {
    heads(call, b, begin, end, sizes, state);
  });
}

}  // namespace ratplus::cpu
