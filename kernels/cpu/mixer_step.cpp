// The step of a mixer: one token of each sequence (docs/model.md, section 19).
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <tuple>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/cache_rows.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/head_rows.h"
#include "kernels/cpu/math.h"

namespace ratplus::cpu {
namespace {

/// Entries whose scores exist at a time: the state of the softmax follows once for each.
constexpr std::int64_t score_block = 128;
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

std::int64_t step_floats(std::int64_t heads_of_key, std::int64_t head_dim) {
  return padded(head_dim) * (2 * heads_of_key + 3) + score_block * heads_of_key + 2 * padded(heads_of_key);
}

void rotate(float* out, const float* x, const float* rope, std::int64_t half) {
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    out[i] = x[i] * rope[i] - x[i + half] * rope[half + i];
    out[i + half] = x[i + half] * rope[i] + x[i] * rope[half + i];
  }
}

/// state = g state + (1 - g) x, g = sigmoid(f + bias).
void recur(float* state, const float* x, const float* f, const float* bias, std::int64_t p) {
#pragma omp simd
  for (std::int64_t i = 0; i < p; ++i) {
    const float g = sigmoid(bias ? f[i] + bias[i] : f[i]);
    state[i] = x[i] + g * (state[i] - x[i]);
  }
}

/// One head of keys of one sequence: its recurrence, and the queries that read it.
class KeyHead {
 public:
  KeyHead(const operation::MixerStep& call, std::int64_t b, std::int64_t m, float* memory)
      : call_(call),
        b_(b),
        m_(m),
        slot_(call.slots.as<std::int32_t>()[b]),
        t_(call.positions.as<std::int32_t>()[b]),
        p_(call.v.size(2)),
        width_(padded(p_)),
        key_head_(call.attends() ? call.cache.heads.as<std::int32_t>()[m] : m),
        sharing_(call.attends() ? heads_end() - heads_begin() : 1),
        memory_(memory) {
    for (float** row : {&k_rot_, &k_, &v_}) *row = carve(width_);
    queries_ = carve(sharing_ * width_), values_ = carve(sharing_ * width_);
    scores_ = carve(sharing_ * score_block);
    largest_ = carve(padded(sharing_)), sums_ = carve(padded(sharing_));
  }

  void run() {
    update_state();
    if (!call_.attends()) return finish(b_, key_head_, v_, 1.0f);
    const float* rope = call_.rope.as<float>() + t_ * p_;
    rotate(k_rot_, k_, rope, p_ / 2);
    begin_queries(rope);
    attend();
    for (std::int64_t j = 0; j < sharing_; ++j) finish(b_, head(j), values_ + j * width_, 1.0f / sums_[j]);
    append();
  }

  static std::int64_t scratch_floats(const operation::MixerStep& call) {
    return step_floats(call.attends() ? call.z.size(1) : 1, call.v.size(2));
  }

 private:
  float* carve(std::int64_t floats) {
    float* piece = memory_;
    memory_ += floats;
    return piece;
  }
  std::int64_t heads_begin() const { return call_.first_heads.as<std::int32_t>()[m_]; }
  std::int64_t heads_end() const { return call_.first_heads.as<std::int32_t>()[m_ + 1]; }
  std::int64_t head(std::int64_t j) const { return call_.heads.as<std::int32_t>()[heads_begin() + j]; }

  /// k_, v_: k~ and v~ of this token.
  void update_state() {
    const auto row = [&](const Tensor& x, std::int64_t h) { return head_row(x, b_, h); };
    const float* k = call_.attends() ? row(call_.k, key_head_ % call_.k.size(1)) : nullptr;
    const float* v = row(call_.v, key_head_);
    if (!call_.gated()) {
      if (k) std::copy_n(k, p_, k_);
      std::copy_n(v, p_, v_);
      return;
    }
    const float* f = row(call_.f, key_head_);
    const float* bias =
        call_.gate_bias ? call_.gate_bias.as<float>() + key_head_ * call_.gate_bias.stride(0) : nullptr;
    const bool restarts = call_.chunk > 0 ? t_ % call_.chunk == 0 : t_ == 0;
    for (const auto& [part, x, state] : {std::tuple{state_k, k, k_}, std::tuple{state_v, v, v_}}) {
      if (x == nullptr) continue;
      float* kept = at(call_.states, slot_, part, key_head_);
      if (restarts) {
        std::fill_n(state, p_, 0.0f);
      } else {
        std::copy_n(kept, p_, state);
      }
      recur(state, x, f, bias, p_);
      if (call_.keeps_state.empty() || call_.keeps_state.as<std::int32_t>()[m_] != 0)
        std::copy_n(state, p_, kept);
    }
  }

