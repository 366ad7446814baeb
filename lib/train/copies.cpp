#include "lib/train/copies.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <utility>

#include "base/units.h"
#include "kernels/digest_mix.h"

namespace ratplus::train {
namespace {

/// Tensors of a unit that are compared, at most.
constexpr std::int64_t tensors_of_unit = 6;

/// One number of several, in their order.
class Fold {
 public:
  void add(std::uint64_t value) {
    value_ = digest_mix(0, static_cast<std::uint32_t>(value)) + std::rotl(value_, 23) * 0x9e3779b97f4a7c15U;
    value_ ^= digest_mix(1, static_cast<std::uint32_t>(value >> 32));
  }
  std::int64_t value() const { return std::bit_cast<std::int64_t>(value_); }

 private:
  std::uint64_t value_ = 1;
};

std::string to_bytes(const std::vector<std::uint64_t>& values) {
  std::string bytes(values.size() * sizeof(std::uint64_t), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::uint64_t value_at(const std::string& bytes, std::size_t index) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data() + index * sizeof(value), sizeof(value));
  return value;
}

/// The ranks of each value, the most ranks first; among as many, the lowest rank first.
std::vector<std::vector<int>> copies_of(const std::vector<int>& ranks,
                                        const std::vector<std::uint64_t>& values) {
  std::vector<std::pair<std::uint64_t, std::vector<int>>> found;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    auto known = std::ranges::find(found, values[i], [](const auto& each) { return each.first; });
    if (known == found.end()) known = found.insert(found.end(), {values[i], {}});
    known->second.push_back(ranks[i]);
  }
  std::vector<std::vector<int>> copies;
  for (auto& each : found) copies.push_back(std::move(each.second));
  std::ranges::stable_sort(copies, [](const auto& a, const auto& b) { return a.size() > b.size(); });
  return copies;
}

/// "rank 2 on node07", "ranks 4, 5 on node02 and 6 on node03"; of many, the first few.
std::string name_ranks(const std::vector<int>& ranks, const std::vector<std::string>& hosts) {
  constexpr std::size_t most = 8;
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < std::min(most, ranks.size()); ++i) {
    const auto& host = hosts[static_cast<std::size_t>(ranks[i])];
    const bool host_ends =
        i + 1 == ranks.size() || i + 1 == most || hosts[static_cast<std::size_t>(ranks[i + 1])] != host;
    text += fmt::format("{}{}{}", i == 0 ? "" : ", ", ranks[i], host_ends ? " on " + host : "");
  }
  if (ranks.size() > most) text += fmt::format(" and {} more", ranks.size() - most);
  return text;
}

/// Their ranks as groups: those of the shard of the first rank in it, of the second, ...
std::vector<std::vector<int>> groups_of(const std::vector<std::int64_t>& shards, bool everywhere) {
  std::vector<std::vector<int>> groups;
  std::vector<std::int64_t> names;
  for (std::size_t rank = 0; rank < shards.size(); ++rank) {
    const auto name = everywhere ? 0 : shards[rank];
    const auto known = std::ranges::find(names, name);
    const auto index = static_cast<std::size_t>(known - names.begin());
    if (known == names.end()) {
      names.push_back(name);
      groups.emplace_back();
    }
    groups[index].push_back(static_cast<int>(rank));
  }
  return groups;
}

}  // namespace

CommonValue common(std::string name, std::int64_t value) {
  return {std::move(name), std::bit_cast<std::uint64_t>(value)};
}

CommonValue common(std::string name, double value) {
  return {std::move(name), std::bit_cast<std::uint64_t>(value)};
}

CommonValue common(std::string name, const std::string& text) {
  std::uint64_t digest = 0;
  for (std::size_t i = 0; i < text.size(); ++i) digest += digest_mix(i, static_cast<unsigned char>(text[i]));
  return {std::move(name), digest};
}

std::string describe(const Difference& difference, const std::vector<std::string>& hosts) {
  const auto& copies = difference.copies;
  std::string text = difference.subject + ": ";
  const bool minority = difference.has_minority();
  for (std::size_t i = minority ? 1 : 0; i < copies.size(); ++i) {
    const bool first = i == (minority ? 1U : 0U);
    text += (first ? "" : i + 1 == copies.size() ? " and " : ", ") + name_ranks(copies[i], hosts);
  }
  if (!minority) return text + " differ, and none is in the minority";
  const bool one = copies.size() == 2 && copies[1].size() == 1;
  return text +
         fmt::format(" {} from the other {}, which are alike", one ? "differs" : "differ", copies[0].size());
}

