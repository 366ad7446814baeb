// Every operation of ops.h written down plainly in float64: one loop an index, no blocking, no fusing. The backends
// are compared with these: their gradients with a gradient from here, which a test compares with central differences
// of the forward operation, or with such differences themselves.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/pattern.h"

namespace ratplus::reference {

using Values = std::vector<double>;

inline double& at(Values& x, std::int64_t i) {
  return x[static_cast<std::size_t>(i)];
}
inline double at(const Values& x, std::int64_t i) {
  return x[static_cast<std::size_t>(i)];
}
inline double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

/// c [M, N] = a [M, K] b [K, N], with the transposes of MatmulOptions.
inline Values matmul(const Values& a, const Values& b, std::int64_t m, std::int64_t n, std::int64_t k,
                     bool transpose_a, bool transpose_b) {
  Values c(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t l = 0; l < k; ++l) {
        at(c, i * n + j) +=
            at(a, transpose_a ? l * m + i : i * k + l) * at(b, transpose_b ? j * k + l : l * n + j);
      }
    }
  }
  return c;
}

struct RmsNorm {
  Values y, u, rstd;
};

/// y = x + delta, u = y rstd weight; delta may be empty.
inline RmsNorm rms_norm(const Values& x, const Values& delta, const Values& weight, double eps) {
  const auto d = static_cast<std::int64_t>(weight.size()), n = static_cast<std::int64_t>(x.size()) / d;
  RmsNorm result{x, Values(x.size()), Values(static_cast<std::size_t>(n))};
  for (std::int64_t i = 0; i < n; ++i) {
    double squares = 0;
    for (std::int64_t j = 0; j < d; ++j) {
      if (!delta.empty()) at(result.y, i * d + j) += at(delta, i * d + j);
      squares += at(result.y, i * d + j) * at(result.y, i * d + j);
    }
    at(result.rstd, i) = 1 / std::sqrt(squares / static_cast<double>(d) + eps);
    for (std::int64_t j = 0; j < d; ++j) {
      at(result.u, i * d + j) = at(result.y, i * d + j) * at(result.rstd, i) * at(weight, j);
    }
  }
  return result;
}

struct RmsNormGradient {
  Values dx, dweight;
};

/// Gradient of du . u + dy . y, of a forward's y and rstd = r: with n = y r, dweight = sum over rows of du n, and
/// dx = dy + r (w du - n mean(w du n)), which is also the gradient of delta.
inline RmsNormGradient rms_norm_gradient(const Values& du, const Values& dy, const RmsNorm& forward,
                                         const Values& weight) {
  const auto d = static_cast<std::int64_t>(weight.size()), n = static_cast<std::int64_t>(du.size()) / d;
  RmsNormGradient result{dy, Values(weight.size())};
  for (std::int64_t i = 0; i < n; ++i) {
    const double rstd = at(forward.rstd, i);
    double mean = 0;
    for (std::int64_t j = 0; j < d; ++j) {
      const double normal = at(forward.y, i * d + j) * rstd;
      at(result.dweight, j) += at(du, i * d + j) * normal;
      mean += at(weight, j) * at(du, i * d + j) * normal / static_cast<double>(d);
    }
    for (std::int64_t j = 0; j < d; ++j) {
      const double normal = at(forward.y, i * d + j) * rstd;
      at(result.dx, i * d + j) += rstd * (at(weight, j) * at(du, i * d + j) - normal * mean);
    }
  }
  return result;
}

/// B, T, H, P.
struct HeadShape {
  std::int64_t b, t, h, p;
  std::int64_t index(std::int64_t ib, std::int64_t it, std::int64_t ih, std::int64_t ip) const {
    return ((ib * t + it) * h + ih) * p + ip;
  }
  std::int64_t count() const { return b * t * h * p; }
};

inline HeadShape with_heads(HeadShape s, std::int64_t heads) {
  s.h = heads;
  return s;
}

/// x of G heads as the H heads of s: head h is head of(h) of x.
template <typename Of>
Values expand(const Values& x, std::int64_t heads_of_x, const HeadShape& s, Of&& of) {
  Values y(static_cast<std::size_t>(s.count()));
  const HeadShape shared = with_heads(s, heads_of_x);
  for (std::int64_t b = 0; b < s.b; ++b) {
    for (std::int64_t t = 0; t < s.t; ++t) {
      for (std::int64_t h = 0; h < s.h; ++h) {
        for (std::int64_t i = 0; i < s.p; ++i)
          at(y, s.index(b, t, h, i)) = at(x, shared.index(b, t, of(h), i));
      }
    }
  }
  return y;
}

