#include "parallel/parameter_store.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/bf16.h"
#include "tests/support/ranks.h"

using namespace ratplus;
using namespace ratplus::parallel;

namespace {

/// A root and blocks of uneven sizes: not multiples of the alignment or of the ranks.
std::vector<UnitLayout> uneven_units(int blocks) {
  std::vector<UnitLayout> units(1);
  units[0].name = "root";
  units[0].resident = true;
  units[0].add("embedding", {13, 11});
  units[0].add("norm", {11});
  for (int b = 0; b < blocks; ++b) {
    UnitLayout unit{.name = "blocks." + std::to_string(b), .resident = false, .slots = {}};
    unit.add("matrix", {17, 29 + b});
    unit.add("norm", {17});
    units.push_back(unit);
  }
  return units;
}

MeshGroups groups_of(const Ops& ops, const Settings& settings, const std::vector<int>& nodes) {
  return make_mesh_groups(ops, world(), make_mesh(nodes, world().rank(), settings));
}

/// Every sharding, on every mesh of the ranks that there are.
std::vector<Settings> all_settings() {
  std::vector<Settings> all = {{.shard = Sharding::none}};
  for (const auto shard : {Sharding::optimizer, Sharding::full}) {
    for (int group = 1; group <= world().size(); ++group) {
      if (world().size() % group == 0) all.push_back({.shard = shard, .shard_group = group});
    }
  }
  return all;
}

/// A store with memory of its own.
struct Fixture {
  Fixture(const Settings& settings, int blocks) : Fixture(settings, uneven_units(blocks), world().nodes()) {}
  /// Over hosts that each rank's entry of `nodes` names.
  Fixture(const Settings& settings, const std::vector<UnitLayout>& units, const std::vector<int>& nodes)
      : ops(make_cpu_ops(1)), groups(groups_of(*ops, settings, nodes)), arena(ops->device()) {
    const auto build = [&] {
      store = std::make_unique<ParameterStore>(*ops, groups, units, settings, parallel::Use::training,
                                               world().watchdog(), arena);
    };
    build();
    arena.commit();
    build();
  }

  /// The value of element i of a unit's master, here: distinct in unit and element.
  static float weight(std::size_t unit, std::int64_t i, int version) {
    return static_cast<float>(unit) + static_cast<float>(i) / 4096.0F + static_cast<float>(version) * 100;
  }

  void set_masters(int version) {
    for (std::size_t u = 0; u < store->units().size(); ++u) {
      const auto owned = store->owned(u);
      for (auto i = owned.begin; i < owned.end; ++i) {
        store->master(u).as<float>()[i - owned.begin] = weight(u, i, version);
      }
    }
  }

  /// A pass as a model makes it: all units' weights in order, then their gradients in reverse.
  void pass(int version, float gradient_value) {
    const auto& units = store->units();
    for (std::size_t u = 0; u < units.size(); ++u) {
      const Tensor weights = store->weights(u);
      const auto last = std::min(u + static_cast<std::size_t>(store->prefetch_depth()), units.size() - 1);
      for (auto next = u + 1; next <= last; ++next) store->prefetch(next);
      for (std::int64_t i = 0; i < units[u].numel; ++i) {
        REQUIRE(weights.as<float>()[i] == weight(u, i, version));
      }
      store->release(u);
    }
    for (std::size_t u = units.size(); u-- > 0;) {
      const auto gradient = store->gradient(u);
      for (std::int64_t i = 0; i < units[u].numel; ++i) {
        const float value = gradient_value * static_cast<float>(i % 7 + 1);
        float& there = gradient.flat.as<float>()[i];
        there = gradient.fresh ? value : there + value;
      }
      CHECK(!store->gradient(u).fresh);
      store->gradient_ready(u);
    }
  }

  std::unique_ptr<Ops> ops;
  MeshGroups groups;
  Arena arena;
  std::unique_ptr<ParameterStore> store;
};

}  // namespace

TEST_CASE("parts cover a unit without overlap, for any number of ranks") {
  for (const auto& unit : uneven_units(3)) {
    for (int parts = 1; parts <= 9; ++parts) {
      std::int64_t end = 0;
      for (int part = 0; part < parts; ++part) {
        const auto range = unit_part(unit, part, parts);
        CHECK(range.begin == end);
        CHECK(range.size() <= unit_part_size(unit, parts));
        end = range.end;
      }
      CHECK(end == unit.numel);
    }
  }
}