std::string describe(const std::vector<Difference>& differences, const std::vector<std::string>& hosts) {
  constexpr std::size_t most = 4;
  std::string text;
  for (std::size_t i = 0; i < std::min(most, differences.size()); ++i)
    text += (i == 0 ? "" : "; ") + describe(differences[i], hosts);
  if (differences.size() > most) text += fmt::format("; and {} more differ", differences.size() - most);
  return text;
}

Copies::Copies(Ops& ops, parallel::ParameterStore& store, optim::Optimizer& optimizer,
               const parallel::World& world)
    : ops_(ops),
      store_(store),
      optimizer_(optimizer),
      world_(world),
      hosts_(world.all(world.host())),
      shards_(world.all(std::int64_t{store.mesh().shard})),
      digests_(ops.device(), tensors_of_unit * std::ssize(store.units()) * std::int64_t{8}) {}

/// In an order that names a cause before its consequences: master weights change, then what is made of them.
std::vector<Copies::Item> Copies::items(bool with_gradient) {
  std::vector<Item> found;
  const bool replicas = store_.mesh().replicas > 1;
  const auto add = [&](const char* kind, const std::string& unit, const Tensor& tensor, bool everywhere) {
    found.push_back({fmt::format("{} of {}", kind, unit), tensor, everywhere});
  };
  for (std::size_t u = 0; u < store_.units().size(); ++u) {
    const auto& name = store_.units()[u].name;
    const auto whole = store_.whole_weights(u);
    // In float32 the master is a part of the weights, and compared with them.
    const bool apart = !whole || store_.weights_part(u);
    if (replicas && apart) add("master weights", name, store_.master(u), false);
    if (replicas) add("first moments", name, optimizer_.first_moment(u), false);
    if (replicas) add("second moments", name, optimizer_.second_moment(u), false);
    if (whole) {
      add("weights", name, whole, true);
    } else if (const auto part = store_.weights_part(u); replicas && part) {
      add("weights", name, part, false);
    }
    if (replicas && with_gradient) add("the summed gradient", name, store_.gradient_part(u), false);
  }
  return found;
}

std::vector<std::uint64_t> Copies::digests_of(const std::vector<Item>& items) {
  std::vector<std::uint64_t> digests(items.size());
  if (items.empty()) return digests;
  const auto count = 2 * std::ssize(items);
  const Tensor sums = digests_.as_tensor(DType::i32).slice(0, 0, count);
  ops_.fill(sums, 0);
  for (std::int64_t i = 0; i < std::ssize(items); ++i)
    ops_.add_digest(sums.slice(0, 2 * i, 2 * i + 2), items[static_cast<std::size_t>(i)].tensor);
  ops_.download(digests.data(), sums);
  return digests;
}

std::vector<Difference> Copies::compare(const std::vector<CommonValue>& values, bool with_gradient) {
  if (!any()) return {};
  world_.watchdog().at("comparing what ranks hold alike");
  const auto tensors = items(with_gradient);
  auto digests = digests_of(tensors);
  std::vector<bool> everywhere;
  for (const auto& item : tensors) everywhere.push_back(item.everywhere);
  for (const auto& value : values) {
    digests.push_back(value.bits);
    everywhere.push_back(true);
  }
  Fold on_all, on_replicas;
  for (std::size_t i = 0; i < digests.size(); ++i) (everywhere[i] ? on_all : on_replicas).add(digests[i]);
  const auto alls = world_.all(on_all.value()), parts = world_.all(on_replicas.value());
  bool alike = true;
  for (std::size_t r = 0; r < alls.size(); ++r) {
    const auto first = static_cast<std::size_t>(std::ranges::find(shards_, shards_[r]) - shards_.begin());
    alike = alike && alls[r] == alls[0] && parts[r] == parts[first];
  }
  if (alike) return {};
  const auto all = world_.all(to_bytes(digests));
  std::vector<Difference> differences;
  for (std::size_t i = 0; i < digests.size(); ++i) {
    for (const auto& ranks : groups_of(shards_, everywhere[i])) {
      std::vector<std::uint64_t> held;
      for (const int rank : ranks) held.push_back(value_at(all[static_cast<std::size_t>(rank)], i));
      auto copies = copies_of(ranks, held);
      if (copies.size() < 2) continue;
      const auto subject = i < tensors.size() ? tensors[i].subject : values[i - tensors.size()].name;
      differences.push_back({subject, std::move(copies)});
    }
  }
  return differences;
}

}  // namespace ratplus::train
