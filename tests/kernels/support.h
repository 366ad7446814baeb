// What the tests of operations share: the backends of this machine, tensors on them, and comparison with
// float64 references.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/ops.h"

namespace ratplus::test {

using Values = std::vector<double>;
using Shape = std::vector<std::int64_t>;

/// One backend in one compute type.
struct Backend {
  std::string name;
  std::function<std::unique_ptr<Ops>()> make;
  double tolerance;  ///< relative error allowed: norm(result - reference) / norm(reference)
};

/// Every backend that this machine has; of them, where the environment has RATPLUS_TEST_BACKENDS, those whose names
/// contain it. Throws Error where those are none.
const std::vector<Backend>& backends();

/// Of all random numbers of the tests: RATPLUS_TEST_SEED of the environment, or else always the same. Throws Error
/// where that is no unsigned number.
std::uint64_t seed();

std::int64_t count(const Shape& shape);
/// `n` numbers ~ N(0, sigma^2); another stream gives other numbers.
Values normal_values(std::int64_t n, std::uint32_t stream, double sigma = 1);

/// `n` numbers in [0, below): tokens or labels.
std::vector<std::int32_t> random_ids(std::int64_t n, std::int64_t below, std::uint32_t stream);

/// A backend at work: makes tensors on its device, and owns them.
class Bench {
 public:
  explicit Bench(const Backend& backend, const OpShapes& shapes = {});

  Ops& operator*() const { return *ops_; }
  Ops* operator->() const { return ops_.get(); }
  DType compute() const { return ops_->compute_type(); }
  double tolerance() const { return tolerance_; }

  /// A tensor of NaN (or the most negative integer): proves that an operation writes every element.
  Tensor poisoned(DType dtype, const Shape& shape);
  Tensor tensor(DType dtype, const Shape& shape, const Values& values);
  /// The same with gaps after each row of the last dimension; the gaps hold NaN.
  Tensor strided(DType dtype, const Shape& shape, const Values& values);
  Tensor strided_poisoned(DType dtype, const Shape& shape);
  Tensor labels(const std::vector<std::int32_t>& values);

  /// What is in a tensor, strided or not.
  Values read(const Tensor& tensor) const;

 private:
  Tensor allocate(DType dtype, const Shape& shape) const;
  void write(const Tensor& tensor, const Values& values) const;

  std::unique_ptr<Ops> ops_;
  double tolerance_;
  mutable std::deque<Buffer> buffers_;
};

/// The parts q, k, v and f (5 parts) or q, k, v (4) of a projection [B, T, parts, H, P], whose first part o no recurrence
/// reads; a part that is not there is empty.
struct ProjectionParts {
  explicit ProjectionParts(const Tensor& projection);
  Tensor q, k, v, f;
};

/// The whole sequence's recurrence of a projection, and its gradient into dprojection.
operation::RecurrenceForward recurrence_of(const Tensor& projection, const Tensor& q_rot, const Tensor& k_rot,
                                           const Tensor& v_rec, const Tensor& rope);
operation::RecurrenceBackward recurrence_gradient_of(const operation::RecurrenceForward& forward,
                                                     const Tensor& dprojection, const Tensor& dq_rot,
                                                     const Tensor& dk_rot, const Tensor& dv_rec);

/// "dense  16,0,4  ": the heads' patterns, for a failed check.
std::string describe(const std::vector<Pattern>& patterns);

/// norm(result - reference) / norm(reference); infinite where a result is NaN or the lengths differ.
double relative_error(const Values& result, const Values& reference, double least_norm = 0);

double dot(const Values& a, const Values& b);

/// Not only equal numbers: the same zeros and NaN, too.
bool same_bits(const Values& a, const Values& b);

/// Compares a gradient with central differences of `loss` at x: along every coordinate where x is short, else
/// along random directions and along coordinates picked at random. Returns the larger relative error.
double gradient_error(const Values& gradient, const Values& x,
                      const std::function<double(const Values&)>& loss, std::uint32_t stream);

}  // namespace ratplus::test

/// Runs a test body once on each backend.
#define FOR_EACH_BACKEND(backend) \
  for (const ratplus::test::Backend& backend : ratplus::test::backends()) SUBCASE(backend.name.c_str())
