#include "lib/train/test_fault.h"

#include <chrono>
#include <cstdlib>
#include <limits>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include "base/error.h"

namespace ratplus::train {
namespace {

constexpr const char* variable = "RATPLUS_TEST_FAULT";

void sleep_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// Samples that are slow to read from one on.
class SlowSamples final : public data::Samples {
 public:
  SlowSamples(std::unique_ptr<Samples> samples, double seconds, std::int64_t first)
      : samples_(std::move(samples)), seconds_(seconds), first_(first) {}

  std::int64_t length() const override { return samples_->length(); }
  std::int64_t read(std::int64_t index, std::span<std::int32_t> inputs,
                    std::span<std::int32_t> labels) override {
    if (index >= first_) sleep_for(seconds_);
    return samples_->read(index, inputs, labels);
  }
  Origin origin(std::int64_t index) override { return samples_->origin(index); }
  std::int64_t spread(std::int64_t most) override { return samples_->spread(most); }

 private:
  std::unique_ptr<Samples> samples_;
  double seconds_;
  std::int64_t first_;
};

/// The words of a text between colons, taken one by one.
class Words {
 public:
  explicit Words(const std::string& text) : text_(text), stream_(text) {}

  std::string next() {
    std::string word;
    std::getline(stream_, word, ':');
    return word;
  }
  /// 1 where there is none left.
  double number() {
    const auto word = next();
    if (word.empty()) return 1;
    char* end = nullptr;
    const double value = std::strtod(word.c_str(), &end);
    if (*end != '\0') fail("{}={}: {} is no number", variable, text_, word);
    return value;
  }

 private:
  std::string text_;
  std::istringstream stream_;
};

}  // namespace

TestFault::TestFault(int rank) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return;
  Words words(text);
  const bool here = words.next() == std::to_string(rank);
  const auto action = words.next();
  Action wanted = Action::none;
  if (action == "gradient" || action == "loss") {
    wanted = action == "loss" ? Action::loss : Action::gradient;
    step_ = static_cast<std::int64_t>(words.number());
    update_ = static_cast<std::int64_t>(words.number());
    times_ = static_cast<std::int64_t>(words.number());
  } else if (action == "slow" || action == "data") {
    wanted = action == "slow" ? Action::slow : Action::data;
    seconds_ = words.number();
    step_ = static_cast<std::int64_t>(words.number());
  } else if (action == "flip") {
    wanted = Action::flip;
    kind_ = words.next();
    unit_ = static_cast<std::int64_t>(words.number());
    step_ = static_cast<std::int64_t>(words.number());
    times_ = static_cast<std::int64_t>(words.number());
  } else {
    fail("{}={}: an action is gradient, loss, slow, data or flip", variable, text);
  }
  if (here) action_ = wanted;
}

UpdateFault TestFault::in_update(std::int64_t step, std::size_t update) const {
  if (action_ == Action::slow && step >= step_) sleep_for(seconds_);
  const bool now = step >= step_ && step < step_ + times_ && static_cast<std::int64_t>(update) + 1 == update_;
  UpdateFault fault;
  if (now && action_ == Action::gradient) fault.gradient = std::numeric_limits<double>::quiet_NaN();
  if (now && action_ == Action::loss) fault.loss = std::numeric_limits<double>::infinity();
  return fault;
}

void TestFault::flip_a_bit(std::int64_t step, session::Session& session) {
  if (action_ != Action::flip || step != step_ || times_ == 0) return;
  --times_;
  const auto unit = static_cast<std::size_t>(unit_);
  auto& store = session.store();
  Tensor x;
  if (kind_ == "master") x = store.master(unit);
  if (kind_ == "first") x = session.optimizer().first_moment(unit);
  if (kind_ == "second") x = session.optimizer().second_moment(unit);
  if (kind_ == "weights") x = store.whole_weights(unit);
  if (kind_ == "gradient") x = store.gradient_part(unit);
  if (!x) fail("{}: this rank has no {} of unit {}", variable, kind_, unit_);
  x = x.slice(0, x.numel() / 2, x.numel() / 2 + 1);
  std::uint32_t bits = 0;
  session.ops().download(&bits, x);
  bits ^= 1U << 3;
  session.ops().upload(x, &bits);
  session.ops().synchronize();
}

std::unique_ptr<data::Samples> TestFault::wrap(std::unique_ptr<data::Samples> samples,
                                               std::int64_t batch) const {
  if (action_ != Action::data) return samples;
  return std::make_unique<SlowSamples>(std::move(samples), seconds_, (step_ - 1) * batch);
}

}  // namespace ratplus::train