/// Rotates [B, T, H, P] by position (floor(t / chunk)): pairs (i, i + P/2), frequency base^(-2i/P). Backward turns the other way,
/// which is also the gradient's way: a rotation's transpose is its inverse.
enum class Turn { forward, backward };
inline Values rope(const Values& x, const HeadShape& s, double base, Turn turn = Turn::forward,
                   std::int64_t chunk = 1) {
  Values y(x.size());
  for (std::int64_t t = 0; t < s.t; ++t) {
    for (std::int64_t i = 0; i < s.p / 2; ++i) {
      const double angle = static_cast<double>(t / chunk) *
                           std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(s.p));
      const double cos = std::cos(angle), sin = turn == Turn::forward ? std::sin(angle) : -std::sin(angle);
      for (std::int64_t b = 0; b < s.b; ++b) {
        for (std::int64_t h = 0; h < s.h; ++h) {
          const double first = at(x, s.index(b, t, h, i)), second = at(x, s.index(b, t, h, i + s.p / 2));
          at(y, s.index(b, t, h, i)) = first * cos - second * sin;
          at(y, s.index(b, t, h, i + s.p / 2)) = second * cos + first * sin;
        }
      }
    }
  }
  return y;
}

/// h_t = g_t h_{t-1} + (1 - g_t) x_t with g = sigmoid(f), each channel by itself.
/// With a chunk of L, h_{t-1} = 0 where t mod L = 0.
inline Values recurrence(const Values& x, const Values& f, const HeadShape& s, std::int64_t chunk = 0) {
  Values y(x.size());
  for (std::int64_t b = 0; b < s.b; ++b) {
    for (std::int64_t c = 0; c < s.h * s.p; ++c) {
      double state = 0;
      for (std::int64_t t = 0; t < s.t; ++t) {
        const std::int64_t i = (b * s.t + t) * s.h * s.p + c;
        if (chunk > 0 && t % chunk == 0) state = 0;
        const double g = sigmoid(at(f, i));
        state = g * state + (1 - g) * at(x, i);
        at(y, i) = state;
      }
    }
  }
  return y;
}

struct RecurrenceGradient {
  Values dx, df;
};

/// Gradient of e . h for h = recurrence(x, f): the reversed scan of docs/model.md, section 5,
/// s_t = e_t + g_{t+1} s_{t+1}, then dx_t = (1 - g_t) s_t and df_t = s_t (h_{t-1} - x_t) g_t (1 - g_t).
inline RecurrenceGradient recurrence_gradient(const Values& e, const Values& x, const Values& f,
                                              const HeadShape& s, std::int64_t chunk = 0) {
  RecurrenceGradient result{Values(x.size()), Values(x.size())};
  const Values y = recurrence(x, f, s, chunk);
  const std::int64_t width = s.h * s.p;
  for (std::int64_t b = 0; b < s.b; ++b) {
    for (std::int64_t c = 0; c < width; ++c) {
      double carry = 0;  // g_{t+1} s_{t+1}
      for (std::int64_t t = s.t; t-- > 0;) {
        const std::int64_t i = (b * s.t + t) * width + c;
        const bool first = chunk > 0 && t % chunk == 0;
        const double g = sigmoid(at(f, i)), sum = at(e, i) + carry,
                     before = t > 0 && !first ? at(y, i - width) : 0;
        at(result.dx, i) = (1 - g) * sum;
        at(result.df, i) = sum * (before - at(x, i)) * g * (1 - g);
        carry = first ? 0 : g * sum;
      }
    }
  }
  return result;
}

/// One part, [B, T, H, P], of a projection [B, T, parts, H, P]: o, q, k, v and, of 5, f.
inline Values part_of(const Values& projection, std::int64_t parts, std::int64_t which, const HeadShape& s) {
  const std::int64_t d = s.h * s.p;
  Values x(static_cast<std::size_t>(s.count()));
  for (std::int64_t row = 0; row < s.b * s.t; ++row) {
    for (std::int64_t c = 0; c < d; ++c) at(x, row * d + c) = at(projection, (row * parts + which) * d + c);
  }
  return x;
}