namespace {

/// Two updates; every rank's and micro-batch's gradient is a small integer at each element, so that sums are exact
/// in f32, and in bf16 with what the tests have of both.
void check_updates(const Settings& settings, int blocks, int micro_batches) {
  CAPTURE(to_string(settings.shard));
  CAPTURE(settings.shard_group);
  CAPTURE(settings.prefetch);
  CAPTURE(settings.keep_weights);
  CAPTURE(to_string(settings.reduce));
  CAPTURE(blocks);
  CAPTURE(micro_batches);
  Fixture f(settings, blocks);
  for (int version = 0; version < 2; ++version) {
    f.set_masters(version);
    f.store->publish_masters();
    f.store->begin_update();
    float expected = 0;
    for (int m = 0; m < micro_batches; ++m) {
      f.store->begin_micro_batch(m + 1 == micro_batches);
      f.pass(version, static_cast<float>((world().rank() + m) % 2 + 1));
      for (int rank = 0; rank < world().size(); ++rank) expected += static_cast<float>((rank + m) % 2 + 1);
    }
    f.store->finish_gradients();
    for (std::size_t u = 0; u < f.store->units().size(); ++u) {
      const auto owned = f.store->owned(u);
      const Tensor gradient = f.store->gradient_part(u);
      REQUIRE(gradient.numel() == owned.size());
      for (auto i = owned.begin; i < owned.end; ++i) {
        REQUIRE(gradient.as<float>()[i - owned.begin] == expected * static_cast<float>(i % 7 + 1));
      }
    }
  }
}

}  // namespace

TEST_CASE("weights and summed gradients are right on every mesh, over updates and micro-batches") {
  for (const auto& settings : all_settings()) {
    for (const int blocks : {1, 5}) {
      for (const int micro_batches : {1, 3}) check_updates(settings, blocks, micro_batches);
    }
  }
}

TEST_CASE("gaps between parameters are zero in the sums, wherever units of another layout formed before") {
  for (auto settings : all_settings()) {
    for (const auto reduce : {Reduce::f32, Reduce::bf16}) {
      settings.reduce = reduce;
      CAPTURE(to_string(settings.shard));
      CAPTURE(settings.shard_group);
      CAPTURE(to_string(reduce));
      Fixture f(settings, 5);
      const auto& units = f.store->units();
      for (int update = 0; update < 2; ++update) {
        f.store->begin_update();
        for (const bool last : {false, true}) {
          f.store->begin_micro_batch(last);
          for (std::size_t u = units.size(); u-- > 0;) {
            const auto gradient = f.store->gradient(u);  // of which a model writes the parameters alone
            for (const auto& slot : units[u].slots) {
              float* there = gradient.flat.as<float>() + slot.offset;
              for (std::int64_t i = 0; i < slot.numel; ++i) there[i] = gradient.fresh ? 1 : there[i] + 1;
            }
            f.store->gradient_ready(u);
          }
        }
        f.store->finish_gradients();
        for (std::size_t u = 0; u < units.size(); ++u) {
          std::vector<float> expected(static_cast<std::size_t>(units[u].numel), 0);
          for (const auto& slot : units[u].slots)
            std::fill_n(expected.begin() + slot.offset, slot.numel, static_cast<float>(2 * world().size()));
          const auto owned = f.store->owned(u);
          const float* part = f.store->gradient_part(u).as<float>();
          CHECK(std::equal(part, part + owned.size(), expected.begin() + owned.begin));
        }
      }
    }
  }
}

TEST_CASE("they are with any number of buffers, with weights that are kept, and with sums in bf16") {
  struct Variant {
    int prefetch;
    bool keep_weights;
    Reduce reduce;
  };
  for (auto settings : all_settings()) {
    for (const auto& [prefetch, keep_weights, reduce] : {Variant{2, false, Reduce::f32},
                                                         {6, true, Reduce::f32},
                                                         {1, false, Reduce::bf16},
                                                         {2, true, Reduce::bf16}}) {
      settings.prefetch = prefetch;
      settings.keep_weights = keep_weights;
      settings.reduce = reduce;
      check_updates(settings, 4, 2);
    }
  }
}

