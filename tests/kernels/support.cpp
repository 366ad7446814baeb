#include "tests/kernels/support.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/random.h"

namespace ratplus::test {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

bf16_t round_to_bf16(double value) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  if (std::isnan(value)) return {0x7fc0};
  return {static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

/// Values as the bytes of a type.
std::vector<std::byte> encode(DType dtype, const Values& values) {
  std::vector<std::byte> bytes(values.size() * static_cast<std::size_t>(size_of(dtype)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    switch (dtype) {
      case DType::f32:
        reinterpret_cast<float*>(bytes.data())[i] = static_cast<float>(values[i]);
        break;
      case DType::bf16:
        reinterpret_cast<bf16_t*>(bytes.data())[i] = round_to_bf16(values[i]);
        break;
      case DType::i32:
        reinterpret_cast<std::int32_t*>(bytes.data())[i] = std::isnan(values[i])
                                                               ? std::numeric_limits<std::int32_t>::min()
                                                               : static_cast<std::int32_t>(values[i]);
        break;
      case DType::u8:
        bytes[i] = static_cast<std::byte>(values[i]);
        break;
      case DType::f64:
        reinterpret_cast<double*>(bytes.data())[i] = values[i];
        break;
    }
  }
  return bytes;
}

Values decode(DType dtype, const std::vector<std::byte>& bytes) {
  Values values(bytes.size() / static_cast<std::size_t>(size_of(dtype)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    switch (dtype) {
      case DType::f32:
        values[i] = reinterpret_cast<const float*>(bytes.data())[i];
        break;
      case DType::bf16:
        values[i] =
            std::bit_cast<float>(std::uint32_t{reinterpret_cast<const bf16_t*>(bytes.data())[i].bits} << 16);
        break;
      case DType::i32:
        values[i] = reinterpret_cast<const std::int32_t*>(bytes.data())[i];
        break;
      case DType::u8:
        values[i] = static_cast<double>(bytes[i]);
        break;
      case DType::f64:
        values[i] = reinterpret_cast<const double*>(bytes.data())[i];
        break;
    }
  }
  return values;
}

/// (loss(x + h direction) - loss(x - h direction)) / 2 h
double slope(const Values& x, const Values& direction, const std::function<double(const Values&)>& loss) {
  constexpr double h = 1e-4;
  Values up = x, down = x;
  for (std::size_t i = 0; i < x.size(); ++i) {
    up[i] += h * direction[i];
    down[i] -= h * direction[i];
  }
  return (loss(up) - loss(down)) / (2 * h);
}

}  // namespace

const std::vector<Backend>& backends() {
  static const std::vector<Backend> all = [] {
    std::vector<Backend> found = {
        {"cpu float32, 1 thread", [] { return make_cpu_ops(1); }, 1e-5},
        {"cpu float32, 3 threads", [] { return make_cpu_ops(3); }, 1e-5},
    };
    if (cuda_device_count() > 0) {
      found.push_back({"cuda float32", [] { return make_cuda_ops(0, DType::f32); }, 1e-5});
      found.push_back({"cuda bfloat16", [] { return make_cuda_ops(0, DType::bf16); }, 1e-2});
    }
    const char* wanted = std::getenv("RATPLUS_TEST_BACKENDS");
    if (wanted == nullptr) return found;
    std::string names;
    for (const Backend& backend : found) names += (names.empty() ? "\"" : ", \"") + backend.name + '"';
    std::erase_if(found, [&](const Backend& b) { return b.name.find(wanted) == std::string::npos; });
    if (found.empty()) {
      fail("RATPLUS_TEST_BACKENDS=\"{}\" selects nothing; this build on this machine has {}", wanted, names);
    }
    return found;
  }();
  return all;
}

std::uint64_t seed() {
  static const std::uint64_t value = [] {
    std::uint64_t number = 20260218;
    const char* given = std::getenv("RATPLUS_TEST_SEED");
    if (given == nullptr) return number;
    const char* end = given + std::strlen(given);
    const auto [stop, error] = std::from_chars(given, end, number);
    if (error != std::errc() || stop != end) {
      fail("RATPLUS_TEST_SEED=\"{}\" is no unsigned number of 64 bits", given);
    }
    return number;
  }();
  return value;
}

std::int64_t count(const Shape& shape) {
  std::int64_t n = 1;
  for (const std::int64_t size : shape) n *= size;
  return n;
}

Values normal_values(std::int64_t n, std::uint32_t stream, double sigma) {
  std::vector<float> values(static_cast<std::size_t>(n));
  fill_normal(values, static_cast<float>(sigma), seed(), Purpose::test, stream, 0);
  return {values.begin(), values.end()};
}

std::vector<std::int32_t> random_ids(std::int64_t n, std::int64_t below, std::uint32_t stream) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(
        random_below(static_cast<std::uint64_t>(below), seed(), Purpose::test, stream, i));
  }
  return ids;
}

Bench::Bench(const Backend& backend, const OpShapes& shapes)
    : ops_(backend.make()), tolerance_(backend.tolerance) {
  buffers_.emplace_back(ops_->device(), ops_->scratch_bytes(shapes));
  ops_->use_scratch(buffers_.back().as_tensor(DType::u8));
}

Tensor Bench::allocate(DType dtype, const Shape& shape) const {
  buffers_.emplace_back(ops_->device(), std::max<std::int64_t>(count(shape), 1) * size_of(dtype));
  return Tensor(buffers_.back().data(), dtype, shape, ops_->device());
}

void Bench::write(const Tensor& tensor, const Values& values) const {
  REQUIRE(static_cast<std::int64_t>(values.size()) == tensor.numel());
  const std::vector<std::byte> bytes = encode(tensor.dtype(), values);
  if (tensor.contiguous()) return ops_->upload(tensor, bytes.data());
  const Tensor whole = allocate(tensor.dtype(), {tensor.shape().begin(), tensor.shape().end()});
  ops_->upload(whole, bytes.data());
  ops_->copy(tensor, whole);
  ops_->synchronize();
}

Tensor Bench::tensor(DType dtype, const Shape& shape, const Values& values) {
  const Tensor result = allocate(dtype, shape);
  write(result, values);
  return result;
}

Tensor Bench::poisoned(DType dtype, const Shape& shape) {
  return tensor(dtype, shape, Values(static_cast<std::size_t>(count(shape)), nan));
}

Tensor Bench::strided_poisoned(DType dtype, const Shape& shape) {
  constexpr std::int64_t gap =
      8;  // before and after: rows that stay 16-byte aligned in bf16, as GPUs want them
  Shape wide = shape;
  wide.back() += 2 * gap;
  return poisoned(dtype, wide).slice(static_cast<int>(shape.size()) - 1, gap, gap + shape.back());
}

Tensor Bench::strided(DType dtype, const Shape& shape, const Values& values) {
  const Tensor result = strided_poisoned(dtype, shape);
  write(result, values);
  return result;
}

Tensor Bench::labels(const std::vector<std::int32_t>& values) {
  return tensor(DType::i32, {static_cast<std::int64_t>(values.size())}, Values(values.begin(), values.end()));
}

Values Bench::read(const Tensor& tensor) const {
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes()));
  Tensor whole = tensor;
  if (!tensor.contiguous()) {
    whole = allocate(tensor.dtype(), {tensor.shape().begin(), tensor.shape().end()});
    ops_->copy(whole, tensor);
  }
  ops_->synchronize();
  ops_->download(bytes.data(), whole);
  return decode(tensor.dtype(), bytes);
}