  /// The softmax of every query begins with the token's own key.
  void begin_queries(const float* rope) {
    const float scale = log2_e / std::sqrt(static_cast<float>(p_));
    for (std::int64_t j = 0; j < sharing_; ++j) {
      float* query = queries_ + j * width_;
      rotate(query, head_row(call_.q, b_, head(j) % call_.q.size(1)), rope, p_ / 2);
#pragma omp simd
      for (std::int64_t i = 0; i < p_; ++i) query[i] *= scale;
      largest_[j] = dot(query, k_rot_, p_);
      sums_[j] = 1.0f;
      std::copy_n(v_, p_, values_ + j * width_);
    }
  }

  /// The entries [begin, end) of one page.
  struct Segment {
    const float* keys;
    const float* values;
    std::int64_t begin, end;
  };

  void attend() {
    const CacheLayout layout = call_.cache.layout();
    const auto runs = layout.runs(t_);
    const CacheRows rows(call_.cache, call_.tables.as<std::int32_t>() + slot_ * call_.tables.stride(0),
                         call_.tables.size(1), p_);
    const std::int64_t entries = call_.cache.entries;
    const auto add = [&](std::int64_t first, std::int64_t count) {
      for (std::int64_t entry = first; entry < first + count;) {
        const std::int64_t begin = entry % entries, end = std::min(entries, begin + first + count - entry);
        segments_[static_cast<std::size_t>(count_++)] = {rows.keys(entry, m_), rows.values(entry, m_), begin,
                                                         end};
        entry += end - begin;
        if (count_ == score_block / entries) take_segments();
      }
    };
    add(0, runs.sinks);
    add(layout.sinks + layout.window, runs.dilated);
    if (runs.window > 0) {  // the ring, from its oldest entry on
      const std::int64_t oldest = layout.recent_entry(runs.window_begin);
      const std::int64_t behind = std::min(runs.window, layout.sinks + layout.window - oldest);
      add(oldest, behind);
      add(layout.sinks, runs.window - behind);
    }
    take_segments();
  }

  void take_segments() {
    if (count_ == 0) return;
    if (call_.cache.entries == 8) {
      take_segments_of<8>();
    } else {
      take_segments_of<16>();
    }
    count_ = 0;
  }

  template <std::int64_t entries>
  void take_segments_of() {
    for (std::int64_t j = 0; j < sharing_; ++j) {
      float* scores = scores_ + j * score_block;
      for (std::int64_t c = 0; c < count_; ++c) {
        const Segment& segment = segments_[static_cast<std::size_t>(c)];
        // Pages lie anywhere: beside the scores of one, the values that they will weigh and the keys of the next are fetched.
        if (j == 0) {
          prefetch(segment.values, entries * p_);
          if (c + 1 < count_) prefetch(segments_[static_cast<std::size_t>(c + 1)].keys, entries * p_);
        }
        score_page<entries>(scores + c * entries, queries_ + j * width_, segment.keys);
        std::fill(scores + c * entries, scores + c * entries + segment.begin, minus_infinity);
        std::fill(scores + c * entries + segment.end, scores + (c + 1) * entries, minus_infinity);
      }
      weigh(j, count_ * entries);
      float* values = values_ + j * width_;
      for (std::int64_t c = 0; c < count_; ++c) {
        const Segment& segment = segments_[static_cast<std::size_t>(c)];
        weigh_values(values, scores + c * entries + segment.begin, segment.values + segment.begin * p_,
                     segment.end - segment.begin);
      }
    }
  }