namespace {

/// Layouts of the ranks over several hosts of as many each: neighbours together, and spread by the launcher in turn.
std::vector<std::vector<int>> host_layouts() {
  std::vector<std::vector<int>> layouts;
  for (int hosts = 2; hosts <= world().size(); ++hosts) {
    if (world().size() % hosts != 0) continue;
    std::vector<int> together, spread;
    for (int rank = 0; rank < world().size(); ++rank) {
      together.push_back(rank / (world().size() / hosts));
      spread.push_back(rank % hosts);
    }
    layouts.push_back(together);
    if (spread != together) layouts.push_back(spread);
  }
  return layouts;
}

/// A rank's gradient: an integer of 18 bits, so that float32 sums of a few are exact, and bfloat16 rounds them.
float ragged_gradient(int rank, std::size_t unit, std::int64_t i) {
  const auto mixed =
      (static_cast<std::uint32_t>(i) * 2654435761U) ^
      (static_cast<std::uint32_t>(rank) * 40503U + static_cast<std::uint32_t>(unit) * 97U + 1) * 2246822519U;
  return static_cast<float>(static_cast<std::int32_t>(mixed >> 14) - (1 << 17));
}

/// Two updates of two micro-batches: gradients are those of an emulation that rounds each host's sum, adds these in
/// float32, and rounds once more.
void check_sums_by_hosts(const Settings& settings, const std::vector<int>& nodes) {
  CAPTURE(to_string(settings.shard));
  CAPTURE(settings.shard_group);
  CAPTURE(settings.prefetch);
  auto layout = uneven_units(4);
  layout.push_back({.name = "gates", .resident = true, .full_precision = true, .slots = {}});
  layout.back().add("bias", {70});
  Fixture f(settings, layout, nodes);
  REQUIRE(f.store->mesh().two_levels());
  const auto& units = f.store->units();
  const int hosts = *std::max_element(nodes.begin(), nodes.end()) + 1;
  std::int64_t rounded = 0;
  for (int update = 0; update < 2; ++update) {
    f.store->begin_update();
    for (const bool last : {false, true}) {
      f.store->begin_micro_batch(last);
      for (std::size_t u = units.size(); u-- > 0;) {
        const auto gradient = f.store->gradient(u);
        for (std::int64_t i = 0; i < units[u].numel; ++i) {
          float& there = gradient.flat.as<float>()[i];
          there = (gradient.fresh ? 0 : there) + ragged_gradient(world().rank() + update, u, i);
        }
        f.store->gradient_ready(u);
      }
    }
    f.store->finish_gradients();
    for (std::size_t u = 0; u < units.size(); ++u) {
      const auto owned = f.store->owned(u);
      for (auto i = owned.begin; i < owned.end; ++i) {
        std::vector<float> sums(static_cast<std::size_t>(hosts), 0);
        for (int rank = 0; rank < world().size(); ++rank)
          sums[static_cast<std::size_t>(nodes[static_cast<std::size_t>(rank)])] +=
              2 * ragged_gradient(rank + update, u, i);
        float exact = 0, expected = 0;
        for (const float sum : sums) {
          exact += sum;
          expected += cpu::to_float(cpu::to_bf16(sum));
        }
        expected = units[u].full_precision ? exact : cpu::to_float(cpu::to_bf16(expected));
        rounded += expected == exact ? 0 : 1;
        REQUIRE(f.store->gradient_part(u).as<float>()[i - owned.begin] == expected);
      }
    }
  }
  CHECK(rounded > 0);
}

}  // namespace

TEST_CASE("sums in two levels are rounded once on leaving a host and once in all, on every mesh of hosts") {
  for (const auto& nodes : host_layouts()) {
    CAPTURE(nodes.front());
    CAPTURE(nodes.back());
    const auto on_a_host = std::count(nodes.begin(), nodes.end(), 0);
    for (auto settings : all_settings()) {
      if (settings.shard != Sharding::none && on_a_host % settings.shard_group != 0) continue;
      settings.reduce = Reduce::bf16_between_hosts;
      for (const int prefetch : {1, 3}) {
        settings.prefetch = prefetch;
        check_sums_by_hosts(settings, nodes);
      }
    }
  }
}

TEST_CASE("on one host sums in two levels are those of float32") {
  for (auto settings : all_settings()) {
    settings.reduce = Reduce::bf16_between_hosts;
    const std::vector<int> nodes(static_cast<std::size_t>(world().size()), 0);
    CHECK(!make_mesh(nodes, world().rank(), settings).two_levels());
    check_updates(settings, 4, 2);
  }
}