struct QKV {
  Values q, k, v;
};

/// q_rot, k_rot, v_rec of a projection.
inline QKV recurrence_rope(const Values& projection, std::int64_t parts, const HeadShape& s, double base) {
  const Values q = part_of(projection, parts, 1, s), k = part_of(projection, parts, 2, s),
               v = part_of(projection, parts, 3, s);
  if (parts == 4) return {rope(q, s, base), rope(k, s, base), v};
  const Values f = part_of(projection, parts, 4, s);
  return {rope(q, s, base), rope(recurrence(k, f, s), s, base), recurrence(v, f, s)};
}

/// Gradient of dout.q . q_rot + dout.k . k_rot + dout.v . v_rec, [B, T, parts, H, P]; zero in the part o.
inline Values recurrence_rope_gradient(const QKV& dout, const Values& projection, std::int64_t parts,
                                       const HeadShape& s, double base) {
  const std::int64_t d = s.h * s.p;
  Values result(projection.size());
  const auto put = [&](std::int64_t which, const Values& x) {
    for (std::int64_t row = 0; row < s.b * s.t; ++row) {
      for (std::int64_t c = 0; c < d; ++c) at(result, (row * parts + which) * d + c) = at(x, row * d + c);
    }
  };
  put(1, rope(dout.q, s, base, Turn::backward));
  const Values dk = rope(dout.k, s, base, Turn::backward);
  if (parts == 4) {
    put(2, dk);
    put(3, dout.v);
    return result;
  }
  const Values f = part_of(projection, parts, 4, s);
  const RecurrenceGradient of_k = recurrence_gradient(dk, part_of(projection, parts, 2, s), f, s);
  const RecurrenceGradient of_v = recurrence_gradient(dout.v, part_of(projection, parts, 3, s), f, s);
  put(2, of_k.dx);
  put(3, of_v.dx);
  Values df = of_k.df;  // k and v share the gate
  for (std::size_t i = 0; i < df.size(); ++i) df[i] += of_v.df[i];
  put(4, df);
  return result;
}

struct Attention {
  Values out, lse;
};

/// Attention by the definition of A(t); patterns: 1, or one a head. lse [B, H, T].
inline Attention attention(const Values& q, const Values& k, const Values& v, const HeadShape& s,
                           const std::vector<Pattern>& patterns) {
  Attention result{Values(q.size()), Values(static_cast<std::size_t>(s.b * s.h * s.t))};
  Values score(static_cast<std::size_t>(s.t));
  for (std::int64_t b = 0; b < s.b; ++b) {
    for (std::int64_t h = 0; h < s.h; ++h) {
      const Pattern& pattern = patterns.size() == 1 ? patterns[0] : patterns[static_cast<std::size_t>(h)];
      for (std::int64_t t = 0; t < s.t; ++t) {
        double total = 0;
        for (std::int64_t key = 0; key <= t; ++key) {
          at(score, key) = 0;
          // A(t) as docs/model.md, section 6, writes it.
          const bool attends = (pattern.dilation > 0 && (key + 1) % pattern.dilation == 0) ||
                               t - key <= pattern.window || key < pattern.sinks;
          if (!attends) continue;
          double product = 0;
          for (std::int64_t i = 0; i < s.p; ++i)
            product += at(q, s.index(b, t, h, i)) * at(k, s.index(b, key, h, i));
          at(score, key) = std::exp(product / std::sqrt(static_cast<double>(s.p)));
          total += at(score, key);
        }
        at(result.lse, (b * s.h + h) * s.t + t) = std::log(total);
        for (std::int64_t key = 0; key <= t; ++key) {
          if (at(score, key) == 0) continue;
          for (std::int64_t i = 0; i < s.p; ++i) {
            at(result.out, s.index(b, t, h, i)) += at(score, key) / total * at(v, s.index(b, key, h, i));
          }
        }
      }
    }
  }
  return result;
}

struct AttentionGradient {
  Values dq, dk, dv;
};

