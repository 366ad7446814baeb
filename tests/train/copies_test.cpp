// Ranks that hold the same are found alike, and one bit that differs is named with its rank, with every sharding that has
// copies.
#include "lib/train/copies.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "lib/session/session.h"
#include "lib/train/update.h"
#include "tests/support/ranks.h"

using namespace ratplus;
using parallel::Sharding;
using train::Copies;
using train::Difference;

namespace {

constexpr std::int64_t sequence = 16;

/// Every sharding, on every mesh of the ranks that there are.
std::vector<parallel::Settings> all_settings() {
  std::vector<parallel::Settings> all = {{.shard = Sharding::none},
                                         {.shard = Sharding::none, .reduce = parallel::Reduce::bf16}};
  for (const auto shard : {Sharding::optimizer, Sharding::full}) {
    for (int group = 1; group <= world().size(); ++group) {
      if (world().size() % group == 0) all.push_back({.shard = shard, .shard_group = group});
    }
  }
  return all;
}

/// A session after two updates; on GPUs where each rank has one.
struct Trained {
  explicit Trained(const parallel::Settings& settings)
      : session(
            {.model = {.layers = 2, .width = 64, .head_dim = 16, .vocab_size = 50},
             .shapes = {1, sequence},
             .parallel = settings,
             .optimizer = {},
             .device = cuda_device_count() >= world().local_size() ? DeviceChoice::cuda : DeviceChoice::cpu,
             .threads = 1},
            world()),
        copies(session.ops(), session.store(), session.optimizer(), world()) {
    session.set_initial_weights(5);
    std::vector<std::int32_t> inputs(2 * sequence), labels(2 * sequence);
    for (int update = 0; update < 2; ++update) {
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const auto token = [&](std::size_t at) {
          return static_cast<std::int32_t>(
              (7 * at * at + 13 * at + static_cast<std::size_t>(world().rank() + update)) % 50);
        };
        inputs[i] = token(i);
        labels[i] = token(i + 1);
      }
      train::run_update(session.parts(), model::PatternPlan(), {inputs, labels},
                        2 * sequence * world().size(), 1e-2);
    }
  }

  /// Changes bit `bit` of element i of a tensor, on this rank.
  void flip(const Tensor& x, std::int64_t i, int bit) {
    std::uint32_t bits = 0;
    const Tensor element = x.slice(0, i, i + 1);
    session.ops().download(&bits, element);
    bits ^= 1U << bit;
    session.ops().upload(element, &bits);
    session.ops().synchronize();
  }

  session::Session session;
  Copies copies;
};

/// The ranks of a rank's shard, lowest first.
std::vector<int> replicas_of(int rank, const std::vector<std::int64_t>& shards) {
  std::vector<int> ranks;
  for (int other = 0; other < world().size(); ++other) {
    if (shards[static_cast<std::size_t>(other)] == shards[static_cast<std::size_t>(rank)])
      ranks.push_back(other);
  }
  return ranks;
}

/// The difference is that of this rank against the others of `ranks`.
void check_named(const std::vector<Difference>& found, const char* subject, int rank,
                 const std::vector<int>& ranks) {
  const auto text =
      train::describe(found, std::vector<std::string>(static_cast<std::size_t>(world().size()), "host"));
  CAPTURE(text);
  REQUIRE(found.size() == 1);
  CHECK(found[0].subject == subject);
  REQUIRE(found[0].copies.size() == 2);
  auto others = ranks;
  others.erase(std::find(others.begin(), others.end(), rank));
  const std::vector<int> alone = {rank};
  if (ranks.size() > 2) {
    CHECK(found[0].has_minority());
    CHECK(found[0].copies == std::vector{others, alone});
  } else {
    CHECK_FALSE(found[0].has_minority());
    CHECK(found[0].copies == std::vector{std::vector{ranks[0]}, std::vector{ranks[1]}});
  }
}

}  // namespace

TEST_CASE("with every sharding, one bit of one rank is named, and none before it") {
  for (const auto& settings : all_settings()) {
    CAPTURE(to_string(settings.shard));
    CAPTURE(settings.shard_group);
    CAPTURE(settings.reduce == parallel::Reduce::bf16);
    Trained run(settings);
    auto& store = run.session.store();
    CHECK(run.copies.compare({train::common("step", std::int64_t{2})}, true).empty());
    const auto shards = world().all(std::int64_t{store.mesh().shard});
    std::vector<int> everyone(static_cast<std::size_t>(world().size()));
    std::iota(everyone.begin(), everyone.end(), 0);
    for (int rank = 0; rank < world().size(); ++rank) {
      CAPTURE(rank);
      const bool here = world().rank() == rank;
      const auto replicas = replicas_of(rank, shards);
      /// Flips a bit, compares, and puts it back.
      const auto try_bit = [&](const Tensor& x, const char* subject, const std::vector<int>& ranks, int bit) {
        CAPTURE(subject);
        const auto element = x.numel() * 3 / 4;
        if (here) run.flip(x, element, bit);
        check_named(run.copies.compare({}, true), subject, rank, ranks);
        if (here) run.flip(x, element, bit);
        CHECK(run.copies.compare({}, true).empty());
      };
      if (world().size() == 1) {
        if (here) run.flip(store.master(1), 0, 3);
        CHECK(run.copies.compare({}, true).empty());  // nothing to compare it with
        continue;
      }
      if (const auto whole = store.whole_weights(1)) try_bit(whole, "weights of blocks.0", everyone, 0);
      try_bit(store.whole_weights(0), "weights of root", everyone, 7);
      if (replicas.size() == 1) continue;
      const bool apart = !store.whole_weights(1) || store.weights_part(1);
      if (apart) try_bit(store.master(1), "master weights of blocks.0", replicas, 31);
      try_bit(run.session.optimizer().first_moment(2), "first moments of blocks.1", replicas, 22);
      try_bit(run.session.optimizer().second_moment(1), "second moments of blocks.0", replicas, 0);
      try_bit(store.gradient_part(2), "the summed gradient of blocks.1", replicas, 1);
    }
  }
}

TEST_CASE("a host value that one rank has otherwise is named") {
  Trained run({.shard = Sharding::none});
  if (world().size() == 1) return;
  const int odd = world().size() - 1;
  std::vector<int> everyone(static_cast<std::size_t>(world().size()));
  std::iota(everyone.begin(), everyone.end(), 0);
  const std::int64_t step = world().rank() == odd ? 8 : 7;
  check_named(run.copies.compare({train::common("step", step), train::common("loss", 0.5)}, true), "step",
              odd, everyone);
  const auto text = std::string(world().rank() == odd ? "a" : "b");
  check_named(run.copies.compare({train::common("job", text)}, true), "job", odd, everyone);
}

TEST_CASE("differences are described with their hosts, and the minority is named") {
  const std::vector<std::string> hosts = {"a", "a", "b", "b", "c"};
  CHECK(train::describe(Difference{"weights of root", {{0, 1, 3, 4}, {2}}}, hosts) ==
        "weights of root: rank 2 on b differs from the other 4, which are alike");
  CHECK(train::describe(Difference{"step", {{0, 1, 4}, {2, 3}}}, hosts) ==
        "step: ranks 2, 3 on b differ from the other 3, which are alike");
  CHECK(train::describe(Difference{"step", {{0, 4}, {1, 2}}}, hosts) ==
        "step: ranks 0 on a, 4 on c and ranks 1 on a, 2 on b differ, and none is in the minority");
  CHECK(train::describe(Difference{"step", {{0}, {4}}}, hosts) ==
        "step: rank 0 on a and rank 4 on c differ, and none is in the minority");
}