namespace {

/// Passes everything on, and counts it.
class Counting final : public Communicator {
 public:
  struct Counts {
    int gathers = 0;
    int scatters = 0;
    int reductions = 0;
  };
  Counting(std::unique_ptr<Communicator> inner, Counts& counts) : inner_(std::move(inner)), counts_(counts) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  Request all_gather(Tensor full, Tensor part, std::string_view subject) override {
    ++counts_.gathers;
    return inner_->all_gather(full, part, subject);
  }
  Request reduce_scatter(Tensor part, Tensor full, std::string_view subject) override {
    ++counts_.scatters;
    return inner_->reduce_scatter(part, full, subject);
  }
  Request all_reduce(Tensor x, std::string_view subject) override {
    ++counts_.reductions;
    return inner_->all_reduce(x, subject);
  }

 private:
  void wait(int) override {}  // requests are the inner one's

  std::unique_ptr<Communicator> inner_;
  Counts& counts_;
};

struct Traffic {
  Counting::Counts shards;
  Counting::Counts replicas;
};

/// What one update of 6 blocks and a root unit sends, in steady state.
Traffic traffic_of(const Settings& settings, int micro_batches) {
  Traffic traffic;
  Fixture f(settings, 6);
  f.groups.shards = std::make_unique<Counting>(std::move(f.groups.shards), traffic.shards);
  f.groups.replicas = std::make_unique<Counting>(std::move(f.groups.replicas), traffic.replicas);
  for (int version = 0; version < 2; ++version) {
    traffic = {};
    f.set_masters(version);
    f.store->publish_masters();
    f.store->begin_update();
    for (int m = 0; m < micro_batches; ++m) {
      f.store->begin_micro_batch(m + 1 == micro_batches);
      f.pass(version, 1);
    }
    f.store->finish_gradients();
  }
  f.store->wait_all();
  return traffic;
}

}  // namespace

TEST_CASE("nothing is sent that need not be") {
  if (world().size() < 2) return;
  constexpr int units = 7;
  constexpr int blocks = 6;
  const int group = world().size() % 2 == 0 ? world().size() / 2 : world().size();
  const int over_groups = group < world().size() ? units : 0;
  for (const int micro_batches : {1, 3}) {
    CAPTURE(micro_batches);
    const auto none = traffic_of({.shard = Sharding::none}, micro_batches);
    CHECK(none.replicas.reductions == units);
    CHECK(none.shards.gathers + none.shards.scatters + none.shards.reductions == 0);
    if (group == 1) continue;
    const auto optimizer = traffic_of({.shard = Sharding::optimizer, .shard_group = group}, micro_batches);
    CHECK(optimizer.shards.gathers == units);
    CHECK(optimizer.shards.scatters == units);
    CHECK(optimizer.replicas.reductions == over_groups);
    for (const bool keep : {false, true}) {
      CAPTURE(keep);
      const auto full =
          traffic_of({.shard = Sharding::full, .shard_group = group, .keep_weights = keep}, micro_batches);
      // The tests' passes use weights forward only. Of a pass's blocks the last two are there at the next one's
      // beginning, which begins with others.
      CHECK(full.shards.gathers == 1 + blocks * (keep ? 1 : micro_batches));
      CHECK(full.shards.scatters == 1 + blocks * micro_batches);
      CHECK(full.replicas.reductions == over_groups);
      CHECK(full.replicas.gathers + full.replicas.scatters + full.shards.reductions == 0);
    }
  }
}

TEST_CASE("what is saved by all ranks is the unit, and is owned where it is saved") {
  for (const auto& settings : all_settings()) {
    CAPTURE(settings.shard_group);
    Fixture f(settings, 2);
    for (std::size_t u = 0; u < f.store->units().size(); ++u) {
      const auto saved = f.store->saved(u);
      const auto owned = f.store->owned(u);
      const auto named = unit_part(f.store->units()[u], f.store->saved_part(), world().size());
      CHECK(saved.begin == named.begin);
      CHECK(saved.end == named.end);
      if (saved.size() > 0) {
        CHECK(owned.begin <= saved.begin);
        CHECK(saved.end <= owned.end);
      }
      CHECK(world().sum(saved.size()) == f.store->units()[u].numel);
      CHECK(world().sum(f.store->counts() ? owned.size() : 0) == f.store->units()[u].numel);
    }
  }
}