  /// Scores of all entries of a page, each summed over its channels in four interleaved parts.
  template <std::int64_t entries>
  void score_page(float* scores, const float* query, const float* keys) const {
    float parts[4][entries] = {};
    std::int64_t i = 0;
    for (; i + 4 <= p_; i += 4) {
#pragma GCC unroll 4
      for (std::int64_t part = 0; part < 4; ++part) {
        const float element = query[i + part];
        const float* row = keys + (i + part) * entries;
#pragma omp simd
        for (std::int64_t e = 0; e < entries; ++e) parts[part][e] += element * row[e];
      }
    }
    for (; i < p_; ++i) {
#pragma omp simd
      for (std::int64_t e = 0; e < entries; ++e) parts[0][e] += query[i] * keys[i * entries + e];
    }
#pragma omp simd
    for (std::int64_t e = 0; e < entries; ++e)
      scores[e] = (parts[0][e] + parts[1][e]) + (parts[2][e] + parts[3][e]);
  }

  /// values [P] += weights [count] of rows [count, P]; each channel in the order of the rows.
  void weigh_values(float* values, const float* weights, const float* rows, std::int64_t count) const {
    constexpr std::int64_t step = 4 * vec_width;
    std::int64_t i = 0;
    for (; i + step <= p_; i += step) {
      Vec sums[4];
#pragma GCC unroll 4
      for (int part = 0; part < 4; ++part) sums[part] = load(values + i + part * vec_width);
      for (std::int64_t c = 0; c < count; ++c) {
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part)
          sums[part] += weights[c] * load(rows + c * p_ + i + part * vec_width);
      }
#pragma GCC unroll 4
      for (int part = 0; part < 4; ++part) store(values + i + part * vec_width, sums[part]);
    }
    for (std::int64_t c = 0; c < count; ++c) {
#pragma omp simd
      for (std::int64_t j = i; j < p_; ++j) values[j] += weights[c] * rows[c * p_ + j];
    }
  }

  /// Scores become weights, relative to the largest so far.
  void weigh(std::int64_t j, std::int64_t count) {
    float* scores = scores_ + j * score_block;
    float largest = largest_[j];
#pragma omp simd reduction(max : largest)
    for (std::int64_t c = 0; c < count; ++c) largest = scores[c] > largest ? scores[c] : largest;
    if (largest > largest_[j]) {
      const float shrink = exp2(largest_[j] - largest);
      largest_[j] = largest;
      sums_[j] *= shrink;
      set_scaled(values_ + j * width_, values_ + j * width_, shrink, p_);
    }
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t c = 0; c < count; ++c) {
      scores[c] = exp2(scores[c] - largest);
      sum += scores[c];
    }
    sums_[j] += sum;
  }

  void finish(std::int64_t b, std::int64_t h, const float* values, float scale) {
    float* z = head_row(call_.z, b, h);
    const float* o = call_.o ? head_row(call_.o, b, h) : nullptr;
#pragma omp simd
    for (std::int64_t i = 0; i < p_; ++i) z[i] = values[i] * scale * (o ? sigmoid(o[i]) : 1.0f);
  }

  void append() {
    const CacheLayout layout = call_.cache.layout();
    const CacheRows rows(call_.cache, call_.tables.as<std::int32_t>() + slot_ * call_.tables.stride(0),
                         call_.tables.size(1), p_);
    for (const std::int64_t entry : {layout.recent_entry(t_), layout.dilated_entry(t_)}) {
      if (rows.has(entry)) rows.write(entry, m_, k_rot_, v_);
    }
  }

  const operation::MixerStep& call_;
  std::int64_t b_, m_, slot_, t_, p_, width_, key_head_, sharing_;
  float* memory_;
  float *k_rot_ = nullptr, *k_ = nullptr, *v_ = nullptr;
  float *queries_, *values_, *scores_, *largest_, *sums_;
  std::array<Segment, score_block / 8> segments_;  ///< of which count_ wait
  std::int64_t count_ = 0;
};

}  // namespace

std::int64_t mixer_step_scratch(const OpShapes& shapes, int threads) {
  return threads * step_floats(shapes.heads, shapes.head_dim);
}

void CpuOps::compute(const operation::MixerStep& call) {
  const std::int64_t batch = call.z.size(0),
                     keys = call.attends() ? call.cache.heads.size(0) : call.v.size(1);
  const std::int64_t per_thread = KeyHead::scratch_floats(call);
  float* memory = scratch(per_thread * threads_, call.name);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_)
  for (std::int64_t task = 0; task < batch * keys; ++task) {
    const std::int64_t b = task / keys;
    if (call.slots.as<std::int32_t>()[b] < 0) continue;
    KeyHead(call, b, task % keys, memory + omp_get_thread_num() * per_thread).run();
  }
}

}  // namespace ratplus::cpu