ProjectionParts::ProjectionParts(const Tensor& projection)
    : q(projection.select(2, 1)), k(projection.select(2, 2)), v(projection.select(2, 3)) {
  if (projection.size(2) == 5) f = projection.select(2, 4);
}

operation::RecurrenceForward recurrence_of(const Tensor& projection, const Tensor& q_rot, const Tensor& k_rot,
                                           const Tensor& v_rec, const Tensor& rope) {
  const ProjectionParts parts(projection);
  return {.q_rot = q_rot,
          .k_rot = k_rot,
          .v_rec = v_rec,
          .q = parts.q,
          .k = parts.k,
          .v = parts.v,
          .f = parts.f,
          .rope = rope};
}

operation::RecurrenceBackward recurrence_gradient_of(const operation::RecurrenceForward& forward,
                                                     const Tensor& dprojection, const Tensor& dq_rot,
                                                     const Tensor& dk_rot, const Tensor& dv_rec) {
  const ProjectionParts into(dprojection);
  return {.dq = into.q,
          .dk = into.k,
          .dv = into.v,
          .df = into.f,
          .dq_rot = dq_rot,
          .dk_rot = dk_rot,
          .dv_rec = dv_rec,
          .k = forward.k,
          .v = forward.v,
          .f = forward.f,
          .k_rot = forward.k_rot,
          .v_rec = forward.v_rec,
          .rope = forward.rope};
}

std::string describe(const std::vector<Pattern>& patterns) {
  std::string text;
  for (const Pattern& pattern : patterns) text += to_string(pattern) + "  ";
  return text;
}

double relative_error(const Values& result, const Values& reference, double least_norm) {
  if (result.size() != reference.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (!std::isfinite(result[i])) return std::numeric_limits<double>::infinity();
    difference += (result[i] - reference[i]) * (result[i] - reference[i]);
    norm += reference[i] * reference[i];
  }
  norm = std::max(norm, least_norm * least_norm);
  return norm == 0 ? (difference == 0 ? 0 : std::numeric_limits<double>::infinity())
                   : std::sqrt(difference / norm);
}

double dot(const Values& a, const Values& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

bool same_bits(const Values& a, const Values& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

double gradient_error(const Values& gradient, const Values& x,
                      const std::function<double(const Values&)>& loss, std::uint32_t stream) {
  if (gradient.size() != x.size()) return std::numeric_limits<double>::infinity();
  for (const double value : gradient) {
    if (!std::isfinite(value)) return std::numeric_limits<double>::infinity();
  }
  constexpr std::size_t all_below = 400, picked = 24, directions = 12;
  const bool all = x.size() <= all_below;
  Values along, expected;
  for (std::size_t i = 0; i < (all ? x.size() : picked); ++i) {
    const std::size_t at = all ? i : random_below(x.size(), seed(), Purpose::test, stream, i);
    Values axis(x.size());
    axis[at] = 1;
    along.push_back(gradient[at]);
    expected.push_back(slope(x, axis, loss));
  }
  double error = relative_error(along, expected);
  if (all) return error;
  along.clear(), expected.clear();
  for (std::uint32_t i = 0; i < directions; ++i) {
    const Values direction =
        normal_values(static_cast<std::int64_t>(x.size()), (stream << 8) + 0x10000 + i, 1);
    along.push_back(dot(gradient, direction));
    expected.push_back(slope(x, direction, loss));
  }
  return std::max(error, relative_error(along, expected));
}

}  // namespace ratplus::test