namespace {

/// Bytes that a rank of so many would plan for, whatever number of ranks there is now.
std::int64_t planned(const Settings& settings, int ranks, int blocks) {
  const auto ops = make_cpu_ops(1);
  const std::vector<int> nodes(static_cast<std::size_t>(ranks));
  const MeshGroups groups = {.mesh = make_mesh(nodes, 0, settings.shard, settings.shard_group),
                             .shards = nullptr,
                             .replicas = nullptr};
  Arena arena(ops->device());
  std::vector<UnitLayout> units(1);
  units[0].name = "root";
  units[0].resident = true;
  units[0].add("embedding", {1000, 64});
  for (int b = 0; b < blocks; ++b) {
    units.push_back({.name = "blocks." + std::to_string(b), .resident = false, .slots = {}});
    units.back().add("matrix", {256, 512});
  }
  const ParameterStore store(*ops, groups, units, settings, parallel::Use::training, world().watchdog(),
                             arena);
  return arena.total_bytes();
}

}  // namespace

TEST_CASE("a rank's memory falls as the ranks of a group grow, towards what passes through") {
  for (const auto reduce : {Reduce::f32, Reduce::bf16}) {
    std::int64_t before = planned({.shard = Sharding::none}, 1, 24);
    for (const int ranks : {2, 4, 8, 16, 32, 64}) {
      const auto full = planned({.shard = Sharding::full, .reduce = reduce}, ranks, 24);
      CAPTURE(ranks);
      CHECK(full < before);
      CHECK(full < planned({.shard = Sharding::optimizer, .reduce = reduce}, ranks, 24));
      before = full;
    }
    // The embedding's weights and gradient, and two blocks' weights, gradients and parts of them (f32).
    constexpr std::int64_t whole = (2 * 64'000 + 2 * 2 * 131'072 + 2 * 131'072) * 4;
    CHECK(before < whole);
  }
  // Replicas of a group do not change it, but for the rounding of parts.
  const auto one_group = planned({.shard = Sharding::full, .shard_group = 4}, 4, 24);
  const auto four_groups = planned({.shard = Sharding::full, .shard_group = 4}, 16, 24);
  CHECK(std::abs(one_group - four_groups) < one_group / 100);
}

TEST_CASE("where gradients are kept whole, their sums take no memory of their own") {
  constexpr std::int64_t root = 64'000 * 4;
  constexpr std::int64_t block = 131'072 * 4;
  constexpr int blocks = 24, ranks = 8;
  // In f32 on the CPU weights are the masters: whole weights and whole gradients.
  CHECK(planned({.shard = Sharding::optimizer}, ranks, blocks) == 2 * (root + blocks * block));
  // The root's; of blocks the parts of weights and gradients, and two on their way of each, with parts of the gradients.
  CHECK(planned({.shard = Sharding::full}, ranks, blocks) ==
        2 * root + 2 * blocks * block / ranks + 2 * 2 * block + 2 * block / ranks);
}

TEST_CASE("weights that are kept and deeper prefetching take the memory that the plan says") {
  const Settings full = {.shard = Sharding::full};
  constexpr std::int64_t block = 131'072 * 4;
  const auto least = planned(full, 8, 24);
  auto more = full;
  more.keep_weights = true;
  CHECK(planned(more, 8, 24) == least + 22 * block);
  more = full;
  more.prefetch = 3;
  CHECK(planned(more, 8, 24) == least + 2 * (2 * block + block / 8));
}

TEST_CASE("asking for more units at once than there are buffers is a bug that is named") {
  for (const int depth : {1, 2}) {
    Fixture f({.shard = Sharding::full, .shard_group = all_ranks, .prefetch = depth}, 5);
    if (world().size() == 1) return;
    f.set_masters(0);
    f.store->publish_masters();
    std::size_t unit = 1;
    for (; unit <= static_cast<std::size_t>(depth) + 1; ++unit) f.store->weights(unit);
    CHECK_THROWS_AS(f.store->weights(unit), std::logic_error);
    f.store->wait_all();
  }
}

TEST_CASE(
    "a rank that waits for weights is at the pass that asks for them: forward, or backward from its first "
    "gradient") {
  for (const auto& settings : all_settings()) {
    CAPTURE(to_string(settings.shard));
    CAPTURE(settings.shard_group);
    const auto ops = make_cpu_ops(1);
    const auto groups = groups_of(*ops, settings, world().nodes());
    NodeBoard board("", 1, 0);
    Watchdog watchdog({}, 1, board);
    Arena arena(ops->device());
    std::unique_ptr<ParameterStore> store;
    const auto build = [&] {
      store = std::make_unique<ParameterStore>(*ops, groups, uneven_units(3), settings,
                                               parallel::Use::training, watchdog, arena);
    };
    build();
    arena.commit();
    build();
    const auto check_weights = [&](std::size_t unit, const std::string& at) {
      store->weights(unit);
      CHECK(board.own().at.get() == at);
      store->release(unit);
    };
    const auto forward = [&] {
      for (const std::size_t unit : {0, 1, 2, 3})
        check_weights(unit, "forward of " + store->units()[unit].name);
    };
    store->publish_masters();
    for (int update = 0; update < 2; ++update) {
      store->begin_update();
      for (const bool last : {false, true}) {
        store->begin_micro_batch(last);
        forward();
        for (const std::size_t unit : {0, 3, 2, 1}) {  // the root's gradient forms first and is complete last
          const std::string at = "backward of " + store->units()[unit].name;
          if (unit > 0) check_weights(unit, at);
          store->gradient(unit);
          CHECK(board.own().at.get() == at);
          if (unit > 0) store->gradient_ready(unit);
        }
        store->gradient_ready(0);
      }
      store->finish_gradients();
      store->publish_masters();
      forward();  // of a validation
    }
    store->wait_all();
  }
}

TEST_CASE("a timeline has the passes, the collectives with their bytes, and the waits for them") {
  constexpr int blocks = 5;
  constexpr int micro_batches = 3;
  for (auto settings : all_settings()) {
    Fixture f(settings, blocks);
    f.set_masters(0);
    f.store->publish_masters();
    f.store->wait_all();
    Timeline timeline(f.ops->make_stopwatch());
    f.store->follow(&timeline);
    f.store->begin_update();
    for (int micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
      f.store->begin_micro_batch(micro_batch + 1 == micro_batches);
      f.pass(0, 1);
    }
    f.store->finish_gradients();
    f.store->follow(nullptr);
    f.store->publish_masters();  // of which the timeline hears no more
    f.store->wait_all();

    const auto& mesh = f.store->mesh();
    std::int64_t root = 0;  // elements of the padded unit
    std::int64_t cut = 0;   // of all blocks
    for (std::size_t u = 0; u < f.store->units().size(); ++u) {
      const auto whole = unit_part_size(f.store->units()[u], mesh.ranks()) * mesh.ranks();
      (f.store->units()[u].resident ? root : cut) += whole;
    }
    const bool full = settings.shard == Sharding::full && mesh.shards > 1;
    const auto spans = timeline.finish();
    std::int64_t gathered = 0, scattered = 0, reduced = 0;
    for (const auto& total : totals(spans)) {
      CHECK(total.waited <= total.seconds + 1e-3);
      if (total.kind == "all_gather") gathered = total.bytes / 4;
      if (total.kind == "reduce_scatter") scattered = total.bytes / 4;
      if (total.kind == "all_reduce") reduced = total.bytes / 4;
    }
    CHECK(gathered == (full ? micro_batches * cut : 0));
    CHECK(scattered == (mesh.shards == 1 ? 0 : full ? micro_batches * cut + root : cut + root));
    CHECK(reduced == (mesh.replicas == 1 ? 0 : (cut + root) / mesh.shards));

    int forward = 0, backward = 0;
    double end = 0;
    for (const auto& span : spans) {
      CHECK(span.begin <= span.end);
      if (span.lane == Timeline::Lane::waiting)
        CHECK(span.of == (span.kind == "all_reduce" ? Timeline::Lane::replicas : Timeline::Lane::shards));
      if (span.lane != Timeline::Lane::compute) continue;
      CHECK(span.begin >= end);  // one after another
      end = span.end;
      forward += span.kind == "forward";
      backward += span.kind == "backward";
    }
    CHECK(forward == micro_batches * (blocks + 1));
    CHECK(backward == 2 * micro_batches * (blocks + 1));  // the fixture asks twice
  }
}
