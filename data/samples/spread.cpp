#include "data/samples/spread.h"

#include <algorithm>
#include <utility>

namespace ratplus::data {

Spread::Spread(Mixture& mixture, std::vector<std::int64_t> sizes, std::int64_t most)
    : sizes_(std::move(sizes)), shares_(sizes_.size(), 0) {
  if (sizes_.size() == 1) {
    samples_ = shares_[0] = std::min(most, sizes_[0]);
    return;
  }
  for (; samples_ < most; ++samples_) {
    const auto source = static_cast<std::size_t>(mixture.at(samples_).source);
    if (shares_[source] == sizes_[source]) break;
    ++shares_[source];
  }
}

}  // namespace ratplus::data