/// Gradient of dout . attention(q, k, v).out: with weights w of a query, dw_s = dout . v_s and
/// ds_s = w_s (dw_s - sum of w dw), dq = ds k / sqrt(P), dk_s = ds_s q / sqrt(P), dv_s = w_s dout.
inline AttentionGradient attention_gradient(const Values& q, const Values& k, const Values& v,
                                            const Values& dout, const HeadShape& s,
                                            const std::vector<Pattern>& patterns) {
  AttentionGradient result{Values(q.size()), Values(q.size()), Values(q.size())};
  const Values lse = attention(q, k, v, s, patterns).lse;
  const double scale = 1 / std::sqrt(static_cast<double>(s.p));
  Values weight(static_cast<std::size_t>(s.t)), dweight(static_cast<std::size_t>(s.t));
  for (std::int64_t b = 0; b < s.b; ++b) {
    for (std::int64_t h = 0; h < s.h; ++h) {
      const Pattern& pattern = patterns.size() == 1 ? patterns[0] : patterns[static_cast<std::size_t>(h)];
      for (std::int64_t t = 0; t < s.t; ++t) {
        double mean = 0;
        for (std::int64_t key = 0; key <= t; ++key) {
          if (!pattern.attends(t, key)) continue;
          double score = 0, change = 0;
          for (std::int64_t i = 0; i < s.p; ++i) {
            score += at(q, s.index(b, t, h, i)) * at(k, s.index(b, key, h, i)) * scale;
            change += at(dout, s.index(b, t, h, i)) * at(v, s.index(b, key, h, i));
          }
          at(weight, key) = std::exp(score - at(lse, (b * s.h + h) * s.t + t));
          at(dweight, key) = change;
          mean += at(weight, key) * change;
        }
        for (std::int64_t key = 0; key <= t; ++key) {
          if (!pattern.attends(t, key)) continue;
          const double w = at(weight, key), ds = w * (at(dweight, key) - mean) * scale;
          for (std::int64_t i = 0; i < s.p; ++i) {
            at(result.dq, s.index(b, t, h, i)) += ds * at(k, s.index(b, key, h, i));
            at(result.dk, s.index(b, key, h, i)) += ds * at(q, s.index(b, t, h, i));
            at(result.dv, s.index(b, key, h, i)) += w * at(dout, s.index(b, t, h, i));
          }
        }
      }
    }
  }
  return result;
}

inline Values output_gate(const Values& a, const Values& o) {
  Values z(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) z[i] = a[i] * sigmoid(o[i]);
  return z;
}

inline Values gelu(const Values& h) {
  Values z(h.size());
  for (std::size_t i = 0; i < h.size(); ++i) z[i] = h[i] * std::erfc(-h[i] / std::sqrt(2.0)) / 2;
  return z;
}

/// Losses [N] of logits [N, V] at labels; 0 where a label is negative.
inline Values cross_entropy(const Values& logits, const std::vector<std::int32_t>& labels) {
  const auto n = static_cast<std::int64_t>(labels.size()),
             vocab = static_cast<std::int64_t>(logits.size()) / n;
  Values losses(labels.size());
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t label = labels[static_cast<std::size_t>(i)];
    if (label < 0) continue;
    double largest = at(logits, i * vocab), total = 0;
    for (std::int64_t j = 0; j < vocab; ++j) largest = std::max(largest, at(logits, i * vocab + j));
    for (std::int64_t j = 0; j < vocab; ++j) total += std::exp(at(logits, i * vocab + j) - largest);
    at(losses, i) = std::log(total) + largest - at(logits, i * vocab + label);
  }
  return losses;
}

/// Gradient of scale (sum of the losses): scale (softmax(logits) - onehot(label)), zero rows where a label is negative.
inline Values cross_entropy_gradient(const Values& logits, const std::vector<std::int32_t>& labels,
                                     double scale) {
  const auto n = static_cast<std::int64_t>(labels.size()),
             vocab = static_cast<std::int64_t>(logits.size()) / n;
  const Values losses = cross_entropy(logits, labels);
  Values gradient(logits.size());
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t label = labels[static_cast<std::size_t>(i)];
    if (label < 0) continue;
    const double lse = at(losses, i) + at(logits, i * vocab + label);
    for (std::int64_t j = 0; j < vocab; ++j) {
      at(gradient, i * vocab + j) =
          scale * (std::exp(at(logits, i * vocab + j) - lse) - (j == label ? 1 : 0));
    }
  }
  return gradient;
}

}  // namespace ratplus::reference
